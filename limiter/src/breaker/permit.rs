//! The guard of one request on its way to an endpoint. Whatever happens to the request, the breaker hears of it once.

use tokio::time::Instant;

use super::{Breaker, Outcome, Ticket};

/// The right to send one request. Say how it ended with [`record`](Self::record); dropped without that (the client left, the
/// task was aborted) it counts as cancelled: a probe's place is free again, and nothing is held against the endpoint.
#[derive(Debug)]
#[must_use = "dropping a permit cancels it"]
pub struct Permit {
    breaker: Breaker,
    /// `None` once the outcome is told.
    ticket: Option<Ticket>,
}

impl Permit {
    pub(super) fn new(breaker: Breaker, ticket: Ticket) -> Self {
        Self {
            breaker,
            ticket: Some(ticket),
        }
    }

    /// Tells the outcome. Ignored by the breaker if it has tripped since the request was sent.
    pub fn record(mut self, outcome: Outcome, now: Instant) {
        if let Some(ticket) = self.ticket.take() {
            self.breaker.record(ticket, outcome, now);
        }
    }

    /// The endpoint works.
    pub fn success(self, now: Instant) {
        self.record(Outcome::Success, now);
    }

    /// The endpoint does not work.
    pub fn failure(self, now: Instant) {
        self.record(Outcome::Failure, now);
    }

    /// Whether this is the one request of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_some_and(|ticket| ticket.is_probe())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Only a probe holds a place that must be given back; an ordinary cancelled request needs no lock.
        if let Some(ticket) = self.ticket.take().filter(Ticket::is_probe) {
            self.breaker.cancel(ticket);
        }
    }
}
