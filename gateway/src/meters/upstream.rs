//! Series of one upstream, as one core counts them.

use std::time::Duration;

use metrics::{counter, gauge};

use super::{LocalCounter, LocalGauge, LocalHistogram};

/// How an attempt at an upstream ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A response came, whatever its status.
    Ok,
    Error,
    /// Nothing came in time.
    Timeout,
    /// No endpoint could be asked.
    Unavailable,
}

const ATTEMPTS: [&str; 4] = ["ok", "error", "timeout", "unavailable"];

/// Series of one upstream.
#[derive(Debug)]
pub struct UpstreamMeters {
    requests: [LocalCounter; 4],
    duration: LocalHistogram,
    /// Connections that carry a request.
    pub active: LocalGauge,
    /// Connections in the pool.
    pub idle: LocalGauge,
    /// Connects that succeeded.
    pub connects_ok: LocalCounter,
    /// Connects that did not.
    pub connects_failed: LocalCounter,
    /// Second and later attempts of a request.
    pub retries: LocalCounter,
    /// Requests whose clients were so late that their places went to others.
    pub evicted: LocalCounter,
    /// Requests an open breaker kept from an endpoint.
    pub rejected: LocalCounter,
}
impl UpstreamMeters {
    pub(super) fn new(upstream: &str) -> Self {
        let name = || upstream.to_owned();
        let connections = |state: &'static str| {
            let gauge =
                gauge!("penstock_upstream_connections", "upstream" => name(), "state" => state);
            LocalGauge::new(gauge)
        };
        let connects = |result: &'static str| {
            let counter = counter!("penstock_upstream_connects_total", "upstream" => name(), "result" => result);
            LocalCounter::new(counter)
        };
        Self {
            requests: ATTEMPTS.map(|outcome| {
                LocalCounter::new(counter!("penstock_upstream_requests_total",
                    "upstream" => name(), "outcome" => outcome))
            }),
            duration: LocalHistogram::new(
                "penstock_upstream_duration_seconds",
                "How long the shop took",
                &[("upstream", upstream)],
            ),
            active: connections("active"),
            idle: connections("idle"),
            connects_ok: connects("ok"),
            connects_failed: connects("failed"),
            retries: LocalCounter::new(
                counter!("penstock_upstream_retries_total", "upstream" => name()),
            ),
            evicted: LocalCounter::new(
                counter!("penstock_upstream_evicted_total", "upstream" => name()),
            ),
            rejected: LocalCounter::new(
                counter!("penstock_circuit_breaker_rejected_total", "upstream" => name()),
            ),
        }
    }

    pub fn attempt(&self, attempt: Attempt) {
        self.requests[attempt as usize].add();
    }

    /// Notes the time to a response's header.
    pub fn responded(&self, took: Duration) {
        self.duration.add(took);
    }

    pub(super) fn create(&self) {
        self.active.create();
        self.idle.create();
    }

    pub(super) fn flush(&self) {
        self.requests.iter().for_each(LocalCounter::flush);
        self.duration.flush();
        self.active.flush();
        self.idle.flush();
        self.connects_ok.flush();
        self.connects_failed.flush();
        self.retries.flush();
        self.evicted.flush();
        self.rejected.flush();
    }
}
