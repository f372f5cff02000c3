//! Keys that check tokens, out of files or the environment.

use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, errors::Error as JwtError};
use serde::Deserialize;

use super::{SECRET_MIN, SECRET_TOO_SHORT, reader::Reader};
use crate::entitlement::{TokenKey, TokenKeys};

/// Keys in force at once: two while one is being replaced, for several issuers.
const TOKEN_KEYS_MAX: usize = 32;
/// What stands in the header of every token.
const KID_MAX: usize = 64;

/// One of `[[seckill.token_keys]]` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTokenKey {
    /// Its name in a token's header.
    pub kid: Option<String>,
    /// `HS256`, `ES256` or `EdDSA`.
    pub algorithm: Option<String>,
    /// File with the shared secret (HS256) or the public key in PEM.
    pub key_file: Option<PathBuf>,
    /// Environment variable with the same.
    pub key_env: Option<String>,
}

/// A key as it was read.
pub(super) struct ReadKey {
    pub(super) algorithm: Algorithm,
    pub(super) verify: DecodingKey,
    /// Of a shared secret only.
    pub(super) sign: Option<EncodingKey>,
}

/// Reads `KEY.algorithm` (HS256 if missing) and the key of `KEY.key_file` or `KEY.key_env`.
pub(super) fn read_key(
    reader: &mut Reader<'_>,
    key: &str,
    allowed: &[&str],
    algorithm: Option<&str>,
    file: Option<&Path>,
    env: Option<&str>,
) -> Option<ReadKey> {
    let name = algorithm.unwrap_or("HS256");
    type FromPem = fn(&[u8]) -> Result<DecodingKey, JwtError>;
    let known: Option<(Algorithm, Option<FromPem>)> = match allowed.contains(&name).then_some(name)
    {
        Some("HS256") => Some((Algorithm::HS256, None)),
        Some("RS256") => Some((Algorithm::RS256, Some(DecodingKey::from_rsa_pem))),
        Some("ES256") => Some((Algorithm::ES256, Some(DecodingKey::from_ec_pem))),
        Some("EdDSA") => Some((Algorithm::EdDSA, Some(DecodingKey::from_ed_pem))),
        Some(_) | None => None,
    };
    let Some((algorithm, from_pem)) = known else {
        let allowed = format!("must be one of {}", allowed.join(", "));
        reader.bad(&format!("{key}.algorithm"), name, &allowed);
        return None;
    };
    if file.is_none() && env.is_none() {
        reader.bad(
            &format!("{key}.key_file"),
            "",
            "must name the file of the key (or key_env its variable)",
        );
    }
    let place = format!("{key}.key");
    let bytes = reader.secret(&place, file, env)?;
    let (verify, sign) = match from_pem {
        None if bytes.len() < SECRET_MIN => {
            reader.bad(&place, "…", SECRET_TOO_SHORT);
            return None;
        }
        None => (
            DecodingKey::from_secret(&bytes),
            Some(EncodingKey::from_secret(&bytes)),
        ),
        Some(read) => match read(&bytes) {
            Ok(verify) => (verify, None),
            Err(error) => {
                let allowed = format!("must be a public key for {name} in PEM ({error})");
                reader.bad(&place, "…", &allowed);
                return None;
            }
        },
    };
    Some(ReadKey {
        algorithm,
        verify,
        sign,
    })
}

/// Reads all keys of entitlement tokens.
pub(super) fn token_keys(reader: &mut Reader<'_>, raw: &[RawTokenKey]) -> TokenKeys {
    if raw.len() > TOKEN_KEYS_MAX {
        let given = raw.len().to_string();
        let allowed = format!("must be at most {TOKEN_KEYS_MAX} keys");
        reader.bad("token_keys", &given, &allowed);
    }
    let mut keys: Vec<TokenKey> = Vec::new();
    for (index, raw) in raw.iter().enumerate().take(TOKEN_KEYS_MAX) {
        let place = format!("token_keys[{index}]");
        let kid = raw.kid.clone().unwrap_or_default();
        let is_name =
            (1..=KID_MAX).contains(&kid.len()) && kid.bytes().all(|b| b.is_ascii_graphic());
        if !is_name || keys.iter().any(|key| key.kid == kid) {
            let allowed =
                format!("must be 1..={KID_MAX} visible ASCII characters, not given twice");
            reader.bad(&format!("{place}.kid"), &kid, &allowed);
        }
        let allowed = ["HS256", "ES256", "EdDSA"];
        let read = read_key(
            reader,
            &place,
            &allowed,
            raw.algorithm.as_deref(),
            raw.key_file.as_deref(),
            raw.key_env.as_deref(),
        );
        keys.extend(read.map(|read| TokenKey {
            kid,
            algorithm: read.algorithm,
            verify: read.verify,
            sign: read.sign,
        }));
    }
    TokenKeys::new(keys)
}
