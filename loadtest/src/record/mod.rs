//! What one generator thread measures: latency per outcome from the planned and from the actual send, its own lateness,
//! and the points of the timeline. Fixed memory, however long the run.

mod cpu;
mod progress;
mod timeline;

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

pub(crate) use cpu::ThreadCpu;
pub use progress::Progress;
pub(crate) use timeline::{INTERVAL_MS, Interval, Point, Timeline};

use crate::outcome::Outcome;

/// Longest latency told apart: an hour, in microseconds.
const MAX_US: u64 = 3_600_000_000;
/// Three digits: 1 µs below 2 ms, 0.1 % above.
const DIGITS: u8 = 3;

/// A histogram of microseconds with fixed memory (under 100 kB).
pub(crate) type Latencies = Histogram<u32>;

pub(crate) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, MAX_US, DIGITS).expect("the bounds are constants that fit")
}

/// Latencies of one outcome, seen both ways.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// From the planned instant to the end of the answer: what the buyer felt.
    pub planned: Latencies,
    /// From the actual send: what is left when the wait before it is hidden.
    pub actual: Latencies,
}

/// Everything one thread measured.
#[derive(Debug)]
pub(crate) struct Recorder {
    outcomes: [Option<Box<Pair>>; Outcome::COUNT],
    /// Lateness of the generator itself: from the planned instant to the send, if a connection was free for it.
    pub lag: Latencies,
    /// Wait for a free connection, of those jobs that found none.
    pub connection_wait: Latencies,
    /// Answers by HTTP status; 0 counts those that never came.
    pub statuses: BTreeMap<u16, u64>,
    pub counts: Counts,
    /// The interval being filled.
    pub interval: Interval,
}

/// Plain counts of one thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Jobs of the plan that became due.
    pub planned: u64,
    /// Payments and polls that followed from answers.
    pub follow_ups: u64,
    /// Requests put on the wire, every resend and poll counted.
    pub sent: u64,
    /// Jobs of the plan whose first byte went out before the plan's end.
    pub sent_in_time: u64,
    /// Questions after a 202.
    pub polls: u64,
    /// Unknown purchases whose end was learnt by polling.
    pub polls_settled: u64,
    /// Payments tried again after a refusal that may pass.
    pub pay_retries: u64,
    pub connects: u64,
    /// Of those, opened to replace one that was closed.
    pub reconnects: u64,
    /// Connections that could not be opened.
    pub connects_failed: u64,
    /// Requests sent again because their connection closed under them.
    pub resends: u64,
    /// Jobs dropped because the run was stopped.
    pub dropped: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.planned += other.planned;
        self.follow_ups += other.follow_ups;
        self.sent += other.sent;
        self.sent_in_time += other.sent_in_time;
        self.polls += other.polls;
        self.polls_settled += other.polls_settled;
        self.pay_retries += other.pay_retries;
        self.connects += other.connects;
        self.reconnects += other.reconnects;
        self.connects_failed += other.connects_failed;
        self.resends += other.resends;
        self.dropped += other.dropped;
    }
}

impl Recorder {
    pub(crate) fn new() -> Recorder {
        Recorder {
            outcomes: [const { None }; Outcome::COUNT],
            lag: latencies(),
            connection_wait: latencies(),
            statuses: BTreeMap::new(),
            counts: Counts::default(),
            interval: Interval::default(),
        }
    }

    /// A job was taken `lag_ns` late for want of nothing but the generator's own time.
    pub(crate) fn taken(&mut self, lag_ns: u64) {
        self.lag.saturating_record(micros(lag_ns));
    }

    /// A job found every connection busy and waited so long.
    pub(crate) fn waited(&mut self, wait_ns: u64) {
        self.connection_wait.saturating_record(micros(wait_ns));
    }

