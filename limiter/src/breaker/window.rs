//! An exact sliding window of outcomes, in time slots. Exact, not decayed: an average weighted by arrivals can hide a short
//! outage between two busy spells.

use std::time::Duration;

use tokio::time::Instant;

/// Counts of the last `slots` time slots, the current one included.
#[derive(Clone, Debug)]
pub(super) struct Window {
    slots: Box<[Counts]>,
    slot: Duration,
    start: Instant,
    /// Number of the newest slot since `start`; its counts are in `slots[head % slots.len()]`.
    head: u64,
    /// The sum of all slots, kept up so that no answer pays for adding them.
    total: Counts,
}

/// Answers of some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) failures: u64,
}

impl Window {
    pub(super) fn new(slots: usize, slot: Duration, start: Instant) -> Self {
        Self {
            slots: vec![Counts::default(); slots].into_boxed_slice(),
            slot,
            start,
            head: 0,
            total: Counts::default(),
        }
    }

    /// Adds one answer and returns what the window now holds.
    pub(super) fn record(&mut self, is_failure: bool, now: Instant) -> Counts {
        self.advance(now);
        let failures = u64::from(is_failure);
        let at = self.position(self.head);
        for counts in [&mut self.slots[at], &mut self.total] {
            counts.requests += 1;
            counts.failures += failures;
        }
        self.total
    }

    /// Lets old slots go. Time that steps back (two cores read their clocks around one lock) belongs to the newest slot.
    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start);
        let current = (elapsed.as_nanos() / self.slot.as_nanos()) as u64;
        if current <= self.head {
            return;
        }
        // After a pause longer than the window every slot goes once.
        let steps = (current - self.head).min(self.slots.len() as u64);
        for step in 0..steps {
            let at = self.position(current - step);
            let gone = std::mem::take(&mut self.slots[at]);
            self.total.requests -= gone.requests;
            self.total.failures -= gone.failures;
        }
        self.head = current;
    }

    fn position(&self, slot_number: u64) -> usize {
        (slot_number % self.slots.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_equal_a_naive_model(
            slots in 1usize..12,
            slot_ms in 1u64..50,
            answers in prop::collection::vec((0u64..200, any::<bool>()), 1..300),
        ) {
            let start = Instant::now();
            let mut window = Window::new(slots, Duration::from_millis(slot_ms), start);
            let mut history: Vec<(u64, bool)> = Vec::new();
            let mut now_ms = 0;
            for (wait_ms, is_failure) in answers {
                // Mostly within the window, sometimes far beyond it.
                now_ms += if wait_ms > 190 { wait_ms * 10 } else { wait_ms / 10 };
                let current = now_ms / slot_ms;
                history.push((current, is_failure));
                let held = history.iter().filter(|(slot, _)| slot + slots as u64 > current);
                let expected = Counts {
                    requests: held.clone().count() as u64,
                    failures: held.filter(|(_, is_failure)| *is_failure).count() as u64,
                };
                let now = start + Duration::from_millis(now_ms);
                prop_assert_eq!(window.record(is_failure, now), expected);
            }
        }
    }

    #[test]
    fn time_that_steps_back_counts_in_the_newest_slot() {
        let start = Instant::now();
        let mut window = Window::new(2, Duration::from_secs(1), start);
        window.record(false, start + Duration::from_secs(5));
        let counts = window.record(true, start);
        assert_eq!((counts.requests, counts.failures), (2, 1));
    }
}
