//! Accepts connections and speaks TLS and HTTP on them, with limits on everything a client can stretch.
//!
//! The beginning of every request's path. One accept loop per socket and core, one local task per connection (and one per
//! stream of HTTP/2). Times are kept by the core's sweep, not by timers of each connection: see [`Core`].

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderValue, Request, StatusCode};
use hyper::{
    body::Incoming,
    rt::{Executor, Read, Write},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::{
    config::{self, values::Cidr},
    core::{Core, Socket},
    exchange::{Client, Wish},
    linger::Lingering,
    metrics::Protocol,
    preface,
    stack::{Handle, observe::Observe},
};

/// hyper's own default of header lines is free of allocation; only other numbers are set.
const HYPER_MAX_HEADERS: usize = 100;

/// Read and write buffers of HTTP/1.1 grow up to this while a body streams. hyper's default of 400 KiB times thousands
/// of slow readers is gigabytes.
const BUFFER_MAX: usize = 64 << 10;

/// What an HTTP/2 stream may have unsent.
const H2_SEND_BUFFER: usize = 64 << 10;

/// An HTTP/2 client that is gone without a word is found by a ping.
const H2_PING_EVERY: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait when the process has no file descriptor left: some connection will end.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// What the connections of a socket need.
struct Listening<S> {
    core: Rc<Core>,
    stack: Rc<Observe<S>>,
    config: config::Listener,
    tls: Option<TlsAcceptor>,
    h1: http1::Builder,
    h2: http2::Builder<LocalTasks>,
}

/// Runs HTTP/2 streams as tasks of this core.
#[derive(Clone, Copy, Debug)]
struct LocalTasks;

impl<F: Future + 'static> Executor<F> for LocalTasks {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// Accepts until the core drains, then takes what is already waiting: those clients have been told that they are connected.
pub async fn accept<S: Handle + 'static>(core: Rc<Core>, stack: Rc<Observe<S>>, socket: Socket) {
    let listener = match TcpListener::from_std(socket.listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, address = %socket.config.address, "socket cannot be used");
            return;
        }
    };
    let listening = Rc::new(Listening {
        h1: h1_builder(&core),
        h2: h2_builder(&core),
        tls: socket.tls.map(TlsAcceptor::from),
        config: socket.config,
        stack,
        core: Rc::clone(&core),
    });
    let mut stopped = pin!(core.stop.notified());
    // A core that drains before this task first runs has called already.
    while !core.is_draining() {
        // At the bound idle connections are given up; if there is none, the kernel's queue waits: nobody is refused who could be
        // served a moment later.
        let room = tokio::select! {
            room = core.find_room() => room,
            () = &mut stopped => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((_, peer)) if !core.may_connect(peer.ip()) => core.meters.connections_refused.add(),
            Ok((stream, peer)) => start(&listening, stream, peer, room),
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

fn start<S: Handle + 'static>(
    listening: &Rc<Listening<S>>,
    stream: TcpStream,
    peer: SocketAddr,
    room: Option<OwnedSemaphorePermit>,
) {
    let listening = Rc::clone(listening);
    let place = listening.core.take_place();
    let share = listening.core.count_connection(peer.ip());
    tokio::task::spawn_local(async move {
        let _held = (place, share);
        // Responses are written whole.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "client left at once");
            return;
        }
        match &listening.tls {
            Some(acceptor) => over_tls(&listening, acceptor, stream, peer, room).await,
            None => plain(&listening, stream, peer, room).await,
        }
    });
}

async fn over_tls<S: Handle + 'static>(
    listening: &Listening<S>,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    room: Option<OwnedSemaphorePermit>,
) {
    let core = &listening.core;
    let limit = core.shared.config.server.header_timeout;
    let shaken = tokio::select! {
        biased;
        shaken = timeout(limit, acceptor.accept(stream)) => shaken,
        () = core.crowded() => return core.meters.handshakes_failed.add(),
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        failed => {
            debug!(%peer, failed = ?failed.map(|result| result.err()), "tls handshake failed");
            core.meters.handshakes_failed.add();
            return;
        }
    };
    core.meters.handshakes_ok.add();
    let alpn = stream.get_ref().1.alpn_protocol();
    let protocol = match alpn {
        Some(b"h2") => Protocol::H2,
        // A client without ALPN speaks HTTP/1.1 or nothing we have.
        _ if listening.config.h1 => Protocol::H1,
        _ => Protocol::H2,
    };
    serve(listening, TokioIo::new(stream), peer, protocol, room).await;
}

async fn plain<S: Handle + 'static>(
    listening: &Listening<S>,
    stream: TcpStream,
    peer: SocketAddr,
    room: Option<OwnedSemaphorePermit>,
) {
    let config = &listening.config;
    let protocol = match (config.h1, config.h2) {
        (_, false) => Protocol::H1,
        (false, true) => Protocol::H2,
        (true, true) => {
            let limit = listening.core.shared.config.server.header_timeout;
            let looked = tokio::select! {
                biased;
                looked = timeout(limit, preface::look(stream)) => looked,
                () = listening.core.crowded() => return,
            };
            let Ok(Ok((is_h2, io))) = looked else {
                return;
            };
            let protocol = if is_h2 { Protocol::H2 } else { Protocol::H1 };
            return serve(listening, io, peer, protocol, room).await;
        }
    };
    serve(listening, TokioIo::new(stream), peer, protocol, room).await;
}

