//! `[[seckill.token_keys]]`, and every key that checks tokens: out of files or the environment.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, errors::Error as JwtError};
use settings::{Inputs, Section};

use super::SECRET_MIN;
use crate::entitlement::{TokenKey, TokenKeys};

/// Keys in force at once: two while one is being replaced, for several issuers.
const TOKEN_KEYS_MAX: usize = 32;
/// What stands in the header of every token.
const KID_MAX: usize = 64;

type FromPem = fn(&[u8]) -> Result<DecodingKey, JwtError>;

/// An algorithm: its name, what it is, and how its public keys are read. A shared secret is no PEM.
pub(super) type Kind = (&'static str, (Algorithm, Option<FromPem>));

pub(super) const HS256: Kind = ("HS256", (Algorithm::HS256, None));
pub(super) const RS256: Kind = ("RS256", (Algorithm::RS256, Some(DecodingKey::from_rsa_pem)));
pub(super) const ES256: Kind = ("ES256", (Algorithm::ES256, Some(DecodingKey::from_ec_pem)));
pub(super) const ED_DSA: Kind = ("EdDSA", (Algorithm::EdDSA, Some(DecodingKey::from_ed_pem)));

/// A key as it was read.
pub(super) struct ReadKey {
    pub(super) algorithm: Algorithm,
    pub(super) verify: DecodingKey,
    /// Of a shared secret only.
    pub(super) sign: Option<EncodingKey>,
}

/// Reads `algorithm` (HS256 if missing) and the key of `key_file` or `key_env`.
pub(super) fn read_key(
    section: &Section<'_>,
    kinds: &[Kind],
    inputs: &Inputs<'_>,
) -> Option<ReadKey> {
    let kind = match section.value("algorithm") {
        None => Some(HS256.1),
        Some(_) => section.choice("algorithm", kinds),
    };
    section.require_secret("key");
    let is_shared = matches!(kind, Some((_, None)));
    let least = if is_shared { SECRET_MIN } else { 1 };
    let bytes = section.secret("key", least, inputs);
    let ((algorithm, from_pem), bytes) = kind.zip(bytes)?;
    let Some(from_pem) = from_pem else {
        return Some(ReadKey {
            algorithm,
            verify: DecodingKey::from_secret(&bytes),
            sign: Some(EncodingKey::from_secret(&bytes)),
        });
    };
    match from_pem(&bytes) {
        Ok(verify) => Some(ReadKey {
            algorithm,
            verify,
            sign: None,
        }),
        Err(error) => {
            let what = format!("must hold a public key for {algorithm:?} in PEM ({error})");
            section.bad_secret("key", what);
            None
        }
    }
}

/// Reads all keys of entitlement tokens.
pub(super) fn token_keys(seckill: &Section<'_>, inputs: &Inputs<'_>) -> TokenKeys {
    let sections = seckill.sections("token_keys");
    if sections.len() > TOKEN_KEYS_MAX {
        let what = format_args!("must be at most {TOKEN_KEYS_MAX} keys");
        seckill.problem("token_keys", what);
    }
    let mut keys: Vec<TokenKey> = Vec::new();
    let mut kids: Vec<String> = Vec::new();
    for section in sections.into_iter().take(TOKEN_KEYS_MAX) {
        let form = format!("1 to {KID_MAX} visible ASCII characters, not given twice");
        section.require("kid", &form);
        let kid = section.parsed("kid", &form, |text| {
            let is_name =
                (1..=KID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
            (is_name && !kids.iter().any(|kid| kid == text)).then(|| text.to_owned())
        });
        let read = read_key(&section, &[HS256, ES256, ED_DSA], inputs);
        section.finish();
        kids.extend(kid.clone());
        keys.extend(kid.zip(read).map(|(kid, read)| TokenKey {
            kid,
            algorithm: read.algorithm,
            verify: read.verify,
            sign: read.sign,
        }));
    }
    TokenKeys::new(keys)
}
