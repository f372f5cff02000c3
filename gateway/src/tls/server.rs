//! What the handshakes of a listener need.

use std::sync::Arc;

use rustls::{ServerConfig, crypto::ring, server::ServerSessionMemoryCache};

use super::{Store, provider};

/// Sessions of TLS 1.2 clients that take no tickets. rustls's own default is 256, too few for a crowd that comes back.
const SESSIONS: usize = 16_384;

/// For certificates of this store and these protocols of ALPN. Shared by all cores, so that a session resumes on any of them; it stays when
/// the certificates change.
pub fn server_config(
    certificates: Arc<Store>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // Stateless tickets with keys that rotate: resumption costs no memory per client.
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use rustls::{
        DigitallySignedStruct, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    use super::*;
    use crate::tls::Certificate;

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
            include_bytes!("../../tests/certs/rsa.crt"),
            include_bytes!("../../tests/certs/rsa.key"),
            Vec::new(),
        );
        let (ecdsa, rsa) = (Arc::new(ecdsa.unwrap()), Arc::new(rsa.unwrap()));
        let both = [
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ];
        for order in [[&ecdsa, &rsa], [&rsa, &ecdsa]] {
            let certificates: Vec<_> = order.into_iter().cloned().collect();
            let first = certificates[0].leaf().to_vec();
            let store = Arc::new(Store::new(certificates));
            let server = server_config(store, &[]).unwrap();
            assert_eq!(leaf_for(&server, &both[..1]), Some(ecdsa.leaf().to_vec()));
            assert_eq!(leaf_for(&server, &both[1..]), Some(rsa.leaf().to_vec()));
            assert_eq!(leaf_for(&server, &both), Some(first));
            assert_eq!(leaf_for(&server, &[SignatureScheme::ED25519]), None);
        }
    }

    #[test]
    fn a_replaced_certificate_is_shown_from_the_next_handshake_on() {
        let made =
            |name: &str| Arc::new(Certificate::try_self_signed(&[name, "shop.example"]).unwrap());
        let (old, new) = (made("old.example"), made("new.example"));
        let store = Arc::new(Store::new(vec![Arc::clone(&old)]));
        let server = server_config(Arc::clone(&store), &[]).unwrap();
        let scheme = [SignatureScheme::ECDSA_NISTP256_SHA256];
        assert_eq!(leaf_for(&server, &scheme), Some(old.leaf().to_vec()));
        store.replace(vec![Arc::clone(&new)]);
        assert_eq!(leaf_for(&server, &scheme), Some(new.leaf().to_vec()));
    }
}
