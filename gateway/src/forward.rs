//! Sends a request to an upstream: chooses an endpoint, rewrites the header, streams both bodies, tries again where it may.
//!
//! **INV-EDGE-1**: a request is sent a second time only if it may be. That is: no connection was made; or not a byte of it was
//! written; or it is idempotent, has no body, and a kept-alive connection died before an answer's header (its other end had
//! closed it at the same moment). Everything else is answered with 502 or 504.

use std::{pin::pin, rc::Rc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING},
    request::Parts,
    uri::PathAndQuery,
};
use http_body::Body as _;
use hyper::body::Incoming;
use limiter::breaker::Permit;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::{
    body::{Body, Progress, RequestBody, Stage, Unread},
    core::{Core, Shared},
    exchange::{Client, Exchange},
    headers::{
        X_FORWARDED_HOST, X_FORWARDED_PROTO, append_forwarded_for, drop_overruled_length,
        has_unknown_coding, join_cookies, join_lengths, remove_hop_by_hop,
    },
    metrics::Attempt,
    problem::Problem,
    upstream::{
        Endpoint, Lease, PoolError, Received, SendError, Upstream, client_bits, client_share,
        endpoint::Admission, receive,
    },
};

/// A connection that was used this recently is trusted to live: see [`send`].
const FRESH: Duration = Duration::from_millis(100);

/// Why no endpoint took the request; the most telling reason met on the walk wins.
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    problem: Problem,
}

/// What became of one attempt.
enum Tried {
    /// A response's header is here.
    Answered(Response<Incoming>, Lease),
    /// No answer, and the request is intact.
    Intact(Request<RequestBody>, Problem),
    /// No answer, and the request is gone.
    Gone(Problem),
    /// Its client uploaded so slowly that the place went to somebody else.
    Evicted,
}

/// Sends the request to an endpoint of the upstream and returns its answer, or a problem.
pub async fn forward(core: &Core, upstream: &Upstream, exchange: Exchange<'_>) -> Response<Body> {
    let config = &upstream.shared.config;
    let server = &core.shared.config.server;
    let meters = core.meters.upstream(upstream.index);
    let limit = exchange.route.map_or(0, |route| route.max_body);
    let ahead = exchange.route.map_or(0, |route| route.request_buffer);
    let bits = client_bits(exchange.client_ip);
    let share = client_share(exchange.client_ip);
    let mut candidates = upstream.candidates(&bits, &exchange.head.headers, &exchange.head.uri);

    let mut now = exchange.started;
    let mut head = exchange.head;
    rewrite_request(&mut head, exchange.client, &core.shared);
    let mut body = RequestBody::new(exchange.body, limit, server.body_timeout, server.min_rate);
    let progress = body.progress();
    if progress.is_some() {
        // A client that uploads slowly holds nothing of the upstream meanwhile.
        if body.read_ahead(ahead).await.is_err() {
            return client_fault(progress.as_deref())
                .unwrap_or(Problem::BadRequest)
                .response();
        }
        now = Instant::now();
        frame_body(&mut head.headers, &body);
    }
    let mut request = Request::from_parts(head, body);
    let mut walked = Walked::default();
    let mut retries_left = config.retries;

    let mut has_waited = false;
    loop {
        let Some(candidate) = candidates.next() else {
            // Once only: the next probe has its own time.
            if has_waited || !probe_ended(upstream, walked).await {
                break;
            }
            has_waited = true;
            now = Instant::now();
            walked = Walked::default();
            candidates = upstream.candidates(&bits, request.headers(), request.uri());
            continue;
        };
        let endpoint = &upstream.shared.endpoints[candidate];
        let permit = match endpoint.admit(now) {
            Admission::Granted(permit) => permit,
            Admission::Unhealthy => continue,
            Admission::Rejected(retry_after) => {
                meters.rejected.add();
                walked.note(Problem::BreakerOpen(retry_after));
                continue;
            }
        };
        let lease = match upstream.pools[candidate].lease(&share, now).await {
            Ok(lease) => lease,
            Err(refused @ (PoolError::Busy | PoolError::Share)) => {
                walked.note(connect_problem(&refused));
                continue;
            }
            Err(error) => {
                debug!(endpoint = endpoint.address(), ?error, "connect failed");
                let problem = connect_problem(&error);
                meters.attempt(attempt_of(problem));
                now = Instant::now();
                record(permit, false, now);
                walked.note(problem);
                // Nothing was sent: any request may go to the next endpoint.
                if retries_left == 0 {
                    break;
                }
                retries_left -= 1;
                meters.retries.add();
                continue;
            }
        };
        let is_reused = lease.is_reused();
        if !is_reused {
            // Connecting took its own time, which is not the answer's.
            now = Instant::now();
        }
        let sent = now;
        let mut tried = send(lease, request, config.response_timeout, now).await;
        if is_reused && let Tried::Intact(intact, _) = tried {
            // The idle connection had been closed by the other end. That says nothing about the endpoint: ask it on a fresh one.
            meters.retries.add();
            tried = match upstream.pools[candidate]
                .connect(&share, Instant::now())
                .await
            {
                Ok(lease) => send(lease, intact, config.response_timeout, Instant::now()).await,
                Err(error) => Tried::Intact(intact, connect_problem(&error)),
            };
        }
        now = Instant::now();
        match tried {
            Tried::Answered(response, lease) => {
                let status = response.status();
                let Some(mut response) = answer(response, lease, config.body_timeout, now) else {
                    meters.attempt(Attempt::Error);
                    record(permit, false, now);
                    return Problem::BadGateway.response();
                };
                meters.attempt(Attempt::Ok);
                meters.responded(now.saturating_duration_since(sent));
                record(permit, !is_sick(status), now);
                if progress.is_some_and(|upload| upload.stage() == Stage::Sending) {
                    response.extensions_mut().insert(Unread);
                }
                return response;
            }
            // Not held against the endpoint: the permit is dropped.
            Tried::Evicted => return Problem::BodyTimeout.response(),
            Tried::Gone(problem) => {
                if let Some(fault) = client_fault(progress.as_deref()) {
                    // Not held against the endpoint: the permit is dropped.
                    return fault.response();
                }
                meters.attempt(attempt_of(problem));
                record(permit, false, now);
                return problem.response();
            }
            Tried::Intact(intact, problem) => {
                meters.attempt(attempt_of(problem));
                record(permit, false, now);
                walked.note(problem);
                if retries_left == 0 {
                    break;
                }
                retries_left -= 1;
                meters.retries.add();
                request = intact;
            }
        }
    }
    if matches!(
        walked.problem,
        Problem::NoEndpoint
            | Problem::BreakerOpen(_)
            | Problem::UpstreamBusy
            | Problem::ClientShare
    ) {
        meters.attempt(Attempt::Unavailable);
    }
    walked.problem.response()
}

