//! How long to wait after the nth failure in a row: exponential, bounded, spread by the caller's random number.

use std::time::Duration;

/// The bounds of the waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait after the first failure.
    pub first: Duration,
    /// Longest wait ever.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row. `unit` is uniform in 0..1; half of the wait is random, so that many callers
    /// that failed together do not come back together, and none comes back at once.
    pub fn wait(&self, failures: u32, unit: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let bound = self.first.saturating_mul(1 << doublings).min(self.max);
        bound.mul_f64(0.5 + 0.5 * unit.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_are_never_below_half() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            max: Duration::from_secs(1),
        };
        assert_eq!(backoff.wait(1, 1.0), Duration::from_millis(100));
        assert_eq!(backoff.wait(2, 0.0), Duration::from_millis(100));
        assert_eq!(backoff.wait(3, 1.0), Duration::from_millis(400));
        assert_eq!(backoff.wait(u32::MAX, 1.0), Duration::from_secs(1));
        assert_eq!(backoff.wait(0, 0.0), Duration::from_millis(50));
    }
}
