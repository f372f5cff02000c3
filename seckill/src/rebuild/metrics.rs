//! What rebuilds count; every series exists from the start.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::Cause;

/// Handles, resolved once.
pub(super) struct RebuildMetrics {
    is_leader: Gauge,
    waiting: Gauge,
    failures: Counter,
    seconds: Histogram,
}

impl RebuildMetrics {
    pub(super) fn new() -> Self {
        for cause in Cause::ALL {
            rebuilds(cause).increment(0);
        }
        Self {
            is_leader: metrics::gauge!("penstock_recovery_is_leader"),
            waiting: metrics::gauge!("penstock_recovery_waiting_segments"),
            failures: metrics::counter!("penstock_recovery_failures_total"),
            seconds: metrics::histogram!("penstock_recovery_rebuild_seconds"),
        }
    }

    /// Whether this node holds the lease. One that does not knows of no segment that waits: only the holder's word counts, and a
    /// number left behind would page for ever.
    pub(super) fn is_leader(&self, is_leader: bool) {
        self.is_leader.set(f64::from(u8::from(is_leader)));
        if !is_leader {
            self.waiting.set(0.0);
        }
    }

    /// Segments that needed a rebuild at the last look and did not get it.
    pub(super) fn waiting(&self, segments: usize) {
        self.waiting.set(segments as f64);
    }

    /// A rebuild came to no end; the next look tries again.
    pub(super) fn failed(&self) {
        self.failures.increment(1);
    }

    /// A segment was rebuilt.
    pub(super) fn rebuilt(&self, cause: Cause, took: Duration) {
        rebuilds(cause).increment(1);
        self.seconds.record(took.as_secs_f64());
    }
}

fn rebuilds(cause: Cause) -> metrics::Counter {
    metrics::counter!("penstock_recovery_rebuilds_total", "cause" => cause.as_str())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU64, Ordering},
        },
    };

    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        with_local_recorder,
    };

    use super::*;

    /// Remembers gauges, and nothing else.
    #[derive(Default)]
    struct Gauges(Mutex<HashMap<String, Arc<AtomicU64>>>);

    impl Gauges {
        fn value(&self, name: &str) -> f64 {
            f64::from_bits(self.0.lock().unwrap()[name].load(Ordering::Relaxed))
        }
    }

    impl Recorder for Gauges {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            let mut gauges = self.0.lock().unwrap();
            Gauge::from_arc(gauges.entry(key.name().to_owned()).or_default().clone())
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// The number stayed on the node that lost the lease, and its alert with it.
    #[test]
    fn who_loses_the_lease_no_longer_tells_of_segments_that_wait() {
        let gauges = Gauges::default();
        with_local_recorder(&gauges, || {
            let metrics = RebuildMetrics::new();
            let waiting = || gauges.value("penstock_recovery_waiting_segments");
            metrics.is_leader(true);
            metrics.waiting(3);
            metrics.is_leader(true);
            assert_eq!(waiting(), 3.0);
            metrics.is_leader(false);
            assert_eq!(waiting(), 0.0);
            assert_eq!(gauges.value("penstock_recovery_is_leader"), 0.0);
        });
    }
}
