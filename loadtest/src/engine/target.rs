//! Opening connections: TCP, and TLS where the URL says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use http::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::stream::Stream;
use crate::scenario::{Protocol, Scenario, Trust};

/// Twice a lost SYN's first retry.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where to connect, resolved once before the run.
#[derive(Clone)]
pub(super) struct Target {
    addresses: Arc<[SocketAddr]>,
    /// Which address the next connection begins with: several servers behind a name have equal shares.
    turn: Arc<AtomicUsize>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    protocol: Protocol,
}

impl Target {
    pub(super) async fn resolve(s: &Scenario) -> anyhow::Result<Target> {
        let uri: Uri = s.target.url.parse().context("target url")?;
        let host = uri.host().context("target url has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses: Arc<[SocketAddr]> = tokio::net::lookup_host((host, port))
            .await
            .with_context(|| format!("cannot resolve {host:?}"))?
            .collect();
        if addresses.is_empty() {
            bail!("{host:?} has no address");
        }
        let tls = is_tls
            .then(|| {
                let name = s.target.server_name.as_deref().unwrap_or(host);
                let name = ServerName::try_from(name.to_owned())
                    .with_context(|| format!("server name {name:?}"))?;
                let config = client_config(&s.target.trust, s.target.protocol)?;
                anyhow::Ok((TlsConnector::from(Arc::new(config)), name))
            })
            .transpose()?;
        Ok(Target {
            addresses,
            turn: Arc::default(),
            tls,
            protocol: s.target.protocol,
        })
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Stream> {
        let mut last = None;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for at in 0..self.addresses.len() {
            let address = &self.addresses[(first + at) % self.addresses.len()];
            // An address that is silent must not hide the next.
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
            match connecting.await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return self.secure(stream).await;
                }
                Ok(Err(error)) => last = Some((address, error)),
                Err(elapsed) => last = Some((address, elapsed.into())),
            }
        }
        let (address, error) = last.context("no address to connect to")?;
        Err(error).with_context(|| format!("cannot connect to {address}"))
    }

    async fn secure(&self, stream: TcpStream) -> anyhow::Result<Stream> {
        let Some((connector, name)) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let stream = connector
            .connect(name.clone(), stream)
            .await
            .context("TLS handshake failed")?;
        let agreed = stream.get_ref().1.alpn_protocol();
        if self.protocol == Protocol::H2 && agreed != Some(b"h2") {
            bail!("the server did not agree on h2 (ALPN answered {agreed:?})");
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}

fn client_config(trust: &Trust, protocol: Protocol) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Insecure => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        Trust::CaFile(path) => {
            let pem = std::fs::read(path)
                .with_context(|| format!("cannot read ca_file {}", path.display()))?;
            builder
                .with_root_certificates(roots(&pem).with_context(|| path.display().to_string())?)
                .with_no_client_auth()
        }
        Trust::CaPem(pem) => builder
            .with_root_certificates(roots(pem.as_bytes())?)
            .with_no_client_auth(),
        Trust::System => builder
            .with_root_certificates(system_roots()?)
            .with_no_client_auth(),
    };
    config.alpn_protocols = match protocol {
        Protocol::H1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 => vec![b"h2".to_vec()],
    };
    Ok(config)
}

/// The authorities that this machine trusts.
fn system_roots() -> anyhow::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        bail!("this machine has no list of authorities: name a ca_file, or insecure = true");
    }
    Ok(store)
}

fn roots(pem: &[u8]) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        store.add(certificate.context("not a PEM certificate")?)?;
    }
    if store.is_empty() {
        bail!("no certificate in the PEM text");
    }
    Ok(store)
}

/// Accepts any certificate, for `insecure = true`; signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
