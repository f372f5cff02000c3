//! What the gateway knows of one client's connection, and what it asks of the connection's task.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    task::Waker,
};

use http::HeaderValue;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::sending::Sending;
use crate::{
    config,
    http::{Cidr, Protocol},
};

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// The other end.
    pub peer: SocketAddr,
    /// Its address as a header's value, made once.
    pub peer_value: HeaderValue,
    /// Whether its `X-Forwarded-*` are believed.
    pub is_trusted: bool,
    /// Whether it may say who somebody is (`server.trusted_headers`).
    pub may_identify: bool,
    /// Whether it came over TLS.
    pub is_tls: bool,
    /// Its HTTP version.
    pub protocol: Protocol,
    /// Requests not finished yet.
    pub in_flight: Cell<u32>,
    /// When the last request ended, or the connection began.
    pub idle_since: Cell<Instant>,
    /// Whether a request has come yet; until then the header's clock runs, not the idle one.
    pub has_served: Cell<bool>,
    /// Responses that are being sent piece by piece: at most one, or one per stream of HTTP/2.
    pub sending: RefCell<Vec<Rc<dyn Sending>>>,
    /// Its permit of `server.max_connections`; a tunnel takes it along. `None` for what was accepted while draining.
    pub permit: RefCell<Option<OwnedSemaphorePermit>>,
    /// Whether the last request has a body, which the client may still be sending when it is answered.
    pub uploads: Arc<AtomicBool>,
    /// What the connection's task should do next.
    pub command: Cell<Command>,
    /// The connection's task.
    pub waker: RefCell<Option<Waker>>,
}

/// What a connection's task is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve,
    /// End after the requests in flight: `Connection: close`, or GOAWAY.
    Drain,
    /// End if no request is in flight, else go on: it was idle for too long, but one may just have arrived.
    CloseIdle,
    Abort,
}

impl Client {
    /// A connection that has just been accepted.
    pub(crate) fn new(
        peer: SocketAddr,
        protocol: Protocol,
        is_tls: bool,
        server: &config::Server,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let ip = peer.ip().to_canonical();
        let is_in = |networks: &[Cidr]| networks.iter().any(|network| network.contains(ip));
        Self {
            peer: SocketAddr::new(ip, peer.port()),
            peer_value: HeaderValue::try_from(ip.to_string()).expect("an address is visible ASCII"),
            is_trusted: is_in(&server.trusted_proxies),
            may_identify: is_in(&server.trusted_headers_from),
            is_tls,
            protocol,
            in_flight: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            has_served: Cell::new(false),
            sending: RefCell::default(),
            permit: RefCell::new(permit),
            uploads: Arc::default(),
            command: Cell::new(Command::Serve),
            waker: RefCell::default(),
        }
    }

    /// Asks the connection's task for something, and wakes it.
    pub(crate) fn ask(&self, command: Command) {
        self.command.set(command);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// `https` or `http`.
    pub(crate) fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.is_tls { "https" } else { "http" })
    }
}
