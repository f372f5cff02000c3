//! TLS of a listener: certificates by server name, ALPN, session tickets; and certificates made on the spot.
//!
//! On the path: `server.rs` runs the handshake with the [`ServerConfig`] made here, before hyper sees a byte.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ClientHello, ParsedCertificate, ResolvesServerCert, ServerSessionMemoryCache},
    sign::CertifiedKey,
};

use crate::config;

/// Sessions of TLS 1.2 clients that take no tickets. rustls's own default is 256, too few for a crowd that comes back.
const SESSIONS: usize = 16_384;

/// A certificate chain with its key and the names it answers to.
#[derive(Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// Lower case, `*.` for one label. Those of the certificate, or what the configuration chose of them.
    names: Vec<String>,
    /// Unix seconds; `None` when the certificate's own form of time cannot be read.
    not_after_s: Option<u64>,
}

/// How a certificate answers to a name; the better one is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
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
        let not_after_s = not_after(leaf);
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

    /// The leaf in DER, for clients that shall trust it.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.key.cert[0].clone()
    }

    /// How many days it is valid for; below 0 once it has ended.
    pub fn days_left(&self, now_s: u64) -> Option<i64> {
        let end = i64::try_from(self.not_after_s?).ok()?;
        Some((end - i64::try_from(now_s).ok()?).div_euclid(86_400))
    }

    /// How well it answers to a name: by the name itself, by a wildcard, or not at all.
    fn fit(&self, server_name: &str) -> Option<Fit> {
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

/// The certificates of a listener; one is made when the configuration says `self-signed`.
pub fn certificates(tls: &config::Tls) -> Result<Vec<Arc<Certificate>>, CertificateError> {
    match tls {
        config::Tls::Files(certificates) => Ok(certificates.clone()),
        config::Tls::SelfSigned => {
            let names = ["localhost", "127.0.0.1", "::1"];
            Ok(vec![Arc::new(Certificate::try_self_signed(&names)?)])
        }
    }
}

/// What a listener's handshakes need. Shared by all cores, so that a session resumes on any of them.
pub fn server_config(
    listener: &config::Listener,
    certificates: Vec<Arc<Certificate>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni(certificates)));
    if listener.h2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    if listener.h1 {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    // Stateless tickets with keys that rotate: resumption costs no memory per client.
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(Arc::new(config))
}

/// The one provider of cryptography in this program.
pub fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// The certificate whose names match best and whose key the client can check, so that RSA may stand beside ECDSA for one name; of
/// several alike the first. The first of all for everybody else, as browsers without SNI and health checks expect.
#[derive(Debug)]
struct BySni(Vec<Arc<Certificate>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let is_known =
            |certificate: &Arc<Certificate>| certificate.key.key.choose_scheme(schemes).is_some();
        let by_name = hello.server_name().and_then(|name| {
            let fits = self.0.iter().filter_map(|certificate| {
                let fit = certificate.fit(name)?;
                Some(((!is_known(certificate), fit), certificate))
            });
            // The first of those that are equally good.
            fits.min_by_key(|(rank, _)| *rank)
        });
        let certificate = by_name
            .map(|(_, certificate)| certificate)
            .or_else(|| self.0.iter().find(|certificate| is_known(certificate)))
            .or(self.0.first())?;
        Some(Arc::clone(&certificate.key))
    }
}

/// The end of a certificate's validity in unix seconds, from its DER form (RFC 5280 4.1): the second time of the fifth
/// field (fourth without a version) of the signed part.
fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // version [0], present in every certificate of version 3
    if fields.first() == Some(&0xa0) {
        fields = element(fields)?.2;
    }
    // serial number, signature algorithm, issuer
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    unix_seconds(tag, std::str::from_utf8(time).ok()?)
}

/// Splits off one DER element: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = der.split_first_chunk::<2>()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let bytes = usize::from(first & 0x7f);
        let (digits, after) = rest.split_at_checked(bytes)?;
        if bytes > 4 {
            return None;
        }
        length = digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// UTCTime (`YYMMDDhhmmssZ`, tag 0x17, years 1950..2049) or GeneralizedTime (`YYYYMMDDhhmmssZ`, tag 0x18).
fn unix_seconds(tag: u8, text: &str) -> Option<u64> {
    let number = |at: usize, digits: usize| text.get(at..at + digits)?.parse::<i64>().ok();
    let (year, at) = match tag {
        0x17 => {
            let short = number(0, 2)?;
            (short + if short < 50 { 2000 } else { 1900 }, 2)
        }
        0x18 => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    // Days since 1970 of the proleptic Gregorian calendar, with years that begin in March so that leap days come last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use rustls::{
        DigitallySignedStruct, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::UnixTime,
    };

    use super::*;

    #[test]
    fn times_of_both_forms_are_unix_seconds() {
        assert_eq!(unix_seconds(0x17, "700101000000Z"), Some(0));
        assert_eq!(unix_seconds(0x17, "000229120000Z"), Some(951_825_600));
        assert_eq!(unix_seconds(0x18, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(unix_seconds(0x18, "2050"), None);
    }

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
            let _ = not_after(&leaf[..cut]);
        }
        assert_eq!(not_after(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
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

    /// The leaf that a client gets which can check signatures of these schemes only.
    fn leaf_for(server: &Arc<ServerConfig>, schemes: &[SignatureScheme]) -> Option<Vec<u8>> {
        let verifier = Arc::new(Accepting(schemes.to_vec()));
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let name = ServerName::try_from("shop.example").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(server)).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().ok()?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().ok()?;
        }
        Some(client.peer_certificates()?[0].to_vec())
    }

    /// A client that believes everybody, and can check signatures of these schemes.
    #[derive(Debug)]
    struct Accepting(Vec<SignatureScheme>);

    impl ServerCertVerifier for Accepting {
        fn verify_server_cert(
            &self,
            _leaf: &CertificateDer<'_>,
            _chain: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _leaf: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _message: &[u8],
            _leaf: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.clone()
        }
    }

    #[test]
    fn rsa_stands_beside_ecdsa_for_one_name() {
        let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let ecdsa = Certificate::try_from_pem(cert.as_bytes(), key.as_bytes(), Vec::new());
        // Made by OpenSSL for a hundred years; nobody trusts it.
        let rsa = Certificate::try_from_pem(
            include_bytes!("../tests/certs/rsa.crt"),
            include_bytes!("../tests/certs/rsa.key"),
            Vec::new(),
        );
        let (ecdsa, rsa) = (Arc::new(ecdsa.unwrap()), Arc::new(rsa.unwrap()));
        let listener = config::Listener {
            address: ([127, 0, 0, 1], 0).into(),
            tls: None,
            h2: false,
            h1: true,
        };
        let both = [
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ];
        for order in [[&ecdsa, &rsa], [&rsa, &ecdsa]] {
            let certificates: Vec<_> = order.into_iter().cloned().collect();
            let first = certificates[0].leaf().to_vec();
            let server = server_config(&listener, certificates).unwrap();
            assert_eq!(leaf_for(&server, &both[..1]), Some(ecdsa.leaf().to_vec()));
            assert_eq!(leaf_for(&server, &both[1..]), Some(rsa.leaf().to_vec()));
            assert_eq!(leaf_for(&server, &both), Some(first));
            assert_eq!(leaf_for(&server, &[SignatureScheme::ED25519]), None);
        }
    }
}
