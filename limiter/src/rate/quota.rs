//! What a client may do: so many requests per time, with a burst. Values only, checked once when the configuration is read.

use std::{fmt, num::NonZeroU32, time::Duration};

/// A bucket that takes longer than this to fill is refused: its owner meant something else, and the
/// nanosecond arithmetic must stay far from its end.
const FILL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A token bucket's size and speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateQuota {
    rate: NonZeroU32,
    per: Duration,
    burst: NonZeroU32,
}

/// Why a quota cannot be used. The configuration is at fault; each message names the allowed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateQuotaError {
    /// More than one request per nanosecond. Lower the rate.
    #[error("rate too high: at most one request per nanosecond")]
    TooFast,
    /// An empty bucket would take over a year to fill. Raise the rate or lower the burst.
    #[error("rate too low for its burst: an empty bucket must fill within 366 days")]
    TooSlow,
}

impl RateQuota {
    /// A bucket of `burst` requests that `rate` requests per `per` refill.
    pub fn try_new(
        rate: NonZeroU32,
        per: Duration,
        burst: NonZeroU32,
    ) -> Result<Self, RateQuotaError> {
        let interval = per / rate.get();
        if interval.is_zero() {
            return Err(RateQuotaError::TooFast);
        }
        match interval.checked_mul(burst.get()) {
            Some(fill) if fill <= FILL_MAX => Ok(Self { rate, per, burst }),
            _ => Err(RateQuotaError::TooSlow),
        }
    }

    /// The bucket's size: how many requests may come at once.
    pub fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// The time one request takes to come back.
    pub fn interval(&self) -> Duration {
        self.per / self.rate.get()
    }

    /// The time an empty bucket takes to fill.
    pub fn fill_time(&self) -> Duration {
        self.interval() * self.burst.get()
    }
}

impl fmt::Display for RateQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?} burst {}", self.rate, self.per, self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_out_of_range_are_refused() {
        let one = NonZeroU32::MIN;
        let max = NonZeroU32::MAX;
        let second = Duration::from_secs(1);
        assert_eq!(
            RateQuota::try_new(max, second, one),
            Err(RateQuotaError::TooFast)
        );
        assert_eq!(
            RateQuota::try_new(one, Duration::ZERO, one),
            Err(RateQuotaError::TooFast)
        );
        assert_eq!(
            RateQuota::try_new(one, second, max),
            Err(RateQuotaError::TooSlow)
        );
        assert_eq!(
            RateQuota::try_new(one, Duration::MAX, max),
            Err(RateQuotaError::TooSlow)
        );
    }

    #[test]
    fn fill_time_is_burst_times_interval() {
        let count = |count| NonZeroU32::new(count).unwrap();
        let quota = RateQuota::try_new(count(100), Duration::from_secs(1), count(200)).unwrap();
        assert_eq!(quota.interval(), Duration::from_millis(10));
        assert_eq!(quota.fill_time(), Duration::from_secs(2));
    }
}
