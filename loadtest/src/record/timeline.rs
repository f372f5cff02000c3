//! The run over time: one point per interval, merged pairwise when there are too many, so memory stays fixed.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// First length of an interval; also how often progress is told.
pub(crate) const INTERVAL_MS: u64 = 500;
/// More points than a chart can show; reaching it doubles the interval.
const MAX_POINTS: usize = 1200;

/// What happened in one interval of one thread.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// Jobs that became due.
    pub planned: u64,
    /// Requests put on the wire.
    pub sent: u64,
    /// Requests that ended, by outcome.
    pub done: [u64; Outcome::COUNT],
    /// Latency from the planned instant, in microseconds, to two digits.
    pub latency: Histogram<u32>,
}

impl Default for Interval {
    fn default() -> Self {
        Interval {
            planned: 0,
            sent: 0,
            done: [0; Outcome::COUNT],
            latency: Histogram::new_with_bounds(1, 600_000_000, 2)
                .expect("the bounds are constants that fit"),
        }
    }
}

impl Interval {
    pub(super) fn ended(&mut self, outcome: Outcome, latency_us: u64) {
        self.done[outcome.index()] += 1;
        // Shed requests ended without having been tried; their time says nothing about the server.
        if outcome != Outcome::Shed {
            self.latency.saturating_record(latency_us);
        }
    }

    /// Adds another thread's interval.
    pub(crate) fn add(&mut self, other: &Interval) {
        self.planned += other.planned;
        self.sent += other.sent;
        for (mine, theirs) in self.done.iter_mut().zip(&other.done) {
            *mine += theirs;
        }
        self.latency
            .add(&other.latency)
            .expect("all interval histograms have the same bounds");
    }

    pub(crate) fn ended_total(&self) -> u64 {
        self.done.iter().sum()
    }
}

/// One point of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Start, in seconds from the start of the run.
    pub at_s: f64,
    /// Requests per second that became due.
    pub planned_per_s: f64,
    /// Requests per second put on the wire.
    pub sent_per_s: f64,
    /// Requests per second that ended.
    pub done_per_s: f64,
    pub accepted_per_s: f64,
    pub errors_per_s: f64,
    /// 99th percentile from the planned instant, in milliseconds.
    pub p99_ms: f64,
}

/// The points of a run.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    points: Vec<Interval>,
    /// Each point covers 2^doublings intervals.
    doublings: u32,
}

impl Timeline {
    /// Adds a thread's interval number `index`.
    pub(crate) fn add(&mut self, index: u64, interval: &Interval) {
        while (index >> self.doublings) as usize >= MAX_POINTS {
            self.halve();
        }
        let at = (index >> self.doublings) as usize;
        if self.points.len() <= at {
            self.points.resize_with(at + 1, Interval::default);
        }
        self.points[at].add(interval);
    }

    /// The points, as rates. The run ended `wall_s` after its start: the last point covers what was left of it, not a whole width, in
    /// which it would show an outage that never was.
    pub(crate) fn points(&self, wall_s: f64) -> Vec<Point> {
        let width_s = (INTERVAL_MS << self.doublings) as f64 / 1000.0;
        self.points
            .iter()
            .enumerate()
            .map(|(at, interval)| {
                let left_s = wall_s - at as f64 * width_s;
                // A thread may tell its last moments a little after the end.
                let covered_s = left_s.clamp(width_s / 50.0, width_s);
                let rate = |count: u64| count as f64 / covered_s;
                let of = |wanted: fn(Outcome) -> bool| {
                    Outcome::ALL
                        .into_iter()
                        .filter(|outcome| wanted(*outcome))
                        .map(|outcome| interval.done[outcome.index()])
                        .sum()
                };
                Point {
                    at_s: at as f64 * width_s,
                    planned_per_s: rate(interval.planned),
                    sent_per_s: rate(interval.sent),
                    done_per_s: rate(interval.ended_total()),
                    accepted_per_s: rate(of(|outcome| outcome == Outcome::Accepted)),
                    errors_per_s: rate(of(Outcome::is_error)),
                    p99_ms: interval.latency.value_at_quantile(0.99) as f64 / 1000.0,
                }
            })
            .collect()
    }

    fn halve(&mut self) {
        self.doublings += 1;
        self.points = self
            .points
            .chunks(2)
            .map(|pair| {
                let mut sum = pair[0].clone();
                if let Some(second) = pair.get(1) {
                    sum.add(second);
                }
                sum
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_keeps_its_counts_in_bounded_points() {
        let mut timeline = Timeline::default();
        let mut interval = Interval::default();
        interval.ended(Outcome::Accepted, 1000);
        for index in 0..3000 {
            timeline.add(index, &interval);
        }
        let points = timeline.points(f64::MAX);
        assert!(points.len() <= MAX_POINTS);
        let width_s = points[1].at_s - points[0].at_s;
        let total: f64 = points.iter().map(|p| p.accepted_per_s * width_s).sum();
        assert!((total - 3000.0).abs() < 1e-6, "{total}");
    }

    /// Broke: the last point showed a fifth of the rate, because the run ended a fifth into it.
    #[test]
    fn the_last_point_covers_what_was_left_of_the_run() {
        let mut timeline = Timeline::default();
        for (index, count) in [(0, 500), (1, 500), (2, 100)] {
            let mut interval = Interval::default();
            for _ in 0..count {
                interval.ended(Outcome::Accepted, 1000);
            }
            timeline.add(index, &interval);
        }
        let rates: Vec<f64> = timeline.points(1.1).iter().map(|p| p.done_per_s).collect();
        assert!(
            rates.iter().all(|rate| (rate - 1000.0).abs() < 1e-6),
            "{rates:?}"
        );
    }
}
