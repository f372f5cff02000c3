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

/// Whether one endpoint is healthy, as its check says.
#[derive(Clone, Debug)]
pub struct HealthMeter(Gauge);

impl HealthMeter {
    /// Resolves the handle; an endpoint is healthy until its check says otherwise.
    pub fn new(upstream: &str, endpoint: &str) -> Self {
        let gauge = gauge!("penstock_upstream_endpoint_healthy",
            "upstream" => upstream.to_owned(), "endpoint" => endpoint.to_owned());
        gauge.set(1.0);
        Self(gauge)
    }

    /// Shows what the check says.
    pub fn show(&self, is_healthy: bool) {
        self.0.set(f64::from(u8::from(is_healthy)));
    }
}

/// What the process as a whole may hold at most, and requests on the control runtime, of which nobody else keeps count.
#[derive(Debug)]
pub struct BoundMeters {
    connections: Gauge,
    control_requests: Gauge,
    control_requests_max: Gauge,
}

impl BoundMeters {
    /// Resolves the handles.
    pub fn new() -> Self {
        Self {
            connections: gauge!("penstock_connections_max"),
            control_requests: gauge!("penstock_control_requests"),
            control_requests_max: gauge!("penstock_control_requests_max"),
        }
    }

    /// Shows the bounds of a configuration, and how many permits of the control runtime are taken.
    pub fn read(&self, connections: usize, (taken, permits): (usize, usize)) {
        self.connections.set(connections as f64);
        self.control_requests.set(taken as f64);
        self.control_requests_max.set(permits as f64);
    }

    /// Shows how many connections to an upstream may be in use at a time.
    pub fn read_upstream(&self, upstream: &str, connections: usize) {
        gauge!("penstock_upstream_connections_max", "upstream" => upstream.to_owned())
            .set(connections as f64);
    }
}

impl Default for BoundMeters {
    fn default() -> Self {
        Self::new()
    }
}

/// The series of one rate limiter, read off it by the control runtime.
#[derive(Debug)]
pub struct LimitMeters {
    allowed: Counter,
    limited: Counter,
    keys: Gauge,
    keys_max: Gauge,
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
            keys_max: gauge!("penstock_ratelimit_keys_max", "limiter" => limit.to_owned()),
        }
    }

    /// Copies what the limiter has counted, and frees the places of some of the clients that are gone.
    pub fn read(&self, limiter: &RateLimiter, now: Instant) {
        limiter.sweep_part(now);
        let counts = limiter.counts();
        self.allowed.absolute(counts.allowed);
        self.limited.absolute(counts.limited);
        self.keys.set(limiter.keys() as f64);
        self.keys_max.set(limiter.capacity() as f64);
    }
}
