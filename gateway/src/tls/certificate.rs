//! A certificate chain with its key: read from PEM or made on the spot, and the names it answers to.

use std::sync::Arc;

use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::provider;

/// A certificate chain with its key and the names it answers to.
#[derive(Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// Lower case, `*.` for one label. Those of the certificate, or what the configuration chose of them.
    names: Vec<String>,
    /// Unix seconds; `None` when the certificate's own form of time cannot be read.
    not_after_s: Option<u64>,
}

/// How a certificate answers to a name; the better one is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    Name,
    Wildcard,
}

/// Why a certificate cannot be used. The files are at fault.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No PEM certificate inside.
    #[error("holds no PEM certificate")]
    NoCertificate,
    /// No PEM private key inside, or a broken one.
    #[error("its key file holds no PEM private key")]
    NoKey,
    /// Key and certificate are no pair, or the key's kind is unknown.
    #[error("cannot be used with its key: {0}")]
    Mismatch(rustls::Error),
    /// The certificate is not valid for a name the configuration gives it.
    #[error("is not valid for the name {0:?}")]
    Name(String),
    /// No certificate could be made on the spot.
    #[error("cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

impl Certificate {
    /// Reads a chain and a key.
    pub fn try_from_pem(
        cert: &[u8],
        key: &[u8],
        names: Vec<String>,
    ) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        Self::try_new(chain, key, names)
    }

    /// Makes a certificate for these names on the spot, signed by itself.
    pub fn try_self_signed(names: &[&str]) -> Result<Self, CertificateError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|_| CertificateError::NoKey)?;
        Self::try_new(vec![made.cert.der().clone()], key, Vec::new())
    }

    fn try_new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        names: Vec<String>,
    ) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(CertificateError::Mismatch)?;
        let mut names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        if names.is_empty() {
            let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|error| {
                CertificateError::Mismatch(rustls::Error::General(error.to_string()))
            })?;
            names = leaf
                .valid_dns_names()
                .map(str::to_ascii_lowercase)
                .collect();
        }
        for name in &names {
            // A wildcard is valid when any one label in its place is.
            let example = name.replacen('*', "wildcard", 1);
            let is_valid = ServerName::try_from(example)
                .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
            if !is_valid {
                return Err(CertificateError::Name(name.clone()));
            }
        }
        let not_after_s = not_after_s(leaf);
        let key =
            CertifiedKey::from_der(chain, key, &provider()).map_err(CertificateError::Mismatch)?;
        Ok(Self {
            key: Arc::new(key),
            names,
            not_after_s,
        })
    }

    /// The first name, for a metric's label.
    pub fn label(&self) -> &str {
        self.names.first().map_or("default", String::as_str)
    }

    /// When it ends, in unix seconds.
    pub fn not_after_s(&self) -> Option<u64> {
        self.not_after_s
    }

    /// Whether it is this very chain.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }

    /// The leaf in DER, for clients that must trust it.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.key.cert[0].clone()
    }

    /// How many days it is valid for; below 0 once it has ended.
    pub fn days_left(&self, now_s: u64) -> Option<i64> {
        let end = i64::try_from(self.not_after_s?).ok()?;
        Some((end - i64::try_from(now_s).ok()?).div_euclid(86_400))
    }

    /// How well it answers to a name: by the name itself, by a wildcard, or not at all.
    pub(super) fn fit(&self, server_name: &str) -> Option<Fit> {
        let fits = |name: &String| match name.strip_prefix("*.") {
            Some(parent) => server_name
                .split_once('.')
                .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent))
                .then_some(Fit::Wildcard),
            None => name.eq_ignore_ascii_case(server_name).then_some(Fit::Name),
        };
        self.names.iter().filter_map(fits).min()
    }
}

/// The end of a certificate's validity, in unix seconds.
fn not_after_s(certificate: &[u8]) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_made_certificate_is_found() {
        // rcgen's default is the year 4096.
        let made = Certificate::try_self_signed(&["localhost"]).unwrap();
        assert_eq!(made.not_after_s(), Some(67_090_118_400));
    }

    #[test]
    fn broken_der_has_no_end() {
        let made = Certificate::try_self_signed(&["localhost"]).unwrap();
        let leaf = made.leaf();
        for cut in 0..leaf.len().min(200) {
            assert_eq!(not_after_s(&leaf[..cut]), None);
        }
        assert_eq!(not_after_s(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
    }

    #[test]
    fn names_must_be_in_the_certificate() {
        let made = rcgen::generate_simple_self_signed(vec!["*.shop.example".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let load = |name: &str| {
            Certificate::try_from_pem(cert.as_bytes(), key.as_bytes(), vec![name.to_owned()])
        };
        let wildcard = load("*.shop.example").unwrap();
        assert_eq!(wildcard.fit("www.SHOP.example"), Some(Fit::Wildcard));
        let one = load("www.shop.example").unwrap();
        assert_eq!(one.fit("www.shop.example"), Some(Fit::Name));
        assert_eq!(one.fit("shop.example"), None);
        // None given: those of the certificate.
        let own = Certificate::try_from_pem(cert.as_bytes(), key.as_bytes(), Vec::new()).unwrap();
        assert_eq!(own.fit("img.shop.example"), Some(Fit::Wildcard));
        assert_eq!(own.fit("other.example"), None);
        assert!(matches!(
            load("other.example"),
            Err(CertificateError::Name(_))
        ));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let one = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let mixed = Certificate::try_from_pem(
            one.cert.pem().as_bytes(),
            two.signing_key.serialize_pem().as_bytes(),
            Vec::new(),
        );
        assert!(matches!(mixed, Err(CertificateError::Mismatch(_))));
    }
}
