//! Series of the parts that all cores share, breakers and token buckets: written where they are, not through a core's cells.

use limiter::{breaker::State, rate::RateLimiter};
use metrics::{Counter, Gauge, counter, gauge};
use tokio::time::Instant;

/// The breaker's series of one endpoint; the breaker's observer writes them from any thread.
#[derive(Clone, Debug)]
pub struct BreakerMeters {
    states: [Gauge; 3],
    transitions: [Counter; 3],
}

const STATES: [&str; 3] = ["closed", "open", "half_open"];

impl BreakerMeters {
    /// Resolves the handles; the state shown is closed.
    pub fn new(upstream: &str, endpoint: &str) -> Self {
        let meters = Self {
            states: STATES.map(|state| {
                gauge!("penstock_circuit_breaker_state",
                    "upstream" => upstream.to_owned(), "endpoint" => endpoint.to_owned(), "state" => state)
            }),
            transitions: STATES.map(|to| {
                counter!("penstock_circuit_breaker_transitions_total",
                    "upstream" => upstream.to_owned(), "endpoint" => endpoint.to_owned(), "to" => to)
            }),
        };
        meters.show(State::Closed);
        meters
    }

    pub fn enter(&self, state: State) {
        self.transitions[place(state)].increment(1);
        self.show(state);
    }

    fn show(&self, state: State) {
        for (at, gauge) in self.states.iter().enumerate() {
            gauge.set(if at == place(state) { 1.0 } else { 0.0 });
        }
    }
}

fn place(state: State) -> usize {
    match state {
        State::Closed => 0,
        State::Open => 1,
        State::HalfOpen => 2,
    }
}

/// The series of one rate limiter, read off it by the control runtime.
#[derive(Debug)]
pub struct LimitMeters {
    allowed: Counter,
    limited: Counter,
    keys: Gauge,
}

impl LimitMeters {
    pub fn new(limit: &str) -> Self {
        let decisions = |decision: &'static str| {
            counter!("penstock_ratelimit_decisions_total",
                "limiter" => limit.to_owned(), "decision" => decision)
        };
        Self {
            allowed: decisions("allowed"),
            limited: decisions("limited"),
            keys: gauge!("penstock_ratelimit_keys", "limiter" => limit.to_owned()),
        }
    }

    /// Copies what the limiter has counted, and frees the places of some of the clients that are gone.
    pub fn read(&self, limiter: &RateLimiter, now: Instant) {
        limiter.sweep_part(now);
        let counts = limiter.counts();
        self.allowed.absolute(counts.allowed);
        self.limited.absolute(counts.limited);
        self.keys.set(limiter.keys() as f64);
    }
}
