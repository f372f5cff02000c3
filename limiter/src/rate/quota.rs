//! What a client may do: so many requests per time, with a burst. Values only, checked once when the configuration is read.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

/// A bucket that takes longer than this to fill is refused: its owner meant something else, and the
/// nanosecond arithmetic must stay far from its end.
const FILL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// How often: `count` requests per `per`. Written `100/s`, `10/m`, `1000/h` or `5/250ms` in configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many requests the time span replenishes.
    pub count: NonZeroU32,
    /// The time span, never zero when parsed.
    pub per: Duration,
}

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
    /// The text is not `<count>/<time>`. Write for example `100/s`.
    #[error("not a rate: expected <count>/<time> such as 100/s, 10/m or 5/250ms")]
    Syntax,
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

    /// A bucket for a parsed [`Rate`].
    pub fn try_from_rate(rate: Rate, burst: NonZeroU32) -> Result<Self, RateQuotaError> {
        Self::try_new(rate.count, rate.per, burst)
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

impl FromStr for Rate {
    type Err = RateQuotaError;

    fn from_str(text: &str) -> Result<Self, RateQuotaError> {
        let (count, span) = text.split_once('/').ok_or(RateQuotaError::Syntax)?;
        let count = count.trim().parse().map_err(|_| RateQuotaError::Syntax)?;
        let span = span.trim();
        let unit_at = span
            .find(|c: char| !c.is_ascii_digit())
            .ok_or(RateQuotaError::Syntax)?;
        let (amount, unit) = span.split_at(unit_at);
        let amount: u64 = match amount {
            "" => 1,
            digits => digits.parse().map_err(|_| RateQuotaError::Syntax)?,
        };
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(RateQuotaError::Syntax),
        };
        match amount.checked_mul(unit_ms) {
            None | Some(0) => Err(RateQuotaError::Syntax),
            Some(per_ms) => Ok(Self {
                count,
                per: Duration::from_millis(per_ms),
            }),
        }
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

    fn rate(count: u32, per: Duration) -> Rate {
        Rate {
            count: NonZeroU32::new(count).unwrap(),
            per,
        }
    }

    #[test]
    fn rates_are_read_as_written() {
        let second = Duration::from_secs(1);
        assert_eq!("100/s".parse(), Ok(rate(100, second)));
        assert_eq!("10/m".parse(), Ok(rate(10, 60 * second)));
        assert_eq!(" 7 / 2h ".parse(), Ok(rate(7, 7200 * second)));
        assert_eq!("5/250ms".parse(), Ok(rate(5, second / 4)));
    }

    #[test]
    fn bad_rates_are_refused() {
        for text in [
            "",
            "100",
            "100/",
            "0/s",
            "-1/s",
            "1/0s",
            "1/s/s",
            "1/fortnight",
            "4294967296/s",
            "1/18446744073709551615d",
            "1/99999999999999999999s",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(RateQuotaError::Syntax), "{text}");
        }
    }

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
        let quota =
            RateQuota::try_from_rate("100/s".parse().unwrap(), NonZeroU32::new(200).unwrap())
                .unwrap();
        assert_eq!(quota.interval(), Duration::from_millis(10));
        assert_eq!(quota.fill_time(), Duration::from_secs(2));
    }
}
