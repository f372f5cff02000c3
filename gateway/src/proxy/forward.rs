//! Sends a request to an upstream: streams both bodies, and tries again where it may (see [`walk`](super::walk)).

use std::{pin::pin, rc::Rc, time::Duration};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::debug;

use super::{
    Proxy,
    rewrite::{rewrite_request, rewrite_response},
    walk::{Attempt, Walk, connect_problem},
};
use crate::{
    exchange::{Body, Exchange},
    http::{
        Problem, RequestBody, Unread,
        client_ip::{ClientBits, client_bits, client_share},
        upload::{Progress, Stage},
    },
    upstream::{Lease, PoolError, Received, SendError, Upstream, receive},
};

/// A connection that was used this recently is trusted to live: see [`send`].
const FRESH: Duration = Duration::from_millis(100);

/// What became of sending a request once.
enum Sent {
    /// A response's header is here.
    Answered(Response<Incoming>, Lease),
    /// No answer, and the request is back, intact.
    Intact(Problem),
    /// No answer, and the request is gone.
    Gone(Problem),
    /// Its client uploaded so slowly that the slot went to somebody else.
    Evicted,
}

/// Sends the request to an endpoint of the upstream and returns its answer, or a problem.
pub(crate) async fn forward(
    proxy: &Proxy,
    upstream: &Upstream,
    exchange: Exchange,
) -> Response<Body> {
    let Exchange {
        mut head,
        body,
        client,
        client_ip,
        route,
        started,
        ..
    } = exchange;
    let bounds = route.map_or((0, 0), |route| (route.max_body, route.request_buffer));
    let (max_body, read_ahead) = bounds;
    let share = client_share(client_ip);
    let mut now = started;
    // By what the client sent, before it is rewritten.
    let mut walk = Walk::new(upstream, &client_bits(client_ip), &head.headers, &head.uri);
    let body = {
        let server = proxy.server.read();
        let via = server.via.then_some(&*proxy.via);
        rewrite_request(&mut head, &client, via);
        body.bounded(max_body, server.body_timeout, server.min_rate)
    };
    drop(client);
    let progress = body.progress();
    let mut request = Some(Request::from_parts(head, body));
    if let (Some(progress), Some(request)) = (&progress, &mut request) {
        // A client that uploads slowly holds nothing of the upstream meanwhile.
        if request.body_mut().read_ahead(read_ahead).await.is_err() {
            return client_fault(Some(progress))
                .unwrap_or(Problem::BadRequest)
                .response();
        }
        now = Instant::now();
        frame_body(request);
    }
    loop {
        let Some(attempt) = walk.next(now) else {
            if !walk.probe_ended().await {
                return walk.refusal().response();
            }
            now = Instant::now();
            continue;
        };
        let lease = match attempt.pool.lease(&share, now).await {
            Ok(lease) => lease,
            Err(refused @ (PoolError::Busy | PoolError::Share)) => {
                walk.busy(&refused);
                continue;
            }
            Err(error) => {
                debug!(endpoint = attempt.address, ?error, "connect failed");
                now = Instant::now();
                // Nothing was sent: any request may go to the next endpoint.
                walk.failed(attempt, connect_problem(&error), now);
                continue;
            }
        };
        if !lease.is_reused() {
            // Connecting took its own time, which is not the answer's.
            now = Instant::now();
        }
        let began = now;
        let sent = send_on(&attempt, lease, &mut request, upstream, &share, now).await;
        now = Instant::now();
        match sent {
            Sent::Answered(response, lease) => {
                let status = response.status();
                let pause = upstream.shared.config.body_timeout;
                let Some(mut response) = answer(response, lease, pause, now) else {
                    walk.gone(attempt, Problem::BadGateway, now);
                    return Problem::BadGateway.response();
                };
                let took = now.saturating_duration_since(began);
                walk.answered(attempt, status, took, now);
                if progress.is_some_and(|upload| upload.stage() == Stage::Sending) {
                    response.extensions_mut().insert(Unread);
                }
                return response;
            }
            // Not held against the endpoint.
            Sent::Evicted => return Problem::BodyTimeout.response(),
            Sent::Gone(problem) => {
                if let Some(fault) = client_fault(progress.as_deref()) {
                    // Not held against the endpoint.
                    return fault.response();
                }
                walk.gone(attempt, problem, now);
                return problem.response();
            }
            Sent::Intact(problem) => walk.failed(attempt, problem, now),
        }
    }
}

