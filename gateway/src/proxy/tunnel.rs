//! WebSockets: requests that leave HTTP. The handshake goes through like any request; after a 101 the two connections become one
//! tunnel of bytes until either side closes, or nothing passes for `server.tunnel_timeout`.
//!
//! Every tunnel has a connection of its own, which never sees the pool, but takes one of its `max_active` slots; on the client's side it
//! keeps the permit of `max_connections` that its connection had. A tunnel counts as in flight while draining.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tracing::debug;

use super::{
    Proxy,
    rewrite::{rewrite_request, rewrite_response},
    walk::{Walk, connect_problem},
};
use crate::{
    connection::{Client, Drain, drain::DrainGuard},
    exchange::{Body, Exchange},
    http::{
        BodyError, Problem,
        client_ip::{client_bits, client_share},
    },
    upstream::{PoolError, Slot, Upstream, connect},
};

/// What a tunnel reads at a time, in each direction: messages are small, and there are many tunnels.
const BUFFER: usize = 8 << 10;

/// The most that closing both sides may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Sends the handshake to an endpoint and, if it agrees, tunnels.
pub(crate) async fn tunnel(
    proxy: &Proxy,
    upstream: &Upstream,
    exchange: Exchange,
) -> Response<Body> {
    let mut head = exchange.head;
    let Some(from_client) = head.extensions.remove::<OnUpgrade>() else {
        return Problem::BadRequest.response();
    };
    let share = client_share(exchange.client_ip);
    let client = client_bits(exchange.client_ip);
    let mut walk = Walk::new(upstream, &client, &head.headers, &head.uri);
    let via = proxy.server.read().via.then_some(&*proxy.via);
    rewrite_request(&mut head, &exchange.client, via);
    // A handshake has no body, and what follows it is not one.
    head.headers.remove(CONTENT_LENGTH);
    head.headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    let request = Request::from_parts(head, Empty::<Bytes>::new());

    let (config, meters) = (&upstream.shared.config, &upstream.meters);
    while let Some(attempt) = walk.next(Instant::now()) {
        let slot = match attempt.pool.slot(&share, Instant::now()) {
            Ok(slot) => Rc::new(slot),
            Err(refused) => {
                walk.busy(&refused);
                continue;
            }
        };
        let stream = match connect_to(attempt.address, config.connect_timeout).await {
            Ok(stream) => stream,
            Err(error) => {
                debug!(endpoint = attempt.address, ?error, "connect failed");
                meters.connects_failed.add();
                walk.failed(attempt, connect_problem(&error), Instant::now());
                continue;
            }
        };
        meters.connects_ok.add();
        let shaken = handshake(stream, request, Rc::clone(&slot));
        let began = Instant::now();
        let answer = timeout(config.response_timeout, shaken).await;
        let now = Instant::now();
        let problem = match answer {
            Ok(Ok(response)) => {
                let took = now.saturating_duration_since(began);
                walk.answered(attempt, response.status(), took, now);
                let begin = Begin {
                    drain: Rc::clone(&proxy.drain),
                    idle: proxy.server.read().tunnel_timeout,
                    slot,
                };
                return begin.answer(&exchange.client, response, from_client, config.body_timeout);
            }
            Ok(Err(error)) => {
                debug!(%error, "upgrade failed");
                Problem::BadGateway
            }
            Err(_elapsed) => Problem::UpstreamTimeout,
        };
        // It was written, and a handshake is not sent twice: the endpoint may have begun something.
        walk.gone(attempt, problem, now);
        return problem.response();
    }
    walk.refusal().response()
}

async fn connect_to(address: &str, limit: Duration) -> Result<connect::Stream, PoolError> {
    let stream = timeout(limit, connect::connect(address)).await;
    stream
        .map_err(|_elapsed| PoolError::TimedOut)?
        .map_err(PoolError::Connect)
}

/// The connection holds its slot as long as it speaks HTTP: until the tunnel begins, or the answer that is none has been read.
async fn handshake(
    stream: connect::Stream,
    request: Request<Empty<Bytes>>,
    slot: Rc<Slot>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move {
        let _slot = slot;
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "upgraded connection ended");
        }
    });
    sender.send_request(request).await
}

