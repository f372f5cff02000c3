//! The connection below AMQP. The client library would bring a second TLS stack around it, with key stores that are not used here; so it
//! is given a reactor whose sockets are ours.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Duration,
};

use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_util::Stream as Instants;
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use rustls::ClientConfig;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::{AmqpOptions, Credentials, tls::Stream};

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
        scheme: if options.tls.is_some() {
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
        query: AMQPQueryString::default(),
    };
    let runtime = Runtime::new(RuntimeParts::new(
        Tokio::current(),
        Sockets(Tokio::current()),
    ));
    let dial = async move |uri: AMQPUri, _| {
        let AMQPAuthority { host, port, .. } = &uri.authority;
        let stream = Stream::connect(host, *port, tls.clone()).await?;
        Ok(AsyncTcpStream::Plain(stream.compat()))
    };
    Connection::connector(uri, runtime, dial, properties).await
}

/// tokio's reactor with our sockets.
#[derive(Clone, Debug)]
struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Compat<Stream>;
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
    ) -> impl Instants<Item = std::time::Instant> + Send + 'static {
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
            let (host, port) = (address.ip().to_string(), address.port());
            let stream = Stream::connect(&host, port, None).await?;
            Ok(stream.compat())
        }
    }
}
