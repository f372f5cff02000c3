//! The breaker's state machine: no lock, no clock, no waiting. Time comes in with every call, a transition goes out.

use std::time::Duration;

use tokio::time::Instant;

use super::{BreakerConfig, window::Window};

/// What a breaker does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Traffic flows.
    Closed,
    /// Refused.
    Open,
    /// One probe is let through, the rest is refused.
    HalfOpen,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
}

/// How a request ended, as far as the endpoint's health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint works, whatever it said.
    Success,
    /// The endpoint does not work: no connection, no answer in time, or an answer that says so.
    Failure,
    /// Nobody can tell: the client left first. Counts neither way, and frees the probe.
    Cancelled,
}

/// The breaker refused: the endpoint is at fault. Try another one, or answer 503 with this `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker open retry_after={retry_after:?}")]
pub struct Rejected {
    /// When the breaker may let a request through again, at the earliest.
    pub retry_after: Duration,
}

/// The right to send one request. Its outcome counts only while the breaker has made no transition since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    generation: u64,
    is_probe: bool,
}

/// The state machine of one breaker. Shared use goes through [`Breaker`](super::Breaker).
#[derive(Clone, Debug)]
pub struct BreakerCore {
    config: BreakerConfig,
    phase: Phase,
    /// Grows with every transition and every probe: outcomes of requests from before are recognised and ignored.
    generation: u64,
    /// Trips in a row; the exponent of the next open time.
    trips: u32,
}

#[derive(Clone, Debug)]
enum Phase {
    Closed {
        window: Window,
        /// Failures since the last success.
        failures_in_a_row: u32,
        since: Instant,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        /// When the probe that is out has failed; `None` after a cancelled probe, until the next request becomes the probe.
        probe_until: Option<Instant>,
    },
}

impl BreakerCore {
    /// A closed breaker.
    pub fn new(config: BreakerConfig, now: Instant) -> Self {
        Self {
            phase: closed(&config, now),
            config,
            generation: 0,
            trips: 0,
        }
    }

    /// The state as of the last call.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Asks to send one request.
    pub fn try_acquire(&mut self, now: Instant) -> (Result<Ticket, Rejected>, Option<Transition>) {
        let from = self.state();
        let answer = match self.phase {
            Phase::Closed { .. } => Ok(Ticket {
                generation: self.generation,
                is_probe: false,
            }),
            Phase::Open { until } if now < until => Err(until),
            Phase::Open { .. } | Phase::HalfOpen { probe_until: None } => Ok(self.send_probe(now)),
            Phase::HalfOpen {
                probe_until: Some(deadline),
            } if now < deadline => Err(deadline),
            // The probe never came back. Holding half-open for it would lock the endpoint out for good.
            Phase::HalfOpen {
                probe_until: Some(_),
            } => Err(self.trip(now)),
        };
        let answer = answer.map_err(|until| Rejected {
            retry_after: until.saturating_duration_since(now),
        });
        (answer, self.transition_from(from))
    }

    /// Takes the outcome of one request.
    pub fn record(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> Option<Transition> {
        if ticket.generation != self.generation {
            return None;
        }
        let from = self.state();
        let is_failure = match outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Cancelled => {
                self.cancel(ticket);
                return None;
            }
        };
        match &mut self.phase {
            Phase::Closed {
                window,
                failures_in_a_row,
                ..
            } => {
                let counts = window.record(is_failure, now);
                *failures_in_a_row = if is_failure {
                    failures_in_a_row.saturating_add(1)
                } else {
                    0
                };
                let is_row_full = self
                    .config
                    .consecutive_failures
                    .is_some_and(|limit| *failures_in_a_row >= limit.get());
                let is_ratio_reached = counts.requests >= u64::from(self.config.min_requests.get())
                    && counts.failures as f64 >= self.config.failure_ratio * counts.requests as f64;
                // A success may complete the minimum, yet only a failure trips.
                if is_failure && (is_row_full || is_ratio_reached) {
                    self.trip(now);
                }
            }
            Phase::HalfOpen { .. } if is_failure => {
                self.trip(now);
            }
            Phase::HalfOpen { .. } => {
                self.phase = closed(&self.config, now);
                self.generation += 1;
            }
            // Tripping makes a new generation and opens hand out no tickets, so none of them gets here.
            Phase::Open { .. } => {}
        }
        self.transition_from(from)
    }

    /// Takes back a ticket whose request has no outcome. A probe's place is free again; nothing is counted.
    pub fn cancel(&mut self, ticket: Ticket) {
        if ticket.generation == self.generation
            && let Phase::HalfOpen { probe_until } = &mut self.phase
        {
            *probe_until = None;
        }
    }

    fn send_probe(&mut self, now: Instant) -> Ticket {
        self.phase = Phase::HalfOpen {
            probe_until: Some(now + self.config.probe_deadline),
        };
        self.generation += 1;
        Ticket {
            generation: self.generation,
            is_probe: true,
        }
    }

    /// Opens, for twice as long as the last time if that was recent, and returns until when.
    fn trip(&mut self, now: Instant) -> Instant {
        if let Phase::Closed { since, .. } = self.phase
            && now.saturating_duration_since(since) > self.config.window()
        {
            // It worked for a whole window. An endpoint that fails right after each good probe does not get here.
            self.trips = 0;
        }
        // The cap is at most 24 h, reached long before 2^31 milliseconds overflow.
        let doubled = self.config.open_for.saturating_mul(1 << self.trips.min(30));
        self.trips = self.trips.saturating_add(1);
        let until = now + doubled.min(self.config.open_for_max);
        self.phase = Phase::Open { until };
        self.generation += 1;
        until
    }

    fn transition_from(&self, from: State) -> Option<Transition> {
        let to = self.state();
        (from != to).then_some(Transition { from, to })
    }
}

impl Ticket {
    /// Whether this is the one request of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }
}

fn closed(config: &BreakerConfig, now: Instant) -> Phase {
    Phase::Closed {
        window: Window::new(config.slots, config.slot, now),
        failures_in_a_row: 0,
        since: now,
    }
}

#[cfg(test)]
mod tests;
