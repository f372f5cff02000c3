//! How far a run has come.

use std::time::Duration;

use crate::outcome::Outcome;

/// The run so far, told about twice a second.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Since the start of the run (zero before it).
    pub elapsed: Duration,
    /// Length of the plan.
    pub length: Duration,
    /// Jobs of the plan that became due.
    pub planned: u64,
    /// Requests put on the wire.
    pub sent: u64,
    /// Requests that ended, by outcome (see [`Outcome::index`]).
    pub done: [u64; Outcome::COUNT],
    /// Requests that ended per second, over the last interval.
    pub rps: f64,
    /// 99th percentile of the last interval, from the planned instant.
    pub p99: Duration,
}

impl Progress {
    /// Requests that ended with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.done[outcome.index()]
    }

    pub fn done_total(&self) -> u64 {
        self.done.iter().sum()
    }
}
