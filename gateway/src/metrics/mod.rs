//! What the edge counts, and where Prometheus reads it.
//!
//! Every core counts into plain cells of its own ([`Tally`], [`Level`]) and hands the sums over ten times a second: the request
//! path touches no memory another core writes. So do its histograms ([`Spread`]). Labels come from closed sets, and every
//! series exists at 0 from the start, so that a rate is defined before the first event.

mod local;

mod histogram;

mod shared;

mod process;

mod recorder;

mod help;

use std::time::Duration;

use http::StatusCode;
use metrics::{counter, gauge};

pub use self::{
    histogram::Spread,
    local::{Level, Tally},
    recorder::{UPKEEP_EVERY, install, page},
    shared::{BreakerMeters, LimitMeters},
};
use crate::config::Config;

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

/// The edge's series as one core writes them.
#[derive(Debug)]
pub struct Meters {
    routes: Vec<RouteMeters>,
    upstreams: Vec<UpstreamMeters>,
    /// Requests between their header and their response's last byte.
    pub in_flight: Level,
    connections_open: [Level; 2],
    connections_total: [Tally; 2],
    /// Connections refused because their address had its share of a process that is getting full.
    pub connections_refused: Tally,
    /// Handshakes that succeeded.
    pub handshakes_ok: Tally,
    /// Handshakes that did not.
    pub handshakes_failed: Tally,
}

#[derive(Debug)]
struct RouteMeters {
    requests: [[Tally; 2]; 8],
    duration: [Spread; 8],
}

/// Series of one upstream.
#[derive(Debug)]
pub struct UpstreamMeters {
    requests: [Tally; 4],
    duration: Spread,
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
    /// Requests whose clients were so late that their places went to others.
    pub evicted: Tally,
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
            connections_refused: Tally::new(counter!("penstock_connections_refused_total")),
            handshakes_ok: handshake("ok"),
            handshakes_failed: handshake("failed"),
        };
        meters.create();
        meters
    }

    /// Makes gauges show their 0.
    fn create(&self) {
        let levels = self.connections_open.iter().chain([&self.in_flight]);
        let pools = self
            .upstreams
            .iter()
            .flat_map(|upstream| [&upstream.active, &upstream.idle]);
        for level in levels.chain(pools) {
            level.create();
        }
    }

    /// Counts a finished request. `route` is an index into the configuration, or one past it.
    pub fn request(&self, route: usize, outcome: Outcome, protocol: Protocol, took: Duration) {
        let route = &self.routes[route];
        route.requests[outcome as usize][protocol as usize].add();
        route.duration[outcome as usize].add(took);
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
            route.duration.iter().for_each(Spread::flush);
        }
        for upstream in &self.upstreams {
            upstream.requests.iter().for_each(Tally::flush);
            upstream.duration.flush();
            upstream.active.flush();
            upstream.idle.flush();
            upstream.connects_ok.flush();
            upstream.connects_failed.flush();
            upstream.retries.flush();
            upstream.evicted.flush();
            upstream.rejected.flush();
        }
        self.in_flight.flush();
        self.connections_open.iter().for_each(Level::flush);
        self.connections_total.iter().for_each(Tally::flush);
        self.connections_refused.flush();
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
                Spread::new(
                    "penstock_request_duration_seconds",
                    "From a request's header to its response's last byte",
                    &[("route", route), ("outcome", outcome)],
                )
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
            duration: Spread::new(
                "penstock_upstream_duration_seconds",
                "From sending a request upstream to the response's header",
                &[("upstream", upstream)],
            ),
            active: connections("active"),
            idle: connections("idle"),
            connects_ok: connects("ok"),
            connects_failed: connects("failed"),
            retries: Tally::new(counter!("penstock_upstream_retries_total", "upstream" => name())),
            evicted: Tally::new(counter!("penstock_upstream_evicted_total", "upstream" => name())),
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
        self.duration.add(took);
    }
}