impl Default for Walked {
    fn default() -> Self {
        Self {
            problem: Problem::NoEndpoint,
        }
    }
}

impl Walked {
    /// Failures tell more than refusals; of two breakers the one that opens sooner counts.
    pub fn note(&mut self, problem: Problem) {
        self.problem = match (self.problem, problem) {
            (Problem::BreakerOpen(a), Problem::BreakerOpen(b)) => Problem::BreakerOpen(a.min(b)),
            (
                Problem::BadGateway | Problem::UpstreamTimeout,
                Problem::BreakerOpen(_) | Problem::UpstreamBusy | Problem::ClientShare,
            ) => {
                return;
            }
            (_, new) => new,
        };
    }

    /// What to answer.
    pub fn problem(self) -> Problem {
        self.problem
    }
}

/// What a request that met nothing but open breakers waits for, at most.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// Waits for what comes of a probe that is out, if breakers are why nobody was asked: the first requests after an outage would
/// otherwise all be refused but the one that finds out that it is over. True if there is something new.
async fn probe_ended(upstream: &Upstream, walked: Walked) -> bool {
    let shared = &upstream.shared;
    let mut changed = pin!(shared.breaker_changed.notified());
    changed.as_mut().enable();
    let is_probed = || shared.endpoints.iter().any(Endpoint::is_probed);
    matches!(walked.problem, Problem::BreakerOpen(_))
        && is_probed()
        && timeout(PROBE_WAIT, changed).await.is_ok()
}

