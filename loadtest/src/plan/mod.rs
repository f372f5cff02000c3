//! When every request is due: computed from the scenario and its seed alone, at nanosecond resolution.
//!
//! Nothing is stored per arrival: the n-th arrival follows from n. Offsets count from the start of the run; T0 lies
//! `warm_up` after it. The arrivals of the profile are split between page views and purchases by whole-number
//! interleaving, so both totals are exact.

mod identity;
mod schedule;

pub use identity::Identities;
pub use schedule::{Job, Kind, Schedule};

use crate::scenario::{Arrivals, Curve, Scenario, Shape};

/// The arithmetic of a run: how many of what, from when to when.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Arrivals of the profile, page views and purchases together.
    pub arrivals: u64,
    /// Page views among them.
    pub pages: u64,
    /// Page views of the warm-up.
    pub warm_up: u64,
    /// Purchases attempted by bots.
    pub bot_purchases: u32,
    /// T0, from the start of the run.
    pub t0_ns: u64,
    /// Length of the profile after T0.
    pub length_ns: u64,
    curve: Curve,
    poisson: bool,
    seed: u64,
    warm_up_rate: f64,
    bots: u32,
    bots_within_ns: u64,
    paths: u32,
    retry_percent: f64,
    concurrent_percent: f64,
    retry_within_ns: u64,
}

impl Plan {
    /// The plan of a scenario.
    pub fn new(s: &Scenario) -> Plan {
        let Arrivals {
            curve,
            all,
            pages,
            bot_purchases,
        } = s.arrivals();
        let length = s.profile.shape.duration();
        let (t0_ns, warm_up_rate) = match &s.profile.shape {
            Shape::Spike {
                warm_up,
                warm_up_rate,
                ..
            } => (warm_up.as_nanos() as u64, *warm_up_rate),
            _ => (0, 0.0),
        };
        Plan {
            arrivals: all,
            pages,
            warm_up: (t0_ns as f64 / 1e9 * warm_up_rate).floor() as u64,
            bot_purchases,
            t0_ns,
            length_ns: length.as_nanos() as u64,
            curve,
            poisson: s.profile.poisson,
            seed: s.seed,
            warm_up_rate,
            bots: s.bots.count,
            bots_within_ns: s.bots.within.as_nanos() as u64,
            paths: s.page_views.paths.len().max(1) as u32,
            retry_percent: s.retry.percent,
            concurrent_percent: s.retry.concurrent_percent,
            retry_within_ns: s.retry.within.as_nanos() as u64,
        }
    }

    /// Purchases of buyers and bots; each has its own request id.
    pub fn purchases(&self) -> u32 {
        let purchases = self.arrivals - self.pages + u64::from(self.bot_purchases);
        u32::try_from(purchases).expect("the scenario's check bounds it")
    }

    /// The share of thread `thread` of `threads`, in order of time.
    pub fn schedule(&self, thread: usize, threads: usize) -> Schedule {
        Schedule::new(self.clone(), thread as u64, threads as u64)
    }

    /// Page views among the first `n` arrivals.
    fn pages_before(&self, n: u64) -> u64 {
        if self.arrivals == 0 {
            return 0;
        }
        (u128::from(n) * u128::from(self.pages) / u128::from(self.arrivals)) as u64
    }
}
