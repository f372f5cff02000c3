//! Counting without sharing: plain cells of one core, handed over to the recorder now and then.

use std::cell::Cell;

use metrics::{Counter, Gauge};

/// A counter of one core.
#[derive(Debug)]
pub struct LocalCounter {
    pending: Cell<u64>,
    counter: Counter,
}

/// A gauge of which one core holds a part.
#[derive(Debug)]
pub struct LocalGauge {
    pending: Cell<i64>,
    gauge: Gauge,
}

impl LocalCounter {
    pub(super) fn new(counter: Counter) -> Self {
        Self {
            pending: Cell::new(0),
            counter,
        }
    }

    pub fn add(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    pub(super) fn flush(&self) {
        let pending = self.pending.take();
        if pending > 0 {
            self.counter.increment(pending);
        }
    }
}

impl LocalGauge {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self {
            pending: Cell::new(0),
            gauge,
        }
    }

    pub fn up(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    pub fn down(&self) {
        self.pending.set(self.pending.get() - 1);
    }

    pub(super) fn flush(&self) {
        let pending = self.pending.take();
        if pending != 0 {
            self.gauge.increment(pending as f64);
        }
    }
}

impl LocalGauge {
    /// Adds nothing: a gauge that was never touched has no value to show.
    pub(super) fn create(&self) {
        self.gauge.increment(0.0);
    }
}
