//! Who buys: a header that only trusted hops may set, or the `sub` of a JSON Web Token (RFC 7519) in `Authorization: Bearer`.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::{
    extract::one,
    problem::{Code, Problem},
};
use crate::{ids::BuyerId, jwt};

/// How far the clocks of the token's issuer and of this node may differ.
const LEEWAY_S: f64 = 30.0;

/// Where the buyer's identity stands.
#[derive(Clone)]
pub enum Identity {
    /// In this header. The edge removes it from requests of hops that may not set it.
    Header(HeaderName),
    /// In a token.
    Jwt(Box<Jwt>),
}

/// What a token must be.
#[derive(Clone)]
pub struct Jwt {
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => f.debug_tuple("Header").field(name).finish(),
            // Its key is a secret.
            Self::Jwt(_) => f.write_str("Jwt"),
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: NumericDate,
    #[serde(default)]
    nbf: NumericDate,
}

/// Seconds since 1970, with or without a fraction (RFC 7519 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Deserialize)]
struct NumericDate(f64);

/// Whether a token's header names extensions that its reader must know (RFC 7515 4.1.11): none is known here.
fn has_critical(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let decoded = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&decoded)
        .is_ok_and(|header| header.get("crit").is_some())
}

impl Jwt {
    /// Tokens signed with this key and algorithm, by this issuer and for this audience if they are named.
    pub fn new(
        key: DecodingKey,
        algorithm: Algorithm,
        issuer: Option<&str>,
        audience: Option<&str>,
    ) -> Self {
        // One algorithm, the configured one: a token must not choose how it is checked.
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "sub"]);
        // Times are compared below, with the clock that the caller brings.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        match audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        Self { key, validation }
    }

    fn buyer(&self, token: &str, now_s: u64) -> Result<BuyerId, Problem> {
        // Which check failed is for the log, not for a client that tries tokens.
        let refused = |why: &dyn std::fmt::Display| {
            tracing::debug!(%why, "token refused");
            Problem::new(
                Code::Unauthenticated,
                "the bearer token is not valid here, or no longer",
            )
        };
        if has_critical(token) {
            return Err(refused(&"crit"));
        }
        let decoded = jwt::decode::<Claims>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|error| refused(&error))?.claims;
        let now = now_s as f64;
        if claims.exp.0 + LEEWAY_S <= now {
            return Err(refused(&"expired"));
        }
        if claims.nbf.0 > now + LEEWAY_S {
            return Err(refused(&"not valid yet"));
        }
        BuyerId::try_new(&claims.sub).map_err(|error| refused(&error))
    }
}

impl Identity {
    /// Who sent these headers, if they prove it; for limits, which go by the address of everybody else.
    pub fn proven(&self, headers: &HeaderMap, now_ms: u64) -> Option<BuyerId> {
        self.buyer(headers, now_ms).ok()
    }

    /// Who sent these headers.
    pub(super) fn buyer(&self, headers: &HeaderMap, now_ms: u64) -> Result<BuyerId, Problem> {
        match self {
            Self::Header(name) => match one(headers, name)? {
                None => Err(Problem::new(
                    Code::Unauthenticated,
                    format!(
                        "no header {name} names the buyer; it counts from hops in server.trusted_headers_from only"
                    ),
                )),
                Some(text) => BuyerId::try_new(text)
                    .map_err(|e| Problem::new(Code::InvalidRequest, format!("{name}: {e}"))),
            },
            Self::Jwt(jwt) => {
                let field = one(headers, &header::AUTHORIZATION)?.unwrap_or_default();
                let (scheme, token) = field.split_once(' ').unwrap_or_default();
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(Problem::new(
                        Code::Unauthenticated,
                        "send the buyer's token as Authorization: Bearer",
                    ));
                }
                jwt.buyer(token.trim(), now_ms / 1000)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::jwt::encode;

    const SECRET: &[u8] = b"a secret of the shop and its login";
    const NOW_MS: u64 = 1_000_000_000;

    fn identity() -> Identity {
        let key = DecodingKey::from_secret(SECRET);
        Identity::Jwt(Box::new(Jwt::new(
            key,
            Algorithm::HS256,
            Some("shop"),
            Some("penstock"),
        )))
    }

    fn ask(token: &str) -> Result<BuyerId, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::AUTHORIZATION,
            format!("Bearer {token}").parse().unwrap(),
        );
        identity().buyer(&headers, NOW_MS)
    }

    fn token(claims: &Value, secret: &[u8], algorithm: Algorithm) -> String {
        encode(
            &Header::new(algorithm),
            claims,
            &EncodingKey::from_secret(secret),
        )
        .unwrap()
    }

    fn good() -> Value {
        json!({"sub": "ann", "exp": NOW_MS / 1000 + 60, "iss": "shop", "aud": "penstock"})
    }

    #[test]
    fn a_valid_token_names_its_buyer() {
        assert_eq!(
            ask(&token(&good(), SECRET, Algorithm::HS256))
                .unwrap()
                .as_str(),
            "ann"
        );
    }

    #[test]
    fn times_may_have_fractions_and_unknown_extensions_are_refused() {
        let mut claims = good();
        claims["exp"] = json!((NOW_MS / 1000) as f64 + 60.5);
        claims["nbf"] = json!((NOW_MS / 1000) as f64 - 0.5);
        let fine = token(&claims, SECRET, Algorithm::HS256);
        assert_eq!(ask(&fine).unwrap().as_str(), "ann");
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["x"],"x":1}"#);
        let body = fine.split('.').nth(1).unwrap();
        let signed = format!("{header}.{body}");
        let mac = jsonwebtoken::crypto::sign(
            signed.as_bytes(),
            &EncodingKey::from_secret(SECRET),
            Algorithm::HS256,
        );
        let critical = format!("{signed}.{}", mac.unwrap());
        assert_eq!(ask(&critical).unwrap_err().code(), Code::Unauthenticated);
    }

    #[test]
    fn every_flaw_is_refused_alike() {
        let with = |key: &str, value: Value| {
            let mut claims = good();
            claims[key] = value;
            token(&claims, SECRET, Algorithm::HS256)
        };
        let mut without_exp = good();
        without_exp.as_object_mut().unwrap().remove("exp");
        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.";
        let flawed = [
            token(
                &good(),
                b"another secret of another shop...",
                Algorithm::HS256,
            ),
            token(&good(), SECRET, Algorithm::HS512),
            token(&without_exp, SECRET, Algorithm::HS256),
            with("exp", json!(NOW_MS / 1000 - LEEWAY_S as u64)),
            with("nbf", json!(NOW_MS / 1000 + LEEWAY_S as u64 + 1)),
            with("iss", json!("elsewhere")),
            with("aud", json!("elsewhere")),
            with("sub", json!("a b")),
            with("sub", json!(7)),
            unsigned.to_owned(),
            "x".to_owned(),
            String::new(),
        ];
        for token in flawed {
            let refused = ask(&token).unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{token}");
        }
        assert!(identity().buyer(&HeaderMap::new(), NOW_MS).is_err());
    }
}
