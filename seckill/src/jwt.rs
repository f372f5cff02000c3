//! JSON Web Tokens (RFC 7519), signed and checked by ring, which TLS links anyway.
//!
//! `jsonwebtoken` brings the format and the claims and asks its [`CryptoProvider`] for the signatures. Here is that provider, for
//! HS256, HS384, HS512, RS256, ES256 and EdDSA (RFC 7518, RFC 8037). Every other algorithm is an error, never another check.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, Header, TokenData,
    Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, Result},
    signature::{self, Signer, Verifier},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
        Ed25519KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};
use serde::{Serialize, de::DeserializeOwned};

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(RingSigner::try_new(*algorithm, key)?)),
    verifier_factory: |algorithm, key| Ok(Box::new(RingVerifier::try_new(*algorithm, key)?)),
    // For keys as JWK, which nothing here reads.
    key_utils: KeyUtils::new_unimplemented(),
};

/// A token with these claims, signed.
pub fn encode<T: Serialize>(header: &Header, claims: &T, key: &EncodingKey) -> Result<String> {
    install();
    jsonwebtoken::encode(header, claims, key)
}

/// The claims of a token whose signature is right and which `validation` allows.
pub fn decode<T: DeserializeOwned>(
    token: &str,
    key: &DecodingKey,
    validation: &Validation,
) -> Result<TokenData<T>> {
    install();
    jsonwebtoken::decode(token, key, validation)
}

/// `jsonwebtoken` has one provider a process.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let installed = RING.install_default();
        debug_assert!(installed.is_ok(), "somebody else brought a provider");
    });
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn wrong(kind: ErrorKind) -> Error {
    kind.into()
}

enum SigningKey {
    Hmac(hmac::Key),
    Ec(EcdsaKeyPair, SystemRandom),
    Ed(Ed25519KeyPair),
}

struct RingSigner {
    algorithm: Algorithm,
    key: SigningKey,
}

impl RingSigner {
    fn try_new(algorithm: Algorithm, key: &EncodingKey) -> Result<Self> {
        let bytes = key.as_bytes();
        let key = match (algorithm, key.family()) {
            (Algorithm::ES256, AlgorithmFamily::Ec) => {
                let random = SystemRandom::new();
                let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = EcdsaKeyPair::from_pkcs8(signing, bytes, &random)
                    .map_err(|_| wrong(ErrorKind::InvalidEcdsaKey))?;
                SigningKey::Ec(pair, random)
            }
            (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)
                    .map_err(|_| wrong(ErrorKind::InvalidKeyFormat))?;
                SigningKey::Ed(pair)
            }
            (_, AlgorithmFamily::Hmac) => {
                let hmac = hmac_algorithm(algorithm);
                let hmac = hmac.ok_or_else(|| wrong(ErrorKind::InvalidAlgorithm))?;
                SigningKey::Hmac(hmac::Key::new(hmac, bytes))
            }
            _ => return Err(wrong(ErrorKind::InvalidAlgorithm)),
        };
        Ok(Self { algorithm, key })
    }
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        match &self.key {
            SigningKey::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            SigningKey::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            SigningKey::Ec(pair, random) => {
                let signed = pair.sign(random, message);
                let signed = signed.map_err(|_| signature::Error::new())?;
                Ok(signed.as_ref().to_vec())
            }
        }
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

