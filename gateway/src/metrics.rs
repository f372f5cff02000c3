//! What the edge counts, and where Prometheus reads it.
//!
//! Every core counts into plain cells of its own ([`Tally`], [`Level`]) and hands the sums over ten times a second: the request
//! path touches no memory another core writes. Histograms go straight to the recorder. Labels come from closed sets, and
//! every series exists at 0 from the start, so that a rate is defined before the first event.

use std::{
    cell::Cell,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::Instant;

use crate::config::Config;

/// Edges for requests: 1 ms is a hit in a cache nearby, 10 s is a reader gone.
const REQUEST_SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Edges for a journal's sync: a fast disk takes 50 µs.
const SYNC_SECONDS: [f64; 12] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0,
];

/// Edges for batches, in orders.
const BATCH_SIZE: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// How often histograms' samples are folded into buckets: bounds their memory between scrapes.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// The route of requests that match no other.
pub const NO_ROUTE: &str = "none";

/// How a request ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 1xx to 3xx.
    Ok,
    /// 4xx but 429.
    ClientError,
    /// 429.
    Limited,
    /// 503.
    Unavailable,
    /// 502.
    UpstreamError,
    /// 504.
    Timeout,
    /// Any other 5xx.
    ServerError,
    /// The client left, or the body broke off.
    Aborted,
}

/// The HTTP version of a connection, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 and 1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// How an attempt at an upstream ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A response came, whatever its status.
    Ok,
    /// The connection failed.
    Error,
    /// Nothing came in time.
    Timeout,
    /// No endpoint could be asked.
    Unavailable,
}

const OUTCOMES: [(Outcome, &str); 8] = [
    (Outcome::Ok, "ok"),
    (Outcome::ClientError, "client_error"),
    (Outcome::Limited, "limited"),
    (Outcome::Unavailable, "unavailable"),
    (Outcome::UpstreamError, "upstream_error"),
    (Outcome::Timeout, "timeout"),
    (Outcome::ServerError, "server_error"),
    (Outcome::Aborted, "aborted"),
];

const PROTOCOLS: [&str; 2] = ["h1", "h2"];

const ATTEMPTS: [&str; 4] = ["ok", "error", "timeout", "unavailable"];

impl Outcome {
    /// The outcome of a response that was sent whole.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            429 => Self::Limited,
            400..=499 => Self::ClientError,
            502 => Self::UpstreamError,
            503 => Self::Unavailable,
            504 => Self::Timeout,
            500..=599 => Self::ServerError,
            _ => Self::Ok,
        }
    }

    /// Its label.
    pub fn label(self) -> &'static str {
        OUTCOMES[self as usize].1
    }
}

impl Protocol {
    /// Its label.
    pub fn label(self) -> &'static str {
        PROTOCOLS[self as usize]
    }
}

/// A counter of one core.
#[derive(Debug)]
pub struct Tally {
    pending: Cell<u64>,
    counter: Counter,
}

/// A gauge of which one core holds a part.
#[derive(Debug)]
pub struct Level {
    pending: Cell<i64>,
    gauge: Gauge,
}

impl Tally {
    fn new(counter: Counter) -> Self {
        Self {
            pending: Cell::new(0),
            counter,
        }
    }

    /// Counts one.
    pub fn add(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    fn flush(&self) {
        let pending = self.pending.take();
        if pending > 0 {
            self.counter.increment(pending);
        }
    }
}

impl Level {
    fn new(gauge: Gauge) -> Self {
        Self {
            pending: Cell::new(0),
            gauge,
        }
    }

