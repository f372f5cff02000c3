//! What recovery counts; every series exists from the start.

use std::time::Duration;

use metrics::{Gauge, Histogram};

use super::Cause;

/// Handles, resolved once.
pub(super) struct RecoveryMetrics {
    is_leader: Gauge,
    waiting: Gauge,
    seconds: Histogram,
}

impl RecoveryMetrics {
    pub(super) fn new() -> Self {
        for cause in Cause::ALL {
            rebuilds(cause).increment(0);
        }
        Self {
            is_leader: metrics::gauge!("penstock_recovery_is_leader"),
            waiting: metrics::gauge!("penstock_recovery_waiting_segments"),
            seconds: metrics::histogram!("penstock_recovery_rebuild_seconds"),
        }
    }

    /// Whether this node holds the lease.
    pub(super) fn is_leader(&self, is_leader: bool) {
        self.is_leader.set(f64::from(u8::from(is_leader)));
    }

    /// Segments that needed a rebuild at the last look and did not get it.
    pub(super) fn waiting(&self, segments: usize) {
        self.waiting.set(segments as f64);
    }

    /// A segment was rebuilt.
    pub(super) fn rebuilt(&self, cause: Cause, took: Duration) {
        rebuilds(cause).increment(1);
        self.seconds.record(took.as_secs_f64());
    }
}

fn rebuilds(cause: Cause) -> metrics::Counter {
    metrics::counter!("penstock_recovery_rebuilds_total", "cause" => cause.name())
}