enum VerifyingKey {
    Hmac(hmac::Key),
    /// In the form that ring takes: PKCS#1 of RSA, a point of a curve.
    Public(UnparsedPublicKey<Vec<u8>>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

struct RingVerifier {
    algorithm: Algorithm,
    key: VerifyingKey,
}

impl RingVerifier {
    fn try_new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        let public = |how: &'static dyn VerificationAlgorithm| {
            let bytes = key.try_get_as_bytes()?.to_vec();
            Ok::<_, Error>(VerifyingKey::Public(UnparsedPublicKey::new(how, bytes)))
        };
        let key = match (algorithm, key.family(), key.kind()) {
            (
                Algorithm::RS256,
                AlgorithmFamily::Rsa,
                DecodingKeyKind::RsaModulusExponent { n, e },
            ) => VerifyingKey::Rsa(RsaPublicKeyComponents {
                n: n.clone(),
                e: e.clone(),
            }),
            (Algorithm::RS256, AlgorithmFamily::Rsa, _) => public(&RSA_PKCS1_2048_8192_SHA256)?,
            (Algorithm::ES256, AlgorithmFamily::Ec, _) => public(&ECDSA_P256_SHA256_FIXED)?,
            (Algorithm::EdDSA, AlgorithmFamily::Ed, _) => public(&ED25519)?,
            (_, AlgorithmFamily::Hmac, _) => {
                let hmac = hmac_algorithm(algorithm);
                let hmac = hmac.ok_or_else(|| wrong(ErrorKind::InvalidAlgorithm))?;
                VerifyingKey::Hmac(hmac::Key::new(hmac, key.try_get_as_bytes()?))
            }
            _ => return Err(wrong(ErrorKind::InvalidAlgorithm)),
        };
        Ok(Self { algorithm, key })
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(
        &self,
        message: &[u8],
        signed: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let is_right = match &self.key {
            VerifyingKey::Hmac(key) => hmac::verify(key, message, signed),
            VerifyingKey::Public(key) => key.verify(message, signed),
            VerifyingKey::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signed),
        };
        is_right.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    use ring::signature::KeyPair;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::public_key::read_public_key;

    fn lenient(algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation
    }

    fn read(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<Value> {
        let decoded = decode::<Value>(token, key, &lenient(algorithm));
        decoded.ok().map(|token| token.claims)
    }

    #[test]
    fn the_example_of_rfc_7515_is_verified() {
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = DecodingKey::from_secret(&BASE64.decode(key).unwrap());
        assert_eq!(read(token, &key, Algorithm::HS256).unwrap()["iss"], "joe");
        let other = DecodingKey::from_secret(b"another");
        assert_eq!(read(token, &other, Algorithm::HS256), None);
    }

    #[test]
    fn what_is_signed_is_verified_and_nothing_else() {
        let random = SystemRandom::new();
        let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
        let ec_public = EcdsaKeyPair::from_pkcs8(signing, ec.as_ref(), &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed_public = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
        let secret = b"a secret of thirty-two bytes, ok";
        let pairs = [
            (
                Algorithm::HS256,
                EncodingKey::from_secret(secret),
                DecodingKey::from_secret(secret),
            ),
            (
                Algorithm::HS512,
                EncodingKey::from_secret(secret),
                DecodingKey::from_secret(secret),
            ),
            (
                Algorithm::ES256,
                EncodingKey::from_ec_der(ec.as_ref()),
                DecodingKey::from_ec_der(ec_public.public_key().as_ref()),
            ),
            (
                Algorithm::EdDSA,
                EncodingKey::from_ed_der(ed.as_ref()),
                DecodingKey::from_ed_der(ed_public.public_key().as_ref()),
            ),
        ];
        for (algorithm, sign, verify) in &pairs {
            let claims = json!({"sub": "ann"});
            let token = encode(&Header::new(*algorithm), &claims, sign).unwrap();
            assert_eq!(read(&token, verify, *algorithm), Some(claims));
            let (signed, _) = token.rsplit_once('.').unwrap();
            let forged = format!("{signed}.{}", BASE64.encode([7; 64]));
            assert_eq!(read(&forged, verify, *algorithm), None, "{algorithm:?}");
            // No key is used with another's algorithm.
            for (other, ..) in pairs.iter().filter(|(other, ..)| other != algorithm) {
                assert_eq!(
                    read(&token, verify, *other),
                    None,
                    "{algorithm:?} as {other:?}"
                );
            }
        }
    }

    /// Made with OpenSSL: `openssl dgst -sha256 -sign KEY`.
    #[test]
    fn a_token_signed_with_rsa_elsewhere_is_verified() {
        let public = include_bytes!("../tests/keys/rsa.pub.pem");
        let token = include_str!("../tests/keys/rs256.jwt").trim();
        let key = read_public_key(Algorithm::RS256, public).unwrap();
        assert_eq!(read(token, &key, Algorithm::RS256).unwrap()["sub"], "ann");
        let mut forged = token.to_owned();
        forged.replace_range(30..31, if &token[30..31] == "A" { "B" } else { "A" });
        assert_eq!(read(&forged, &key, Algorithm::RS256), None);
        assert_eq!(read(token, &key, Algorithm::RS384), None);
    }
}
