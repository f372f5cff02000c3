//! The connection below AMQP: TCP, or TLS with this program's own rustls. The client library would bring a second TLS stack
//! around it, with key stores that nobody here uses; so it is given a reactor whose sockets are ours.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_util::Stream;
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    uri::{AMQPAuthority, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::downstream::{AmqpOptions, Credentials, SinkError};

/// Opens an AMQP connection.
pub(super) async fn connect(
    options: &AmqpOptions,
    tls: Option<Arc<ClientConfig>>,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let userinfo = match &options.credentials {
        Some(Credentials { username, password }) => AMQPUserInfo {
            username: username.clone(),
            password: password.clone(),
        },
        // RabbitMQ's own default; it takes it from its own machine only.
        None => AMQPUserInfo::default(),
    };
    let uri = AMQPUri {
        scheme: if options.tls {
            AMQPScheme::AMQPS
        } else {
            AMQPScheme::AMQP
        },
        authority: AMQPAuthority {
            userinfo,
            host: options.host.clone(),
            port: options.port,
        },
        vhost: options.vhost.clone(),
        query: lapin::uri::AMQPQueryString::default(),
    };
    let runtime = Runtime::new(RuntimeParts::new(
        Tokio::current(),
        Sockets(Tokio::current()),
    ));
    let dial = async move |uri: AMQPUri, _| {
        let wire = dial(&uri.authority.host, uri.authority.port, tls.clone()).await?;
        Ok(AsyncTcpStream::Plain(wire.compat()))
    };
    Connection::connector(uri, runtime, dial, properties).await
}

async fn dial(host: &str, port: u16, tls: Option<Arc<ClientConfig>>) -> io::Result<Wire> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let Some(config) = tls else {
        return Ok(Wire::Plain(stream));
    };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Wire::Tls(Box::new(stream)))
}

/// A client of whoever the certificates of a file, or else those of the system, vouch for.
pub(super) fn trust(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, SinkError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let failed = |error: &dyn std::fmt::Display| {
                SinkError::Certificates(format!("{}: {error}", path.display()))
            };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            if roots.is_empty() {
                return Err(failed(&"no certificate in PEM"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let allowed =
                    "the system has none to trust; install ca-certificates or set ca_file";
                return Err(SinkError::Certificates(allowed.to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SinkError::Certificates(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A socket, with or without TLS.
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Forwards a poll to whichever socket it is.
macro_rules! forward {
    ($wire:expr, $method:ident $(, $argument:expr)*) => {
        match $wire.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Wire::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Wire {
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

/// tokio's reactor with our sockets.
#[derive(Clone, Debug)]
struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Compat<Wire>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl futures_util::AsyncRead + futures_util::AsyncWrite + Send + Unpin + 'static>
    {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    #[allow(clippy::disallowed_types, reason = "the trait is written so")]
    fn interval(
        &self,
        duration: Duration,
    ) -> impl Stream<Item = std::time::Instant> + Send + 'static {
        self.0.interval(duration)
    }

    #[allow(
        clippy::manual_async_fn,
        reason = "an async fn would borrow the reactor"
    )]
    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Wire::Plain(stream).compat())
        }
    }
}