    /// A request ended. `sent_ns` is when its first byte was due to go out; for what was never sent, the end itself.
    pub(crate) fn ended(&mut self, outcome: Outcome, planned_ns: u64, sent_ns: u64, done_ns: u64) {
        let from_planned = micros(done_ns.saturating_sub(planned_ns));
        let from_sent = micros(done_ns.saturating_sub(sent_ns));
        let pair = self.outcomes[outcome.index()].get_or_insert_with(|| {
            Box::new(Pair {
                planned: latencies(),
                actual: latencies(),
            })
        });
        pair.planned.saturating_record(from_planned);
        pair.actual.saturating_record(from_sent);
        self.interval.ended(outcome, from_planned);
    }

    /// Counts an answer's status; 0 if there was no answer.
    pub(crate) fn answered(&mut self, status: u16) {
        *self.statuses.entry(status).or_default() += 1;
    }

    /// The latencies of an outcome, if it occurred.
    pub(crate) fn outcome(&self, outcome: Outcome) -> Option<&Pair> {
        self.outcomes[outcome.index()].as_deref()
    }

    /// Adds what another thread measured.
    pub(crate) fn merge(&mut self, other: Recorder) {
        let fits = "all histograms have the same bounds";
        for (mine, theirs) in self.outcomes.iter_mut().zip(other.outcomes) {
            match (mine, theirs) {
                (_, None) => {}
                (Some(mine), Some(theirs)) => {
                    mine.planned.add(&theirs.planned).expect(fits);
                    mine.actual.add(&theirs.actual).expect(fits);
                }
                (mine @ None, theirs) => *mine = theirs,
            }
        }
        self.lag.add(&other.lag).expect(fits);
        self.connection_wait
            .add(&other.connection_wait)
            .expect(fits);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.counts.add(&other.counts);
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder::new()
    }
}

/// Nanoseconds to whole microseconds, rounded up: a latency is never shown shorter than it was.
pub(crate) fn micros(ns: u64) -> u64 {
    ns.div_ceil(1000)
}

/// A quantile of a histogram of microseconds.
pub(crate) fn quantile(latencies: &Latencies, q: f64) -> Duration {
    Duration::from_micros(latencies.value_at_quantile(q))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_stalled_server_shows_in_the_planned_column_only() {
        // One connection, a request every 10 ms, and the server stands still for one second at the first.
        let mut recorder = Recorder::new();
        let mut free_at = 0;
        for n in 0..100 {
            let planned = n * 10 * MS;
            let sent = planned.max(free_at);
            let service = if n == 0 { 1000 * MS } else { MS };
            free_at = sent + service;
            recorder.ended(Outcome::Accepted, planned, sent, free_at);
        }
        let pair = recorder.outcome(Outcome::Accepted).unwrap();
        assert_eq!(pair.planned.len(), 100);
        assert_eq!(pair.actual.len(), 100);
        // The hidden view: 99 of 100 took a millisecond. The honest one: half waited for half a second or more.
        assert!(quantile(&pair.actual, 0.9) <= Duration::from_millis(2));
        assert!(quantile(&pair.planned, 0.5) >= Duration::from_millis(500));
    }

    #[test]
    fn what_is_beyond_an_hour_is_kept_at_the_edge() {
        let mut recorder = Recorder::new();
        recorder.ended(Outcome::Timeout, 0, 0, u64::MAX);
        let pair = recorder.outcome(Outcome::Timeout).unwrap();
        assert_eq!(pair.planned.len(), 1);
        assert!(quantile(&pair.planned, 1.0) >= Duration::from_secs(3599));
    }

    #[test]
    fn merging_adds_every_count() {
        let (mut one, mut two) = (Recorder::new(), Recorder::new());
        one.ended(Outcome::PageOk, 0, 0, MS);
        two.ended(Outcome::PageOk, 0, 0, MS);
        two.ended(Outcome::Limited, 0, 0, MS);
        two.counts.sent = 2;
        one.merge(two);
        assert_eq!(one.outcome(Outcome::PageOk).unwrap().planned.len(), 2);
        assert_eq!(one.outcome(Outcome::Limited).unwrap().planned.len(), 1);
        assert_eq!(one.counts.sent, 2);
    }
}
