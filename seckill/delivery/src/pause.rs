//! When a receiver that failed may be asked again. The times are arguments.

use tokio::time::Instant;

use limiter::backoff::Backoff;

/// The pause of one receiver.
#[derive(Debug)]
pub(super) struct Pause {
    backoff: Backoff,
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            failures: 0,
            until: None,
        }
    }

    /// The receiver failed as a whole: the nth failure in a row is followed by the nth wait. Calls that began before this one
    /// was known tell nothing new. `unit` is uniform in 0..1.
    pub(super) fn failed(&mut self, now: Instant, unit: f64) {
        if self.until.is_none_or(|until| until <= now) {
            self.failures = self.failures.saturating_add(1);
            self.until = Some(now + self.backoff.wait(self.failures, unit));
        }
    }

    /// The receiver sent `Retry-After`; the longest counts.
    pub(super) fn at_least(&mut self, until: Instant) {
        self.until = Some(self.until.map_or(until, |earlier| earlier.max(until)));
    }

    /// The receiver took something. A `Retry-After` stays in force.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }

    /// When to ask again, if not now.
    pub(super) fn ends(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pause() -> Pause {
        Pause::new(Backoff {
            first: SECOND,
            max: 4 * SECOND,
        })
    }

    #[test]
    fn failures_in_a_row_wait_longer_and_success_forgets_them() {
        let (mut pause, mut now) = (pause(), Instant::now());
        assert_eq!(pause.ends(now), None);
        for seconds in [1, 2, 4, 4] {
            pause.failed(now, 1.0);
            assert_eq!(pause.ends(now), Some(now + seconds * SECOND));
            now += seconds * SECOND;
            assert_eq!(pause.ends(now), None, "the end itself is not paused");
        }
        pause.worked();
        pause.failed(now, 1.0);
        assert_eq!(pause.ends(now), Some(now + SECOND));
    }

    #[test]
    fn calls_that_fail_together_count_once() {
        let (mut pause, now) = (pause(), Instant::now());
        for _ in 0..16 {
            pause.failed(now, 1.0);
        }
        assert_eq!(pause.ends(now), Some(now + SECOND));
    }

    #[test]
    fn the_longest_retry_after_counts_and_outlives_a_success() {
        let (mut pause, now) = (pause(), Instant::now());
        pause.at_least(now + 9 * SECOND);
        pause.at_least(now + 3 * SECOND);
        pause.worked();
        assert_eq!(pause.ends(now), Some(now + 9 * SECOND));
    }
}
