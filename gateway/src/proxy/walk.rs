//! The walk over an upstream's endpoints: which one is asked next, what its breaker and the metrics are told, and when it is enough.
//! Forwarding and tunnels walk alike; only what is sent differs.
//!
//! **INV-EDGE-1**: a request is sent a second time only if it may be. The walk goes on after [`Attempt::failed`] only, which says that
//! the request is intact: no connection was made, or not a byte of it was written, or it is idempotent, has no body, and a kept-alive
//! connection died before an answer's header.

use std::{pin::pin, time::Duration};

use http::{HeaderMap, StatusCode, Uri};
use limiter::breaker::Permit;
use tokio::time::{Instant, timeout};

use crate::{
    http::{Problem, client_ip::ClientBits},
    meters,
    upstream::{Pool, PoolError, Upstream, endpoint::Admission, policy::Candidates},
};

/// What a request that met nothing but open breakers waits for, at most.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// The endpoints that a request tries.
#[derive(Debug)]
pub(super) struct Walk<'u> {
    upstream: &'u Upstream,
    /// Of the request as the client sent it.
    hash: u64,
    candidates: Candidates<'u>,
    retries_left: usize,
    /// Why no endpoint took the request; the most telling reason met wins.
    refusal: Problem,
    has_waited: bool,
    is_over: bool,
}

/// An endpoint that may be asked. Dropped without a word, it is held against nobody.
#[derive(Debug)]
pub(super) struct Attempt<'u> {
    pub(super) address: &'u str,
    pub(super) pool: &'u std::rc::Rc<Pool>,
    permit: Option<Permit>,
}

impl<'u> Walk<'u> {
    /// In the order of this request.
    pub(super) fn new(
        upstream: &'u Upstream,
        client: &ClientBits,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Self {
        let hash = upstream.hash(client, headers, uri);
        Self {
            candidates: upstream.candidates(hash),
            hash,
            retries_left: upstream.shared.config.retries,
            refusal: Problem::NoEndpoint,
            has_waited: false,
            is_over: false,
            upstream,
        }
    }

    /// The next endpoint that may be asked.
    pub(super) fn next(&mut self, now: Instant) -> Option<Attempt<'u>> {
        while !self.is_over {
            let at = self.candidates.next()?;
            let endpoint = &self.upstream.shared.endpoints[at];
            match endpoint.admit(now) {
                Admission::Granted(permit) => {
                    return Some(Attempt {
                        address: endpoint.address(),
                        pool: &self.upstream.pools[at],
                        permit,
                    });
                }
                Admission::Unhealthy => {}
                Admission::Rejected(retry_after) => {
                    self.upstream.meters.rejected.add();
                    self.note(Problem::BreakerOpen(retry_after));
                }
            }
        }
        None
    }

    /// After [`Walk::next`] found none: waits for what comes of a probe that is out, if breakers are why nobody was asked. The first
    /// requests after an outage would otherwise all be refused but the one that finds out that it is over. True if the walk begins anew;
    /// once only, for the next probe has its own time.
    pub(super) async fn probe_ended(&mut self) -> bool {
        if self.has_waited || self.is_over || !matches!(self.refusal, Problem::BreakerOpen(_)) {
            return false;
        }
        self.has_waited = true;
        let shared = &self.upstream.shared;
        let mut changed = pin!(shared.breaker_changed.notified());
        changed.as_mut().enable();
        let is_probed = shared.endpoints.iter().any(|endpoint| endpoint.is_probed());
        if !is_probed || timeout(PROBE_WAIT, changed).await.is_err() {
            return false;
        }
        self.refusal = Problem::NoEndpoint;
        self.candidates = self.upstream.candidates(self.hash);
        true
    }

    /// An endpoint had no slot for this request. Nothing is held against it.
    pub(super) fn busy(&mut self, refused: &PoolError) {
        self.note(connect_problem(refused));
    }

    /// The endpoint failed, and the request is intact: the next one may be asked, if any try is left.
    pub(super) fn failed(&mut self, attempt: Attempt<'_>, problem: Problem, now: Instant) {
        self.upstream.meters.attempt(attempt_of(problem));
        attempt.failure(now);
        self.note(problem);
        match self.retries_left.checked_sub(1) {
            Some(left) => {
                self.retries_left = left;
                self.upstream.meters.retries.add();
            }
            None => self.is_over = true,
        }
    }

    /// The endpoint failed, and the request is gone.
    pub(super) fn gone(&self, attempt: Attempt<'_>, problem: Problem, now: Instant) {
        self.upstream.meters.attempt(attempt_of(problem));
        attempt.failure(now);
    }

    pub(super) fn answered(
        &self,
        attempt: Attempt<'_>,
        status: StatusCode,
        took: Duration,
        now: Instant,
    ) {
        self.upstream.meters.attempt(meters::Attempt::Ok);
        self.upstream.meters.responded(took);
        match is_sick(status) {
            true => attempt.failure(now),
            false => attempt.success(now),
        }
    }

    /// The end of a walk on which nobody answered.
    pub(super) fn refusal(&self) -> Problem {
        let was_nobody_asked = matches!(
            self.refusal,
            Problem::NoEndpoint
                | Problem::BreakerOpen(_)
                | Problem::UpstreamBusy
                | Problem::ClientShare
        );
        if was_nobody_asked {
            self.upstream.meters.attempt(meters::Attempt::Unavailable);
        }
        self.refusal
    }

    /// Failures tell more than refusals; of two breakers the one that opens sooner counts.
    fn note(&mut self, problem: Problem) {
        self.refusal = match (self.refusal, problem) {
            (Problem::BreakerOpen(a), Problem::BreakerOpen(b)) => Problem::BreakerOpen(a.min(b)),
            (
                Problem::BadGateway | Problem::UpstreamTimeout,
                Problem::BreakerOpen(_) | Problem::UpstreamBusy | Problem::ClientShare,
            ) => return,
            (_, new) => new,
        };
    }
}

impl Attempt<'_> {
    fn success(self, now: Instant) {
        if let Some(permit) = self.permit {
            permit.success(now);
        }
    }

    fn failure(self, now: Instant) {
        if let Some(permit) = self.permit {
            permit.failure(now);
        }
    }
}

/// Answers that say the endpoint itself is unwell. A 500 is not among them: it is usually one page's defect, and one broken page
/// must not take the shop off the net.
fn is_sick(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

/// The problem with a connection that could not be made.
pub(super) fn connect_problem(error: &PoolError) -> Problem {
    match error {
        PoolError::Busy => Problem::UpstreamBusy,
        PoolError::Share => Problem::ClientShare,
        PoolError::Connect(_) => Problem::BadGateway,
        PoolError::TimedOut => Problem::UpstreamTimeout,
    }
}

/// How an attempt that ended in this problem is counted.
fn attempt_of(problem: Problem) -> meters::Attempt {
    match problem {
        Problem::UpstreamTimeout => meters::Attempt::Timeout,
        Problem::UpstreamBusy | Problem::ClientShare => meters::Attempt::Unavailable,
        _ => meters::Attempt::Error,
    }
}