    /// One more.
    pub fn up(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    /// One less.
    pub fn down(&self) {
        self.pending.set(self.pending.get() - 1);
    }

    fn flush(&self) {
        let pending = self.pending.take();
        if pending != 0 {
            self.gauge.increment(pending as f64);
        }
    }
}

/// The edge's series as one core writes them.
#[derive(Debug)]
pub struct Meters {
    routes: Vec<RouteMeters>,
    upstreams: Vec<UpstreamMeters>,
    /// Requests between their header and their response's last byte.
    pub in_flight: Level,
    connections_open: [Level; 2],
    connections_total: [Tally; 2],
    /// Handshakes that succeeded.
    pub handshakes_ok: Tally,
    /// Handshakes that did not.
    pub handshakes_failed: Tally,
}

#[derive(Debug)]
struct RouteMeters {
    requests: [[Tally; 2]; 8],
    duration: [Histogram; 8],
}

/// Series of one upstream.
#[derive(Debug)]
pub struct UpstreamMeters {
    requests: [Tally; 4],
    duration: Histogram,
    /// Connections that carry a request.
    pub active: Level,
    /// Connections in the pool.
    pub idle: Level,
    /// Connects that succeeded.
    pub connects_ok: Tally,
    /// Connects that did not.
    pub connects_failed: Tally,
    /// Second and later attempts of a request.
    pub retries: Tally,
    /// Requests an open breaker kept from an endpoint.
    pub rejected: Tally,
}

impl Meters {
    /// Resolves every handle, which also creates every series at 0.
    pub fn new(config: &Config) -> Self {
        let names = config.routes.iter().map(|route| route.name.as_str());
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| upstream.name.as_str());
        let by_protocol = |name: &'static str| {
            PROTOCOLS
                .map(|protocol| gauge!(name, "protocol" => protocol))
                .map(Level::new)
        };
        let handshake = |result: &'static str| {
            Tally::new(counter!("penstock_tls_handshakes_total", "result" => result))
        };
        let meters = Self {
            routes: names.chain([NO_ROUTE]).map(RouteMeters::new).collect(),
            upstreams: upstreams.map(UpstreamMeters::new).collect(),
            in_flight: Level::new(gauge!("penstock_requests_in_flight")),
            connections_open: by_protocol("penstock_connections_open"),
            connections_total: PROTOCOLS.map(|protocol| {
                Tally::new(counter!("penstock_connections_total", "protocol" => protocol))
            }),
            handshakes_ok: handshake("ok"),
            handshakes_failed: handshake("failed"),
        };
        meters.create();
        meters
    }

    /// Adds nothing everywhere: a gauge that was never touched has no value to show.
    fn create(&self) {
        let levels = self.connections_open.iter().chain([&self.in_flight]);
        let pools = self
            .upstreams
            .iter()
            .flat_map(|upstream| [&upstream.active, &upstream.idle]);
        for level in levels.chain(pools) {
            level.gauge.increment(0.0);
        }
    }

    /// Counts a finished request. `route` is an index into the configuration, or one past it.
    pub fn request(&self, route: usize, outcome: Outcome, protocol: Protocol, took: Duration) {
        let route = &self.routes[route];
        route.requests[outcome as usize][protocol as usize].add();
        route.duration[outcome as usize].record(took.as_secs_f64());
    }

    /// Series of an upstream.
    pub fn upstream(&self, index: usize) -> &UpstreamMeters {
        &self.upstreams[index]
    }

    /// Counts a connection that begins.
    pub fn connection_opened(&self, protocol: Protocol) {
        self.connections_open[protocol as usize].up();
        self.connections_total[protocol as usize].add();
    }

    /// Counts a connection that ends.
    pub fn connection_closed(&self, protocol: Protocol) {
        self.connections_open[protocol as usize].down();
    }

    /// Hands everything over to the recorder.
    pub fn flush(&self) {
        for route in &self.routes {
            route.requests.iter().flatten().for_each(Tally::flush);
        }
        for upstream in &self.upstreams {
            upstream.requests.iter().for_each(Tally::flush);
            upstream.active.flush();
            upstream.idle.flush();
            upstream.connects_ok.flush();
            upstream.connects_failed.flush();
            upstream.retries.flush();
            upstream.rejected.flush();
        }
        self.in_flight.flush();
        self.connections_open.iter().for_each(Level::flush);
        self.connections_total.iter().for_each(Tally::flush);
        self.handshakes_ok.flush();
        self.handshakes_failed.flush();
    }
}

impl RouteMeters {
    fn new(route: &str) -> Self {
        Self {
            requests: OUTCOMES.map(|(_, outcome)| {
                PROTOCOLS.map(|protocol| {
                    Tally::new(counter!("penstock_requests_total",
                        "route" => route.to_owned(), "outcome" => outcome, "protocol" => protocol))
                })
            }),
            duration: OUTCOMES.map(|(_, outcome)| {
                histogram!("penstock_request_duration_seconds",
                    "route" => route.to_owned(), "outcome" => outcome)
            }),
        }
    }
}

