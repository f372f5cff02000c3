//! Wall time as an argument: the crate never asks the system itself, so tests decide what time it is.

use std::{fmt, sync::Arc, time::Duration};

/// Reads unix milliseconds.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How long after the newest time on record a clock may be at a start. A machine that was off for a month simply starts, and so does one
/// that sells once a year; a clock chip that says 2099 does not.
const OFF_FOR: Duration = Duration::from_secs(400 * 24 * 3600);
/// How far it may be behind that time. What a time server corrects is milliseconds; hours are a wrong time zone, or a clock that was
/// wrong before and is right now.
const BEHIND_BY: Duration = Duration::from_secs(3600);

/// A clock that cannot be believed at a start, by the newest time on record. The operator sets it right, or says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongClock {
    /// It is that much later: time would never go back to today.
    #[error("the clock is {} ahead of the newest time on record; {WAY_ON}", Rough(*.0))]
    Ahead(Duration),
    /// It is that much earlier: windows that have ended would open again.
    #[error("the clock is {} behind the newest time on record; {WAY_ON}", Rough(*.0))]
    Behind(Duration),
}

const WAY_ON: &str = "set it right, or, if it is, start once with penstock serve --accept-clock";

/// Whether a clock can be right at a start, by the newest time on record; 0 where there is none.
pub fn check_at_start(newest_ms: u64, now_ms: u64) -> Result<(), WrongClock> {
    let ahead = Duration::from_millis(now_ms.saturating_sub(newest_ms));
    let behind = Duration::from_millis(newest_ms.saturating_sub(now_ms));
    if newest_ms > 0 && ahead > OFF_FOR {
        return Err(WrongClock::Ahead(ahead));
    }
    if behind > BEHIND_BY {
        return Err(WrongClock::Behind(behind));
    }
    Ok(())
}

/// In days or in hours, so that the same trouble is told in the same words while it lasts.
struct Rough(Duration);

impl fmt::Display for Rough {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() / 3600 {
            hours if hours < 48 => write!(out, "{hours} h"),
            hours => write!(out, "{} days", hours / 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;

    #[test]
    fn a_machine_that_was_off_for_a_month_or_a_year_simply_starts() {
        for now_ms in [T - HOUR, T, T + 31 * DAY, T + 366 * DAY] {
            assert_eq!(check_at_start(T, now_ms), Ok(()));
        }
        assert_eq!(check_at_start(0, T), Ok(()), "nothing is on record");
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_told_with_a_way_on() {
        let ahead = check_at_start(T, T + 26_417 * DAY).unwrap_err().to_string();
        assert!(ahead.contains("26417 days ahead"), "{ahead}");
        let behind = check_at_start(T, T - 8 * HOUR).unwrap_err().to_string();
        assert!(behind.contains("8 h behind"), "{behind}");
        assert!(behind.contains("--accept-clock"), "{behind}");
        assert!(check_at_start(T, 0).is_err(), "1970");
    }
}