/// What a tunnel begins with.
struct Begin {
    drain: Rc<Drain>,
    idle: Duration,
    slot: Rc<Slot>,
}

/// What a tunnel holds while it lives.
struct Held {
    _drain: DrainGuard,
    _upstream: Rc<Slot>,
    _client: Option<OwnedSemaphorePermit>,
}

impl Begin {
    /// Answers the client. On 101 the tunnel starts when both connections have let go of HTTP.
    fn answer(
        self,
        client: &Client,
        mut response: Response<Incoming>,
        from_client: OnUpgrade,
        pause: Duration,
    ) -> Response<Body> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return refused(response, pause);
        }
        let to_endpoint = hyper::upgrade::on(&mut response);
        let held = Held {
            _drain: self.drain.hold(),
            _upstream: self.slot,
            _client: client.permit.take(),
        };
        let (drain, idle) = (self.drain, self.idle);
        tokio::task::spawn_local(async move {
            let _held = held;
            let (Ok(client), Ok(endpoint)) = (from_client.await, to_endpoint.await) else {
                return;
            };
            let (mut from_client, mut to_client) = split(TokioIo::new(client));
            let (mut from_endpoint, mut to_endpoint) = split(TokioIo::new(endpoint));
            let moved = Cell::new(Instant::now());
            // When one side closes, the tunnel ends: a peer that has only half closed keeps no tunnel open for ever.
            tokio::select! {
                ended = pump(&mut from_client, &mut to_endpoint, &moved) => debug!(?ended, "client closed the tunnel"),
                ended = pump(&mut from_endpoint, &mut to_client, &moved) => debug!(?ended, "endpoint closed the tunnel"),
                () = stalled(&moved, idle) => debug!("tunnel was idle"),
                () = drain.cut() => {}
            }
            // A side that does not read cannot be told, and is not waited for.
            let told = async { tokio::join!(to_client.shutdown(), to_endpoint.shutdown()) };
            let _ = timeout(GOODBYE, told).await;
        });
        response.map(|_| Body::EMPTY)
    }
}

/// The answer to a handshake that became no tunnel: an answer like any other, with the same rules of length and time.
fn refused(response: Response<Incoming>, pause: Duration) -> Response<Body> {
    let (mut head, incoming) = response.into_parts();
    if !rewrite_response(&mut head) {
        return Problem::BadGateway.response();
    }
    let paused = Paused {
        incoming,
        pause,
        timer: None,
    };
    Response::from_parts(head, Body::Handler(axum::body::Body::new(paused)))
}

/// A body whose sender may pause for so long and no longer.
#[derive(Debug)]
struct Paused {
    incoming: Incoming,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Paused {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let pause = this.pause;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(pause)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::UpstreamTimeout.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Copies one direction until its end, noting when something moved.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Cell<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        moved.set(Instant::now());
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        moved.set(Instant::now());
    }
}

/// Ready when nothing has moved for this long.
async fn stalled(moved: &Cell<Instant>, idle: Duration) {
    loop {
        let until = moved.get() + idle;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_idle_only_when_neither_direction_moves() {
        let idle = Duration::from_secs(60);
        let start = Instant::now();
        let moved = Cell::new(start);
        let (mut client, from_client) = duplex(64);
        let (to_endpoint, mut endpoint) = duplex(64);
        let talk = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                client.write_all(b"ping").await.unwrap();
                endpoint.read_exact(&mut [0; 4]).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = pump(from_client, to_endpoint, &moved) => panic!("{ended:?}"),
            () = talk => {}
            () = stalled(&moved, idle) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 150 + 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_read_makes_a_tunnel_idle() {
        let start = Instant::now();
        let moved = Cell::new(start);
        let (mut client, from_client) = duplex(64);
        let (to_endpoint, _deaf) = duplex(8);
        client.write_all(&[0; 32]).await.unwrap();
        tokio::select! {
            ended = pump(from_client, to_endpoint, &moved) => panic!("{ended:?}"),
            () = stalled(&moved, Duration::from_secs(60)) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 60);
    }
}
