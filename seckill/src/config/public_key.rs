//! A public key that checks tokens, out of a PEM file: `PUBLIC KEY` (RFC 5280's `SubjectPublicKeyInfo`), `RSA PUBLIC KEY`
//! (RFC 8017) or the `CERTIFICATE` that it stands in. A key that could check no token of its algorithm is refused here, at the
//! start, and not token by token.

use std::ops::RangeInclusive;

use jsonwebtoken::{Algorithm, DecodingKey};
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
    },
    pem::parse_x509_pem,
    prelude::FromDer,
    public_key::RSAPublicKey,
    x509::SubjectPublicKeyInfo,
};

/// Bits of an RSA key that `ring` checks with.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// Reads the public key of `algorithm`, or says what is wrong with `file`.
pub(crate) fn read_public_key(algorithm: Algorithm, file: &[u8]) -> Result<DecodingKey, String> {
    let (_, pem) = parse_x509_pem(file).map_err(|_| "it is no PEM")?;
    let unreadable = || format!("its {} cannot be read", pem.label);
    match pem.label.as_str() {
        "PUBLIC KEY" => {
            let (_, key) =
                SubjectPublicKeyInfo::from_der(&pem.contents).map_err(|_| unreadable())?;
            decoding_key(algorithm, &key)
        }
        "CERTIFICATE" => {
            let certificate = pem.parse_x509().map_err(|_| unreadable())?;
            decoding_key(algorithm, certificate.public_key())
        }
        "RSA PUBLIC KEY" if algorithm == Algorithm::RS256 => rsa(&pem.contents),
        label => Err(format!("it holds a {label}")),
    }
}

fn decoding_key(
    algorithm: Algorithm,
    key: &SubjectPublicKeyInfo<'_>,
) -> Result<DecodingKey, String> {
    let kind = &key.algorithm.algorithm;
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|of| of.as_oid().ok());
    let bits: &[u8] = &key.subject_public_key.data;
    match algorithm {
        Algorithm::RS256 if *kind == OID_PKCS1_RSAENCRYPTION => rsa(bits),
        Algorithm::ES256 if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) => {
            Ok(DecodingKey::from_ec_der(bits))
        }
        Algorithm::EdDSA if *kind == OID_SIG_ED25519 => Ok(DecodingKey::from_ed_der(bits)),
        _ => Err("it holds a key of another kind".to_owned()),
    }
}

fn rsa(der: &[u8]) -> Result<DecodingKey, String> {
    let (_, key) = RSAPublicKey::from_der(der).map_err(|_| "its RSA key cannot be read")?;
    let zeros = key.modulus.iter().take_while(|byte| **byte == 0).count();
    let bits = (key.modulus.len() - zeros) * 8;
    if !RSA_BITS.contains(&bits) {
        let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
        return Err(format!(
            "its RSA key has {bits} bits, not {least} to {most}"
        ));
    }
    Ok(DecodingKey::from_rsa_der(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &[u8] = include_bytes!("../../tests/keys/rsa.pub.pem");
    const RSA_1024: &[u8] = include_bytes!("../../tests/keys/rsa1024.pub.pem");
    const RSA_PKCS1: &[u8] = include_bytes!("../../tests/keys/rsa.pkcs1.pem");
    const P256: &[u8] = include_bytes!("../../tests/keys/p256.pub.pem");
    const P256_CERTIFICATE: &[u8] = include_bytes!("../../tests/keys/p256.crt.pem");
    const P384: &[u8] = include_bytes!("../../tests/keys/p384.pub.pem");
    const PRIVATE: &[u8] = b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    const ED25519: &[u8] = include_bytes!("../../tests/keys/ed25519.pub.pem");

    fn why(algorithm: Algorithm, file: &[u8]) -> String {
        read_public_key(algorithm, file).map(drop).unwrap_err()
    }

    #[test]
    fn each_form_of_a_key_is_read_as_the_same_key() {
        use Algorithm::{ES256, EdDSA, RS256};
        let bytes = |algorithm, file| {
            let key = read_public_key(algorithm, file).unwrap();
            key.try_get_as_bytes().unwrap().to_vec()
        };
        assert_eq!(bytes(RS256, RSA), bytes(RS256, RSA_PKCS1));
        assert_eq!(bytes(ES256, P256), bytes(ES256, P256_CERTIFICATE));
        assert_eq!(bytes(EdDSA, ED25519).len(), 32);
    }

    #[test]
    fn a_key_that_could_check_nothing_says_why() {
        use Algorithm::{ES256, EdDSA, RS256};
        let other = "it holds a key of another kind";
        for (algorithm, file, what) in [
            (RS256, &b"no key"[..], "it is no PEM"),
            (RS256, P256, other),
            (
                RS256,
                RSA_1024,
                "its RSA key has 1024 bits, not 2048 to 8192",
            ),
            (ES256, RSA, other),
            (ES256, RSA_PKCS1, "it holds a RSA PUBLIC KEY"),
            (ES256, P384, other),
            (ES256, ED25519, other),
            (EdDSA, P256_CERTIFICATE, other),
            (EdDSA, PRIVATE, "it holds a PRIVATE KEY"),
        ] {
            assert_eq!(why(algorithm, file), what, "{algorithm:?}");
        }
        let torn = b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n";
        assert_eq!(why(EdDSA, torn), "its PUBLIC KEY cannot be read");
    }
}