/// Sends over a connection of the pool; if that had been closed by the other end while it was idle, on a fresh one. That says nothing about
/// the endpoint.
async fn send_on(
    attempt: &Attempt<'_>,
    lease: Lease,
    request: &mut Option<Request<RequestBody>>,
    upstream: &Upstream,
    share: &ClientBits,
    now: Instant,
) -> Sent {
    let timeout = upstream.shared.config.response_timeout;
    let is_reused = lease.is_reused();
    let sent = send(lease, request, timeout, now).await;
    if !is_reused || !matches!(sent, Sent::Intact(_)) {
        return sent;
    }
    upstream.meters.retries.add();
    match attempt.pool.connect(share, Instant::now()).await {
        Ok(lease) => send(lease, request, timeout, Instant::now()).await,
        Err(error) => Sent::Intact(connect_problem(&error)),
    }
}

/// Sends once over a connection; once more on it only by way of [`Sent::Intact`].
async fn send(
    mut lease: Lease,
    request: &mut Option<Request<RequestBody>>,
    timeout: Duration,
    now: Instant,
) -> Sent {
    // A copy of the header for the one case in which a request that was written may be written again: the endpoint closed the
    // idle connection while the request was on its way. An endpoint does that when its keep-alive time is up, which is seconds, so
    // a connection that was idle for less than a tenth of one is not worth copying every header for: under load nearly all
    // connections are such. What is given up is the request that meets an endpoint's exit within its round trip; that is a 502.
    let may_repeat = |request: &Request<RequestBody>| {
        lease.idled() >= FRESH && request.method().is_idempotent() && request.body().is_end_stream()
    };
    let spare = request
        .as_ref()
        .filter(|request| may_repeat(request))
        .map(|request| Box::new(copy_of(request)));
    let progress = request
        .as_ref()
        .and_then(|request| request.body().progress());
    let holder = Rc::clone(lease.holder());
    let answer = {
        let mut sending = pin!(lease.send(request, timeout, now));
        match progress {
            None => sending.as_mut().await,
            Some(progress) => {
                holder.uploads(progress);
                tokio::select! {
                    biased;
                    answer = sending => answer,
                    () = holder.cut_off() => return Sent::Evicted,
                }
            }
        }
    };
    match answer {
        // Nobody asked for another protocol, and the client must not be told that it got one.
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Sent::Gone(Problem::BadGateway)
        }
        Ok(response) => Sent::Answered(response, lease),
        Err(SendError::TimedOut) => Sent::Gone(Problem::UpstreamTimeout),
        Err(SendError::Failed { error, unsent }) => {
            debug!(%error, "request failed");
            match (unsent, spare) {
                (Some(unsent), _) => {
                    *request = Some(*unsent);
                    Sent::Intact(Problem::BadGateway)
                }
                // Closed or reset before a byte of the answer. A malformed answer is not repeated.
                (None, Some(spare)) if !error.is_parse() => {
                    *request = Some(spare.map(|()| RequestBody::empty()));
                    Sent::Intact(Problem::BadGateway)
                }
                (None, _) => Sent::Gone(Problem::BadGateway),
            }
        }
    }
}

/// Says how the body is framed, in words that hyper's client takes whatever the method: by itself it sends the body of a GET or HEAD
/// only if its length is known.
fn frame_body(request: &mut Request<RequestBody>) {
    if request.headers().contains_key(CONTENT_LENGTH) {
        return;
    }
    let whole = request.body().whole();
    let headers = request.headers_mut();
    match whole {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
}

fn copy_of(request: &Request<RequestBody>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The response as the client gets it; `None` if it is broken.
fn answer(
    response: Response<Incoming>,
    lease: Lease,
    pause: Duration,
    now: Instant,
) -> Option<Response<Body>> {
    let (mut head, incoming) = response.into_parts();
    if !rewrite_response(&mut head) {
        return None;
    }
    let body = match receive(incoming, lease, pause, now) {
        Received::Whole(bytes) => Body::full(bytes),
        Received::Streaming(body) => Body::Upstream(body),
        Received::Broken => return None,
    };
    Some(Response::from_parts(head, body))
}

/// The client's own doing, if that is why the request failed.
fn client_fault(progress: Option<&Progress>) -> Option<Problem> {
    match progress?.stage() {
        Stage::Sending | Stage::Done => None,
        Stage::TooLarge => Some(Problem::BodyTooLarge),
        Stage::TimedOut => Some(Problem::BodyTimeout),
        Stage::Broken => Some(Problem::BadRequest),
    }
}
