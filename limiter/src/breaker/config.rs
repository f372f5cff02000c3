//! When a breaker trips and how it comes back. Every number has a default with its reason and a range that is checked once.

use std::{num::NonZeroU32, time::Duration};

/// Ten slots of a second: long enough for a ratio at moderate traffic, short enough that an outage shows within seconds.
const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(1);

/// Below this the ratio is noise: one failure of two is no outage.
const MIN_REQUESTS: u32 = 20;

/// Half the answers failing is an endpoint that is down for its users, whatever the cause.
const FAILURE_RATIO: f64 = 0.5;

/// Trips a dead endpoint at low traffic, where the ratio never gets its minimum.
const CONSECUTIVE_FAILURES: u32 = 5;

/// A restart of a process takes about a second; asking sooner fails again.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// An endpoint that is back is found within half a minute.
const OPEN_FOR_MAX: Duration = Duration::from_secs(2);

/// A probe without an answer by then has failed.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// A window has a handful of slots; above this somebody mistook slots for seconds.
const SLOTS_MAX: usize = 3600;

/// Instants must stay representable when a wait is added to them.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// When a breaker trips and how it comes back. Start from [`Default`] and set what differs; [`checked`](Self::checked)
/// before use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Slots of the sliding window, 1..=3600. The window is `slots × slot` long.
    pub slots: usize,
    /// Width of a slot, 1 ms..=24 h: the grain at which old answers leave the window.
    pub slot: Duration,
    /// Answers the window must hold before the ratio counts.
    pub min_requests: NonZeroU32,
    /// Share of failures in the window that trips, above 0 and at most 1.
    pub failure_ratio: f64,
    /// Failures in a row that trip, whatever the window holds; `None` = the ratio alone.
    pub consecutive_failures: Option<NonZeroU32>,
    /// How long the first trip refuses, 1 ms..=24 h. Doubles with every trip in a row.
    pub open_for: Duration,
    /// The most a trip refuses, `open_for`..=24 h.
    pub open_for_max: Duration,
    /// The answer to a probe must come within, 1 ms..=24 h.
    pub probe_deadline: Duration,
}

/// A value out of its range. The configuration is at fault; the message names the field and the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakerConfigError {
    /// See [`BreakerConfig::slots`].
    #[error("slots must be 1 to 3600")]
    Slots,
    /// See [`BreakerConfig::slot`].
    #[error("slot must be 1ms to 24h")]
    Slot,
    /// See [`BreakerConfig::failure_ratio`].
    #[error("failure_ratio must be above 0 and at most 1")]
    FailureRatio,
    /// See [`BreakerConfig::open_for`].
    #[error("open_for must be 1ms to 24h")]
    OpenFor,
    /// See [`BreakerConfig::open_for_max`].
    #[error("open_for_max must be open_for to 24h")]
    OpenForMax,
    /// See [`BreakerConfig::probe_deadline`].
    #[error("probe_deadline must be 1ms to 24h")]
    ProbeDeadline,
}

impl BreakerConfig {
    /// All that is out of range, so that the operator sees every problem at once.
    pub fn problems(&self) -> Vec<BreakerConfigError> {
        use BreakerConfigError::*;
        let waits = Duration::from_millis(1)..=WAIT_MAX;
        let checks = [
            ((1..=SLOTS_MAX).contains(&self.slots), Slots),
            (waits.contains(&self.slot), Slot),
            (
                self.failure_ratio > 0.0 && self.failure_ratio <= 1.0,
                FailureRatio,
            ),
            (waits.contains(&self.open_for), OpenFor),
            (
                self.open_for_max >= self.open_for && self.open_for_max <= WAIT_MAX,
                OpenForMax,
            ),
            (waits.contains(&self.probe_deadline), ProbeDeadline),
        ];
        checks
            .into_iter()
            .filter_map(|(is_fine, problem)| (!is_fine).then_some(problem))
            .collect()
    }

    /// This configuration, or the first problem with it.
    pub fn checked(self) -> Result<Self, BreakerConfigError> {
        match self.problems().first() {
            None => Ok(self),
            Some(problem) => Err(*problem),
        }
    }

    /// The whole window's length.
    pub fn window(&self) -> Duration {
        self.slot * self.slots as u32
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            slots: SLOTS,
            slot: SLOT,
            min_requests: NonZeroU32::new(MIN_REQUESTS).expect("not zero"),
            failure_ratio: FAILURE_RATIO,
            consecutive_failures: NonZeroU32::new(CONSECUTIVE_FAILURES),
            open_for: OPEN_FOR,
            open_for_max: OPEN_FOR_MAX,
            probe_deadline: PROBE_DEADLINE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(BreakerConfig::default().problems(), []);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let config = BreakerConfig {
            slots: 0,
            slot: Duration::ZERO,
            failure_ratio: f64::NAN,
            open_for: Duration::from_secs(60),
            open_for_max: Duration::from_secs(59),
            probe_deadline: Duration::MAX,
            ..BreakerConfig::default()
        };
        use BreakerConfigError::*;
        assert_eq!(
            config.problems(),
            [Slots, Slot, FailureRatio, OpenForMax, ProbeDeadline]
        );
        assert_eq!(config.checked(), Err(Slots));
    }
}
