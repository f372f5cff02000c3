//! Sockets to receivers: TCP, or TLS with this program's own rustls.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use settings::{Inputs, Section};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::SinkError;

/// Whom a TLS connection trusts, and who it says that it is.
#[derive(Clone, Default)]
pub struct Tls {
    /// Authorities to trust instead of the system's.
    authorities: Option<Arc<RootCertStore>>,
    /// Our own certificate, for a receiver that asks for one.
    identity: Option<Arc<SingleCertAndKey>>,
}

impl fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the keys of TLS if there is TLS at all. What is wrong is noted and left out.
    pub(super) fn read(
        is_wanted: bool,
        section: &Section<'_>,
        inputs: &Inputs<'_>,
    ) -> Option<Self> {
        if !is_wanted {
            return None;
        }
        let authorities = section.file("ca_file", inputs).and_then(|pem| {
            let found = authorities(&pem);
            if found.is_none() {
                section.problem("ca_file", "must hold certificates of authorities in PEM");
            }
            found.map(Arc::new)
        });
        let chain = section.file("client_cert_file", inputs);
        let key = section.file("client_key_file", inputs);
        let identity = chain.zip(key).and_then(|(chain, key)| {
            let found = identity(&chain, &key);
            if found.is_none() {
                let what = "must hold a certificate in PEM, and client_key_file its key";
                section.problem("client_cert_file", what);
            }
            found.map(Arc::new)
        });
        for (one, other) in [
            ("client_cert_file", "client_key_file"),
            ("client_key_file", "client_cert_file"),
        ] {
            if section.has(one) && !section.has(other) {
                section.problem(one, format_args!("needs {other} too"));
            }
        }
        Some(Self {
            authorities,
            identity,
        })
    }

    /// Puts it together. Without authorities of its own it reads the system's.
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, SinkError> {
        let authorities = match &self.authorities {
            Some(own) => own.clone(),
            None => Arc::new(system_authorities()?),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| SinkError::Tls(error.to_string()))?
            .with_root_certificates(authorities);
        Ok(Arc::new(match &self.identity {
            Some(identity) => builder.with_client_cert_resolver(identity.clone()),
            None => builder.with_no_client_auth(),
        }))
    }
}

fn system_authorities() -> Result<RootCertStore, SinkError> {
    let mut found = RootCertStore::empty();
    found.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if found.is_empty() {
        let what = "the system has no authorities to trust: install ca-certificates or set ca_file";
        return Err(SinkError::Tls(what.to_owned()));
    }
    Ok(found)
}

fn authorities(pem: &[u8]) -> Option<RootCertStore> {
    let mut found = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.add(certificate.ok()?).ok()?;
    }
    (!found.is_empty()).then_some(found)
}

fn identity(chain: &[u8], key: &[u8]) -> Option<SingleCertAndKey> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let key = PrivateKeyDer::from_pem_slice(key).ok()?;
    let chain = chain.ok().filter(|chain| !chain.is_empty())?;
    let certified = CertifiedKey::from_der(chain, key, &default_provider()).ok()?;
    Some(certified.into())
}

/// A socket, with or without TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects; with TLS only to the server that the host's name stands in the certificate of. The error says what failed, and where.
    pub(super) async fn connect(
        host: &str,
        port: u16,
        tls: Option<Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let failed = |what: &dyn fmt::Display| io::Error::other(format!("{host}:{port}: {what}"));
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| failed(&error))?;
        // Small requests, each awaited: nothing is gained by waiting for more bytes.
        stream.set_nodelay(true)?;
        let Some(tls) = tls else {
            return Ok(Self::Plain(stream));
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        match TlsConnector::from(tls).connect(name, stream).await {
            Ok(stream) => Ok(Self::Tls(Box::new(stream))),
            Err(error) => Err(failed(&explained(&error))),
        }
    }
}

/// What a failed handshake means, where the library's words do not say it.
fn explained(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate comes from an authority that is not trusted; ca_file can name it"
                .to_owned()
        }
        Some(Error::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
        _ => format!("no TLS connection: {error}"),
    }
}

/// Forwards a poll to whichever socket it is.
macro_rules! forward {
    ($stream:expr, $method:ident $(, $argument:expr)*) => {
        match $stream.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown, cx)
    }
}
