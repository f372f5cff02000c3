//! WebSockets: requests that leave HTTP. The handshake goes through like any request; after a 101 the two connections become one
//! tunnel of bytes until either side closes, or nothing passes for `server.tunnel_timeout`.
//!
//! Every tunnel has a connection of its own, which never sees the pool, but takes one of its `max_active` places; on the client's side it
//! keeps the place among `max_connections` that its connection had. A tunnel counts as in flight while draining.

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
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tracing::debug;

use crate::{
    body::{Body, BodyError},
    core::Core,
    exchange::{Client, Exchange},
    forward::{Walked, attempt_of, connect_problem, is_sick, record, rewrite_request},
    headers::{drop_overruled_length, has_unknown_coding, join_lengths, remove_hop_by_hop},
    metrics::Attempt,
    problem::Problem,
    upstream::{Place, PoolError, Upstream, client_bits, client_share, dial, endpoint::Admission},
};

/// What a tunnel reads at a time, in each direction: messages are small, and there are many tunnels.
const BUFFER: usize = 8 << 10;

/// The most that closing both sides may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Sends the handshake to an endpoint and, if it agrees, tunnels.
pub async fn upgrade(
    core: &Rc<Core>,
    upstream: &Upstream,
    exchange: Exchange<'_>,
) -> Response<Body> {
    let mut head = exchange.head;
    let Some(from_client) = head.extensions.remove::<OnUpgrade>() else {
        return Problem::BadRequest.response();
    };
    let bits = client_bits(exchange.client_ip);
    let share = client_share(exchange.client_ip);
    let candidates = upstream.candidates(&bits, &head.headers, &head.uri);
    rewrite_request(&mut head, exchange.client, &core.shared);
    // A handshake has no body, and what follows it is not one.
    head.headers.remove(CONTENT_LENGTH);
    head.headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    let request = Request::from_parts(head, Empty::<Bytes>::new());

    let config = &upstream.shared.config;
    let meters = core.meters.upstream(upstream.index);
    let mut walked = Walked::default();
    let mut retries_left = config.retries;
    for candidate in candidates {
        let endpoint = &upstream.shared.endpoints[candidate];
        let permit = match endpoint.admit(Instant::now()) {
            Admission::Granted(permit) => permit,
            Admission::Unhealthy => continue,
            Admission::Rejected(retry_after) => {
                meters.rejected.add();
                walked.note(Problem::BreakerOpen(retry_after));
                continue;
            }
        };
        let place = match upstream.pools[candidate].place(&share, Instant::now()) {
            Ok(place) => place,
            Err(refused) => {
                walked.note(connect_problem(&refused));
                continue;
            }
        };
        let stream = match connect(endpoint.address(), config.connect_timeout).await {
            Ok(stream) => stream,
            Err(error) => {
                debug!(endpoint = endpoint.address(), ?error, "connect failed");
                let problem = connect_problem(&error);
                meters.connects_failed.add();
                meters.attempt(attempt_of(problem));
                record(permit, false, Instant::now());
                walked.note(problem);
                if retries_left == 0 {
                    break;
                }
                retries_left -= 1;
                meters.retries.add();
                continue;
            }
        };
        meters.connects_ok.add();
        let place = Rc::new(place);
        let shaken = handshake(stream, request, Rc::clone(&place));
        let sent = Instant::now();
        let answer = timeout(config.response_timeout, shaken).await;
        let now = Instant::now();
        let problem = match answer {
            Ok(Ok(response)) => {
                meters.attempt(Attempt::Ok);
                meters.responded(now.saturating_duration_since(sent));
                record(permit, !is_sick(response.status()), now);
                return finish(
                    core,
                    exchange.client,
                    response,
                    from_client,
                    place,
                    config.body_timeout,
                );
            }
            Ok(Err(error)) => {
                debug!(%error, "upgrade failed");
                Problem::BadGateway
            }
            Err(_elapsed) => Problem::UpstreamTimeout,
        };
        // It was written, and a handshake is not sent twice: the endpoint may have begun something.
        meters.attempt(attempt_of(problem));
        record(permit, false, now);
        return problem.response();
    }
    walked.problem().response()
}

async fn connect(address: &str, limit: Duration) -> Result<TcpStream, PoolError> {
    let stream = timeout(limit, dial::connect(address))
        .await
        .map_err(|_elapsed| PoolError::TimedOut)?
        .map_err(PoolError::Connect)?;
    // Messages are written whole.
    stream.set_nodelay(true).map_err(PoolError::Connect)?;
    Ok(stream)
}

/// The connection holds its place as long as it speaks HTTP: until the tunnel begins, or the answer that is none has been read.
async fn handshake(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    place: Rc<Place>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move {
        let _place = place;
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "upgraded connection ended");
        }
    });
    sender.send_request(request).await
}

/// Answers the client. On 101 the tunnel starts when both connections have let go of HTTP.
fn finish(
    core: &Rc<Core>,
    client: &Client,
    mut response: Response<Incoming>,
    from_client: OnUpgrade,
    place: Rc<Place>,
    pause: Duration,
) -> Response<Body> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refused(response, pause);
    }
    let to_endpoint = hyper::upgrade::on(&mut response);
    let held = Held {
        _drain: core.take_place(),
        _upstream: place,
        _client: client.room.take(),
    };
    let cut = core.cut.clone();
    let idle = core.shared.config.server.tunnel_timeout;
    tokio::task::spawn_local(async move {
        let _held = held;
        let (Ok(client), Ok(endpoint)) = (from_client.await, to_endpoint.await) else {
            return;
        };
        let (mut from_client, mut to_client) = split(TokioIo::new(client));
        let (mut from_endpoint, mut to_endpoint) = split(TokioIo::new(endpoint));
        let moved = Cell::new(Instant::now());
        // Either side's end is the end of both: a peer that has only half closed keeps no tunnel open for ever.
        tokio::select! {
            ended = pump(&mut from_client, &mut to_endpoint, &moved) => debug!(?ended, "client closed the tunnel"),
            ended = pump(&mut from_endpoint, &mut to_client, &moved) => debug!(?ended, "endpoint closed the tunnel"),
            () = stalled(&moved, idle) => debug!("tunnel was idle"),
            () = cut.notified() => {}
        }
        // A side that does not read cannot be told, and is not waited for.
        let told = async { tokio::join!(to_client.shutdown(), to_endpoint.shutdown()) };
        let _ = timeout(GOODBYE, told).await;
    });
    response.map(|_| Body::EMPTY)
}

/// The answer to a handshake that became no tunnel: an answer like any other, with the same rules of length and time.
fn refused(response: Response<Incoming>, pause: Duration) -> Response<Body> {
    let (mut head, incoming) = response.into_parts();
    if has_unknown_coding(&head.headers) {
        return Problem::BadGateway.response();
    }
    drop_overruled_length(&mut head.headers);
    join_lengths(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(&mut head.headers);
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

/// What a tunnel holds while it lives.
struct Held {
    _drain: crate::core::PlaceGuard,
    _upstream: Rc<Place>,
    _client: Option<OwnedSemaphorePermit>,
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
