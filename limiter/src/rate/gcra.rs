//! The arithmetic of a token bucket: the generic cell rate algorithm (ITU-T I.371, annex A). Pure; times are nanoseconds since a start.
//!
//! A bucket is one number: when it will be full again (the algorithm's theoretical arrival time). A request moves that time one interval
//! ahead, and fits if it then lies no further ahead than the whole bucket takes to fill. Nothing has to be refilled by a timer.

use super::RateQuota;

/// A bucket's size and speed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gcra {
    /// What one request costs.
    interval: u64,
    /// What a full bucket is worth.
    fill_time: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It fits.
    Allowed {
        /// When the bucket will be full again.
        full_at: u64,
        /// How many more fit now.
        remaining: u32,
    },
    /// It would fit after this time.
    Limited { wait: u64 },
}

impl Gcra {
    pub(super) fn new(quota: RateQuota) -> Self {
        // A quota fills within a year: both are far below the end of the numbers.
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            interval: nanos(quota.interval()),
            fill_time: nanos(quota.fill_time()),
        }
    }

    /// Decides about a request at `now` of a bucket that is full at `full_at`; a new bucket is full at once.
    pub(super) fn decide(&self, full_at: u64, now: u64) -> Verdict {
        let full_at = full_at.max(now).saturating_add(self.interval);
        let limit = now.saturating_add(self.fill_time);
        match limit.checked_sub(full_at) {
            Some(left) => Verdict::Allowed {
                full_at,
                // Not more than the burst, which is a u32.
                remaining: (left / self.interval) as u32,
            },
            None => Verdict::Limited {
                wait: full_at - limit,
            },
        }
    }

    /// What one request costs, in nanoseconds.
    pub(super) fn interval(&self) -> u64 {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Gcra = Gcra {
        interval: 100,
        fill_time: 200,
    };

    #[test]
    fn a_burst_fits_and_the_next_waits_for_its_interval() {
        let first = PAIR.decide(0, 1_000);
        assert_eq!(
            first,
            Verdict::Allowed {
                full_at: 1_100,
                remaining: 1
            }
        );
        let second = PAIR.decide(1_100, 1_000);
        assert_eq!(
            second,
            Verdict::Allowed {
                full_at: 1_200,
                remaining: 0
            }
        );
        assert_eq!(PAIR.decide(1_200, 1_000), Verdict::Limited { wait: 100 });
        assert_eq!(PAIR.decide(1_200, 1_099), Verdict::Limited { wait: 1 });
        let third = PAIR.decide(1_200, 1_100);
        assert_eq!(
            third,
            Verdict::Allowed {
                full_at: 1_300,
                remaining: 0
            }
        );
    }

    #[test]
    fn the_end_of_time_lets_through() {
        let last = PAIR.decide(0, u64::MAX);
        assert_eq!(
            last,
            Verdict::Allowed {
                full_at: u64::MAX,
                remaining: 0
            }
        );
    }
}
