//! The store's time: the wall clock, guarded against its steps. Pure: both clocks come in as numbers.
//!
//! Windows and times to pay hang on this. A clock that is set back must not open a window again that has ended, nor give an order
//! of now an earlier time to pay than one of before; one that jumps ahead by mistake must not end every sale of the day.

/// Steps ahead of the monotonic clock up to this are followed at once: drift and a slewing daemon stay far below it.
const STEP_MS: u64 = 2_000;
/// A larger step ahead is followed when it has lasted so long. A mistake that is corrected sooner is never seen; a machine that was
/// suspended, where the step is real, sells by the old time for so long.
const LASTING_MS: u64 = 30_000;

/// What the guard thinks of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skew {
    /// It is followed.
    None,
    /// It is behind what the store has said already by so many milliseconds: the store's time goes on at half pace until the wall
    /// clock has caught up.
    Behind(u64),
    /// It has jumped ahead by so many milliseconds a moment ago: not followed yet.
    Ahead(u64),
}

/// The guard.
pub(super) struct ClockGuard {
    /// What was said last, and when by the monotonic clock. Nothing yet: the first reading is believed.
    last: Option<(u64, u64)>,
    /// What must never be gone below: the newest time in the journal.
    floor_ms: u64,
    /// Since when, by the monotonic clock, the wall clock is ahead.
    ahead_since: Option<u64>,
    skew: Skew,
}

impl ClockGuard {
    /// Begins at the newest time that the journal knows.
    pub(super) fn new(floor_ms: u64) -> Self {
        Self {
            last: None,
            floor_ms,
            ahead_since: None,
            skew: Skew::None,
        }
    }

    /// The time, given both clocks in milliseconds. Never less than the time before.
    pub(super) fn read(&mut self, wall_ms: u64, monotonic_ms: u64) -> u64 {
        let (before, passed) = match self.last {
            Some((said, at)) => (said, monotonic_ms.saturating_sub(at)),
            // There is nothing to compare a first reading with but the journal.
            None => (self.floor_ms, wall_ms.saturating_sub(self.floor_ms)),
        };
        let expected = before.saturating_add(passed);
        let is_ahead = wall_ms > expected.saturating_add(STEP_MS);
        let since = match (is_ahead, self.ahead_since) {
            (false, _) => None,
            (true, since) => Some(since.unwrap_or(monotonic_ms)),
        };
        self.ahead_since = since;
        let is_lasting =
            since.is_some_and(|since| monotonic_ms.saturating_sub(since) >= LASTING_MS);
        let (now, skew) = if is_ahead && !is_lasting {
            (expected, Skew::Ahead(wall_ms - expected))
        } else if wall_ms.saturating_add(STEP_MS) < expected {
            let now = before.saturating_add(passed / 2).max(wall_ms);
            (now, Skew::Behind(now - wall_ms))
        } else {
            // A jitter of milliseconds is no step, but goes back no more than one.
            (wall_ms.max(before), Skew::None)
        };
        if is_lasting {
            self.ahead_since = None;
        }
        self.skew = skew;
        self.last = Some((now, monotonic_ms));
        now
    }

    /// What the last reading made of the wall clock.
    pub(super) fn skew(&self) -> Skew {
        self.skew
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;

    #[test]
    fn an_ordinary_clock_is_followed() {
        let mut guard = ClockGuard::new(0);
        for ms in [0, 1, 500, 501, 90_000] {
            assert_eq!(guard.read(T + ms, 7 + ms), T + ms);
        }
        assert_eq!(guard.skew(), Skew::None);
    }

    #[test]
    fn a_step_back_slows_time_down_until_it_is_caught_up() {
        let mut guard = ClockGuard::new(0);
        guard.read(T, 0);
        let mut before = T;
        for second in 1..=10 {
            let now = guard.read(T - 5_000 + second * 1_000, second * 1_000);
            assert!(now >= before, "never back");
            assert!(now <= T + second * 500, "at half pace");
            before = now;
        }
        assert_eq!(
            guard.read(T - 5_000 + 11_000, 11_000),
            T + 6_000,
            "and then the wall clock again"
        );
        assert_eq!(guard.skew(), Skew::None);
    }

    #[test]
    fn a_step_ahead_that_is_corrected_is_never_seen() {
        let mut guard = ClockGuard::new(0);
        guard.read(T, 0);
        assert_eq!(guard.read(T + HOUR + 1_000, 1_000), T + 1_000);
        assert_eq!(guard.skew(), Skew::Ahead(HOUR));
        assert_eq!(guard.read(T + 20_000, 20_000), T + 20_000);
        assert_eq!(guard.skew(), Skew::None);
    }

    #[test]
    fn a_step_ahead_that_lasts_is_followed() {
        let mut guard = ClockGuard::new(0);
        guard.read(T, 0);
        for second in 1..=30 {
            let at = second * 1_000;
            assert_eq!(guard.read(T + HOUR + at, at), T + at);
        }
        assert_eq!(guard.read(T + HOUR + 31_000, 31_000), T + HOUR + 31_000);
    }

    #[test]
    fn a_restart_with_a_clock_set_back_does_not_go_below_the_journal() {
        let mut guard = ClockGuard::new(T);
        assert_eq!(guard.read(T - HOUR, 0), T);
        assert_eq!(guard.skew(), Skew::Behind(HOUR));
        let mut fresh = ClockGuard::new(T);
        assert_eq!(fresh.read(T + HOUR, 0), T + HOUR, "it was down for an hour");
    }

    proptest! {
        #[test]
        fn time_never_goes_back(steps in prop::collection::vec((0u64..100_000, 0u64..4 * HOUR), 1..200)) {
            let mut guard = ClockGuard::new(T);
            let (mut monotonic, mut before) = (0, 0);
            for (passed, wall) in steps {
                monotonic += passed;
                let now = guard.read(T - 2 * HOUR + wall, monotonic);
                prop_assert!(now >= before);
                before = now;
            }
        }
    }
}
