//! Accepts connections: one loop per socket and core, one local task per connection.
//!
//! The beginning of every request's path. Times are kept by the sweep of the [registry](super::registry), not by timers of each
//! connection.

use std::{io, net::SocketAddr, pin::pin, rc::Rc, sync::Arc, time::Duration};

use futures_util::FutureExt;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{Answer, Connections, handshake};
use crate::config;

/// How long to wait when the process has no file descriptor left: some connection will end.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// What the connections of a socket need.
pub(crate) struct Listening<A> {
    /// All connections of this core.
    pub connections: Rc<Connections>,
    /// Who answers their requests.
    pub answer: Rc<A>,
    /// Of this socket.
    pub config: config::Listener,
    /// Without it the socket speaks plain HTTP.
    pub tls: Option<TlsAcceptor>,
}

impl<A> Listening<A> {
    /// For the connections of a socket with this configuration.
    pub(crate) fn new(
        connections: &Rc<Connections>,
        answer: &Rc<A>,
        config: config::Listener,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        Self {
            connections: Rc::clone(connections),
            answer: Rc::clone(answer),
            config,
            tls: tls.map(TlsAcceptor::from),
        }
    }
}

/// Accepts until the core drains, then takes what is already waiting: those clients have been told that they are connected.
pub(crate) async fn accept<A: Answer + 'static>(
    listening: Listening<A>,
    listener: std::net::TcpListener,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, address = %listening.config.address, "socket cannot be used");
            return;
        }
    };
    let listening = Rc::new(listening);
    let connections = Rc::clone(&listening.connections);
    let mut draining = pin!(connections.drain.begun());
    // A core that drains before this task first runs has called already.
    while !connections.drain.has_begun() {
        // At the bound idle connections are given up; if there is none, the kernel's queue waits: nobody is refused who could be
        // served a moment later.
        let permit = tokio::select! {
            permit = connections.permit() => permit,
            () = &mut draining => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut draining => break,
        };
        match accepted {
            Ok((_, peer)) if !connections.may_connect(peer.ip()) => {
                connections.meters.refused.add();
            }
            Ok((stream, peer)) => start(&listening, stream, peer, permit),
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(OUT_OF_FILES).await;
            }
        }
    }
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        start(&listening, stream, peer, None);
    }
}

/// A client that left before it was accepted.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn start<A: Answer + 'static>(
    listening: &Rc<Listening<A>>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Option<OwnedSemaphorePermit>,
) {
    let listening = Rc::clone(listening);
    let guards = (
        listening.connections.drain.hold(),
        listening.connections.count(peer.ip()),
    );
    tokio::task::spawn_local(async move {
        let _guards = guards;
        // Responses are written whole.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "client left at once");
            return;
        }
        match &listening.tls {
            Some(acceptor) => handshake::tls(&listening, acceptor, stream, peer, permit).await,
            None => handshake::plain(&listening, stream, peer, permit).await,
        }
    });
}