impl UpstreamMeters {
    fn new(upstream: &str) -> Self {
        let name = || upstream.to_owned();
        let connections = |state: &'static str| {
            let gauge =
                gauge!("penstock_upstream_connections", "upstream" => name(), "state" => state);
            Level::new(gauge)
        };
        let connects = |result: &'static str| {
            let counter = counter!("penstock_upstream_connects_total", "upstream" => name(), "result" => result);
            Tally::new(counter)
        };
        Self {
            requests: ATTEMPTS.map(|outcome| {
                Tally::new(counter!("penstock_upstream_requests_total",
                    "upstream" => name(), "outcome" => outcome))
            }),
            duration: histogram!("penstock_upstream_duration_seconds", "upstream" => name()),
            active: connections("active"),
            idle: connections("idle"),
            connects_ok: connects("ok"),
            connects_failed: connects("failed"),
            retries: Tally::new(counter!("penstock_upstream_retries_total", "upstream" => name())),
            rejected: Tally::new(
                counter!("penstock_circuit_breaker_rejected_total", "upstream" => name()),
            ),
        }
    }

    /// Counts an attempt.
    pub fn attempt(&self, attempt: Attempt) {
        self.requests[attempt as usize].add();
    }

    /// Notes the time to a response's header.
    pub fn responded(&self, took: Duration) {
        self.duration.record(took.as_secs_f64());
    }
}

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
        meters.show(limiter::breaker::State::Closed);
        meters
    }

    /// Notes a transition.
    pub fn enter(&self, state: limiter::breaker::State) {
        self.transitions[place(state)].increment(1);
        self.show(state);
    }

    fn show(&self, state: limiter::breaker::State) {
        for (at, gauge) in self.states.iter().enumerate() {
            gauge.set(if at == place(state) { 1.0 } else { 0.0 });
        }
    }
}

fn place(state: limiter::breaker::State) -> usize {
    use limiter::breaker::State;
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
    /// Resolves the handles.
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

    /// Copies what the limiter has counted, and frees the places of clients that are gone.
    pub fn read(&self, limiter: &limiter::rate::RateLimiter, now: Instant) {
        limiter.sweep(now);
        let counts = limiter.counts();
        self.allowed.absolute(counts.allowed);
        self.limited.absolute(counts.limited);
        self.keys.set(limiter.keys() as f64);
    }
}

/// Installs the process's recorder, once; later calls give the same handle.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    // Held while installing, so that of two callers the second waits for the first one's handle.
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let sync = Matcher::Full("penstock_journal_sync_seconds".to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &REQUEST_SECONDS)?
        .set_buckets_for_metric(sync, &SYNC_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), &BATCH_SIZE)?
        .install_recorder()?;
    describe();
    gauge!("penstock_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    *installed = Some(handle.clone());
    Ok(handle)
}

fn describe() {
    describe_gauge!("penstock_build_info", "Always 1; the version is a label");
    describe_counter!("penstock_requests_total", "Requests finished");
    describe_histogram!(
        "penstock_request_duration_seconds",
        "From a request's header to its response's last byte"
    );
    describe_gauge!("penstock_requests_in_flight", "Requests not finished yet");
    describe_gauge!("penstock_connections_open", "Client connections");
    describe_counter!("penstock_connections_total", "Client connections accepted");
    describe_counter!(
        "penstock_tls_handshakes_total",
        "TLS handshakes with clients"
    );
    describe_gauge!(
        "penstock_tls_cert_not_after_timestamp_seconds",
        "When a certificate ends"
    );
    describe_counter!(
        "penstock_ratelimit_decisions_total",
        "Token bucket decisions"
    );
    describe_gauge!(
        "penstock_ratelimit_keys",
        "Clients a token bucket table holds"
    );
    describe_gauge!(
        "penstock_circuit_breaker_state",
        "1 for the state an endpoint's breaker is in"
    );
    describe_counter!(
        "penstock_circuit_breaker_transitions_total",
        "Changes of a breaker's state"
    );
    describe_counter!(
        "penstock_circuit_breaker_rejected_total",
        "Requests an open breaker kept from an endpoint"
    );
    describe_counter!(
        "penstock_upstream_requests_total",
        "Attempts at an upstream"
    );
    describe_histogram!(
        "penstock_upstream_duration_seconds",
        "From sending a request upstream to the response's header"
    );
    describe_gauge!(
        "penstock_upstream_connections",
        "Connections to an upstream"
    );
    describe_counter!(
        "penstock_upstream_connects_total",
        "TCP connects to an upstream"
    );
    describe_counter!(
        "penstock_upstream_retries_total",
        "Second and later attempts of a request"
    );
    describe_counter!(
        "penstock_access_log_dropped_total",
        "Access lines lost because the writer fell behind"
    );
}