/// Speaks HTTP until the connection ends.
async fn serve<S, I>(
    listening: &Listening<S>,
    io: I,
    peer: SocketAddr,
    protocol: Protocol,
    room: Option<OwnedSemaphorePermit>,
) where
    S: Handle + 'static,
    I: Read + Write + Unpin + Send + 'static,
{
    let core = &listening.core;
    let client = Rc::new(client(listening, peer, protocol, room));
    let id = core.enlist(&client);
    let stack = Rc::clone(&listening.stack);
    let for_service = Rc::clone(&client);
    let service = service_fn(move |request: Request<Incoming>| {
        let (stack, client) = (Rc::clone(&stack), Rc::clone(&for_service));
        async move { Ok::<_, std::convert::Infallible>(stack.serve(request, &client).await) }
    });
    let ended = match protocol {
        Protocol::H1 => {
            let io = Lingering::new(io, Arc::clone(&client.uploads));
            let connection = listening.h1.serve_connection(io, service).with_upgrades();
            drive(core, &client, connection, |connection| {
                connection.graceful_shutdown()
            })
            .await
        }
        Protocol::H2 => {
            let connection = listening.h2.serve_connection(io, service);
            drive(core, &client, connection, |connection| {
                connection.graceful_shutdown()
            })
            .await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "connection ended");
        if let Some(status) = refused_by_hyper(&error, protocol) {
            core.unreadable(&client, status);
        }
    }
    core.delist(id);
}

/// What hyper answered by itself, because it could not read the request: nothing else has seen it.
fn refused_by_hyper(error: &hyper::Error, protocol: Protocol) -> Option<StatusCode> {
    let is_io = || {
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if error.is::<io::Error>() {
                return true;
            }
            cause = error.source();
        }
        false
    };
    match protocol {
        Protocol::H1 if error.is_parse_too_large() => {
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        }
        Protocol::H1 if error.is_parse() => Some(StatusCode::BAD_REQUEST),
        // A connection error of HTTP/2: GOAWAY was sent.
        Protocol::H2 if !error.is_timeout() && !error.is_closed() && !is_io() => {
            Some(StatusCode::BAD_REQUEST)
        }
        Protocol::H1 | Protocol::H2 => None,
    }
}

fn client<S>(
    listening: &Listening<S>,
    peer: SocketAddr,
    protocol: Protocol,
    room: Option<OwnedSemaphorePermit>,
) -> Client {
    let ip = peer.ip().to_canonical();
    let peer = SocketAddr::new(ip, peer.port());
    let server = &listening.core.shared.config.server;
    let is_in = |networks: &[Cidr]| networks.iter().any(|network| network.contains(ip));
    Client {
        peer,
        peer_value: HeaderValue::try_from(ip.to_string()).expect("an address is visible ASCII"),
        is_trusted: is_in(&server.trusted_proxies),
        may_identify: is_in(&server.trusted_headers_from),
        is_tls: listening.tls.is_some(),
        protocol,
        in_flight: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        has_served: Cell::new(false),
        sending: RefCell::default(),
        room: RefCell::new(room),
        uploads: Arc::default(),
        wish: Cell::new(Wish::Serve),
        waker: RefCell::default(),
    }
}

/// Polls a connection and does what the core wishes meanwhile.
async fn drive<C>(
    core: &Core,
    client: &Client,
    connection: C,
    shut_down: impl Fn(std::pin::Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut is_shutting_down = false;
    poll_fn(|cx| {
        if client.waker.borrow().is_none() {
            // A task's waker stays the same for its life.
            *client.waker.borrow_mut() = Some(cx.waker().clone());
        }
        // First, so that a request that has arrived counts as in flight before anything is closed.
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        match client.wish.get() {
            Wish::Serve => Poll::Pending,
            Wish::Abort => Poll::Ready(Ok(())),
            Wish::CloseIdle if client.in_flight.get() == 0 => Poll::Ready(Ok(())),
            Wish::CloseIdle => {
                // A request came after all. While draining it is the connection's last one.
                client.wish.set(match core.is_draining() {
                    true => Wish::Drain,
                    false => Wish::Serve,
                });
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            // A connection that was just accepted gets to send its first request; the sweep bounds its time.
            Wish::Drain if client.protocol == Protocol::H1 && !client.has_served.get() => {
                Poll::Pending
            }
            Wish::Drain if is_shutting_down => Poll::Pending,
            Wish::Drain => {
                is_shutting_down = true;
                shut_down(connection.as_mut());
                connection.as_mut().poll(cx)
            }
        }
    })
    .await
}

fn h1_builder(core: &Core) -> http1::Builder {
    let server = &core.shared.config.server;
    let mut builder = http1::Builder::new();
    builder
        // The sweep keeps this time, for the price of one look a second instead of a timer per request.
        .header_read_timeout(None)
        .max_header_size(server.max_header_bytes)
        .max_buf_size(server.max_header_bytes.max(BUFFER_MAX));
    if server.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(server.max_headers);
    }
    builder
}

fn h2_builder(core: &Core) -> http2::Builder<LocalTasks> {
    let server = &core.shared.config.server;
    let mut builder = http2::Builder::new(LocalTasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(server.h2_streams)
        .max_header_list_size(server.max_header_bytes as u32)
        .max_send_buf_size(H2_SEND_BUFFER)
        .keep_alive_interval(H2_PING_EVERY)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}
