//! Speaks HTTP on a connection until it ends, with limits on everything a client can stretch.
//!
//! One task per connection, and one per stream of HTTP/2. Who answers the requests is none of its business ([`Answer`]).

use std::{
    error::Error, fmt, future::poll_fn, io, net::SocketAddr, pin::pin, rc::Rc, sync::Arc,
    task::Poll, time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::{
    body::Incoming,
    rt::{Executor, Read, Write},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioTimer;
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use super::{Client, Command, Connections, Listening, linger::Lingering};
use crate::{config, http::Protocol};

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

/// Who answers the requests of a connection.
pub(crate) trait Answer: fmt::Debug {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + 'static;

    /// Answers one request. Failures are answers too.
    fn answer(
        &self,
        request: Request<Incoming>,
        client: &Rc<Client>,
    ) -> impl Future<Output = Response<Self::Body>>;

    /// Hears of a request that could not be read, and was answered with this status.
    fn unreadable(&self, client: &Client, status: StatusCode);
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

/// Speaks HTTP until the connection ends.
pub(super) async fn serve<A, I>(
    listening: &Listening<A>,
    io: I,
    peer: SocketAddr,
    protocol: Protocol,
    permit: Option<OwnedSemaphorePermit>,
) where
    A: Answer + 'static,
    I: Read + Write + Unpin + Send + 'static,
{
    let connections = &listening.connections;
    let server = connections.server.read();
    let is_tls = listening.tls.is_some();
    let client = Rc::new(Client::new(peer, protocol, is_tls, &server, permit));
    let id = connections.enlist(&client);
    let answer = Rc::clone(&listening.answer);
    let for_service = Rc::clone(&client);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, client) = (Rc::clone(&answer), Rc::clone(&for_service));
        async move { Ok::<_, std::convert::Infallible>(answer.answer(request, &client).await) }
    });
    let ended = match protocol {
        Protocol::H1 => {
            let io = Lingering::new(io, Arc::clone(&client.uploads));
            let connection = h1_builder(&server)
                .serve_connection(io, service)
                .with_upgrades();
            drop(server);
            drive(connections, &client, connection, |connection| {
                connection.graceful_shutdown()
            })
            .await
        }
        Protocol::H2 => {
            let connection = h2_builder(&server).serve_connection(io, service);
            drop(server);
            drive(connections, &client, connection, |connection| {
                connection.graceful_shutdown()
            })
            .await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "connection ended");
        if let Some(status) = refused_by_hyper(&error, protocol) {
            listening.answer.unreadable(&client, status);
        }
    }
    connections.delist(id);
}

/// What hyper answered by itself, because it could not read the request: nothing else has seen it.
fn refused_by_hyper(error: &hyper::Error, protocol: Protocol) -> Option<StatusCode> {
    let is_io = || {
        let mut cause = error.source();
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

/// Polls a connection and does what it is asked to meanwhile.
async fn drive<C>(
    connections: &Connections,
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
        match client.command.get() {
            Command::Serve => Poll::Pending,
            Command::Abort => Poll::Ready(Ok(())),
            Command::CloseIdle if client.in_flight.get() == 0 => Poll::Ready(Ok(())),
            Command::CloseIdle => {
                // A request came after all. While draining it is the connection's last one.
                client.command.set(match connections.drain.has_begun() {
                    true => Command::Drain,
                    false => Command::Serve,
                });
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            // A connection that was just accepted gets to send its first request; the sweep bounds its time.
            Command::Drain if client.protocol == Protocol::H1 && !client.has_served.get() => {
                Poll::Pending
            }
            Command::Drain if is_shutting_down => Poll::Pending,
            Command::Drain => {
                is_shutting_down = true;
                shut_down(connection.as_mut());
                connection.as_mut().poll(cx)
            }
        }
    })
    .await
}

fn h1_builder(server: &config::Server) -> http1::Builder {
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

fn h2_builder(server: &config::Server) -> http2::Builder<LocalTasks> {
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
