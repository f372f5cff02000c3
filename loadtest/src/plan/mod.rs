//! When every request is due: computed from the scenario and its seed alone, at nanosecond resolution.
//!
//! Nothing is stored per arrival: the n-th arrival follows from n. Offsets count from the start of the run; T0 lies
//! `warm_up` after it. The arrivals of the profile are split between page views and purchases by whole-number
//! interleaving, so both totals are exact.

mod curve;
mod identity;
mod schedule;

pub use curve::Curve;
pub use identity::Identities;
pub use schedule::{Job, Kind, Schedule};

use crate::scenario::{Scenario, Shape};

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
        let share = if s.sale.is_some() {
            s.page_views.share
        } else {
            1.0
        };
        let curve = Curve::new(&s.profile.shape);
        let (arrivals, pages, length) = match &s.profile.shape {
            Shape::Spike { duration, .. } => {
                let buyers = u64::from(s.buyers.count);
                let pages = (buyers as f64 * share / (1.0 - share).max(1e-9)).round() as u64;
                (buyers + pages, pages, *duration)
            }
            Shape::Constant { duration, .. } | Shape::Ramp { duration, .. } => {
                // The tiny addend keeps 0.1 × 10 s from becoming 0 arrivals by rounding.
                let arrivals = (curve.total() + 1e-9).floor() as u64;
                let pages = (arrivals as f64 * share).round() as u64;
                (arrivals, pages, *duration)
            }
        };
        let (t0_ns, warm_up_rate) = match &s.profile.shape {
            Shape::Spike {
                warm_up,
                warm_up_rate,
                ..
            } => (warm_up.as_nanos() as u64, *warm_up_rate),
            _ => (0, 0.0),
        };
        Plan {
            arrivals,
            pages,
            warm_up: (t0_ns as f64 / 1e9 * warm_up_rate).floor() as u64,
            bot_purchases: s.bots.count.saturating_mul(s.bots.burst),
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
    pub fn purchases_wanted(&self) -> u64 {
        self.arrivals - self.pages + u64::from(self.bot_purchases)
    }

    /// [`Plan::purchases_wanted`] of a scenario that passed its check.
    pub fn purchases(&self) -> u32 {
        u32::try_from(self.purchases_wanted()).expect("the scenario's check bounds it")
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
