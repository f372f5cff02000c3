//! `[[seckill.token_keys]]`, and every key that checks tokens: out of files or the environment.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use settings::{Inputs, Section};

use super::{SECRET_MIN, public_key::read_public_key};
use crate::entitlement::{TokenKey, TokenKeys};

/// Keys in force at once: two while one is being replaced, for several issuers.
const TOKEN_KEYS_MAX: usize = 32;
/// What stands in the header of every token.
const KID_MAX: usize = 64;

/// An algorithm and its name.
pub(super) type Kind = (&'static str, Algorithm);

/// With a shared secret. The others have a public key, in PEM.
pub(super) const HS256: Kind = ("HS256", Algorithm::HS256);
pub(super) const RS256: Kind = ("RS256", Algorithm::RS256);
pub(super) const ES256: Kind = ("ES256", Algorithm::ES256);
pub(super) const ED_DSA: Kind = ("EdDSA", Algorithm::EdDSA);

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
    let algorithm = match section.value("algorithm") {
        None => Some(HS256.1),
        Some(_) => section.choice("algorithm", kinds),
    };
    section.require_secret("key");
    let is_shared = algorithm == Some(HS256.1);
    let least = if is_shared { SECRET_MIN } else { 1 };
    let bytes = section.secret("key", least, inputs);
    let (algorithm, bytes) = algorithm.zip(bytes)?;
    let verify = match is_shared {
        true => Ok(DecodingKey::from_secret(&bytes)),
        false => read_public_key(algorithm, &bytes),
    };
    let verify = verify.map_err(|why| {
        let what = format!("must hold a public key for {algorithm:?} in PEM ({why})");
        section.bad_secret("key", what);
    });
    Some(ReadKey {
        algorithm,
        verify: verify.ok()?,
        sign: is_shared.then(|| EncodingKey::from_secret(&bytes)),
    })
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