/// Sends once over a connection; once more on it only by way of [`Tried::Intact`].
async fn send(
    mut lease: Lease,
    request: Request<RequestBody>,
    timeout: Duration,
    now: Instant,
) -> Tried {
    // A copy of the header for the one case in which a request that was written may be written again: the endpoint closed the
    // idle connection while the request was on its way. An endpoint does that when its keep-alive time is up, which is seconds, so
    // a connection that was idle for less than a tenth of one is not worth copying every header for: under load nearly all
    // connections are such. What is given up is the request that meets an endpoint's exit within its round trip; that is a 502.
    let may_repeat = lease.idled() >= FRESH
        && request.method().is_idempotent()
        && request.body().is_end_stream();
    let spare = may_repeat.then(|| copy_of(&request));
    let answer = match request.body().progress() {
        None => lease.send(request, timeout, now).await,
        Some(progress) => {
            let holder = Rc::clone(lease.holder());
            holder.uploads(progress);
            tokio::select! {
                biased;
                answer = lease.send(request, timeout, now) => answer,
                () = holder.cut_off() => return Tried::Evicted,
            }
        }
    };
    match answer {
        // Nobody asked for another protocol, and the client must not be told that it got one.
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Tried::Gone(Problem::BadGateway)
        }
        Ok(response) => Tried::Answered(response, lease),
        Err(SendError::TimedOut) => Tried::Gone(Problem::UpstreamTimeout),
        Err(SendError::Failed { error, unsent }) => {
            debug!(%error, "request failed");
            match (unsent, spare) {
                (Some(request), _) => Tried::Intact(*request, Problem::BadGateway),
                // Closed or reset before a byte of the answer. A malformed answer is not repeated.
                (None, Some(head)) if !error.is_parse() => {
                    Tried::Intact(head.map(|()| RequestBody::empty()), Problem::BadGateway)
                }
                (None, _) => Tried::Gone(Problem::BadGateway),
            }
        }
    }
}

/// Says how the body is framed, in words that hyper's client takes whatever the method: by itself it sends the body of a GET or HEAD
/// only if its length is known.
fn frame_body(headers: &mut HeaderMap, body: &RequestBody) {
    if headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    match body.whole() {
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

/// The request as an endpoint gets it: HTTP/1.1, origin form, the client's host, no header of the client's connection.
pub fn rewrite_request(head: &mut Parts, client: &Client, shared: &Shared) {
    if shared.config.server.via {
        shared.via.add(&mut head.headers, head.version);
    }
    remove_hop_by_hop(&mut head.headers);
    join_cookies(&mut head.headers);
    // hyper has told the client to go on, or will when the endpoint reads the body.
    head.headers.remove(EXPECT);
    if let Some(authority) = head.uri.authority() {
        // HTTP/2 and absolute form carry the host in the target.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            head.headers.insert(HOST, host);
        }
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    }
    if !head.headers.contains_key(HOST) {
        // An HTTP/1.0 client named none, and HTTP/1.1 has to name one: an empty one says so (RFC 9112 3.2).
        head.headers.insert(HOST, HeaderValue::from_static(""));
    }
    head.version = Version::HTTP_11;
    // A trusted proxy's word stands; it knows what the client asked it.
    if !head.headers.contains_key(X_FORWARDED_PROTO) {
        head.headers.insert(X_FORWARDED_PROTO, client.scheme());
    }
    if !head.headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = head.headers.get(HOST).cloned()
    {
        head.headers.insert(X_FORWARDED_HOST, host);
    }
    append_forwarded_for(&mut head.headers, &client.peer_value);
}

/// The response as the client gets it.
fn answer(
    response: Response<Incoming>,
    lease: Lease,
    pause: Duration,
    now: Instant,
) -> Option<Response<Body>> {
    let (mut head, incoming) = response.into_parts();
    if has_unknown_coding(&head.headers) {
        return None;
    }
    drop_overruled_length(&mut head.headers);
    join_lengths(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        // It has no body, so a length is a mistake, and HTTP/2 clients take it for a cut one.
        head.headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    let body = match receive(incoming, lease, pause, now) {
        Received::Whole(bytes) => Body::full(bytes),
        Received::Streaming(body) => Body::Upstream(body),
        Received::Broken => return None,
    };
    Some(Response::from_parts(head, body))
}

/// Answers that say the endpoint itself is unwell. A 500 is not among them: it is usually one page's defect, and one broken page
/// must not take the shop off the net.
pub fn is_sick(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

/// Tells the breaker how it went.
pub fn record(permit: Option<Permit>, is_success: bool, now: Instant) {
    match permit {
        Some(permit) if is_success => permit.success(now),
        Some(permit) => permit.failure(now),
        None => {}
    }
}

/// The problem with a connection that could not be made.
pub fn connect_problem(error: &PoolError) -> Problem {
    match error {
        PoolError::Busy => Problem::UpstreamBusy,
        PoolError::Share => Problem::ClientShare,
        PoolError::Connect(_) => Problem::BadGateway,
        PoolError::TimedOut => Problem::UpstreamTimeout,
    }
}

/// How an attempt that ended in this problem is counted.
pub fn attempt_of(problem: Problem) -> Attempt {
    match problem {
        Problem::UpstreamTimeout => Attempt::Timeout,
        Problem::UpstreamBusy | Problem::ClientShare => Attempt::Unavailable,
        _ => Attempt::Error,
    }
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
