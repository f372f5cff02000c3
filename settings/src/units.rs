//! The one grammar of values with a unit: durations (`250ms`), sizes (`64KiB`) and rates (`100/s`), and how they are shown.
//!
//! A value is a whole number and its unit, with nothing between them. Fractions are written in a smaller unit: `90s`, not `1.5m`.

use std::{fmt, num::NonZeroU32, time::Duration};

/// The form of a duration, for messages.
pub const DURATION: &str = "a time such as \"250ms\" or \"30s\"";
/// The form of a size, for messages.
pub const SIZE: &str = "a size such as \"64KiB\"";
/// The form of a rate, for messages.
pub const RATE: &str = "<count>/<time> such as 100/s or 30/m";

/// In microseconds, the largest first.
const TIMES: [(u64, &str); 6] = [
    (86_400_000_000, "d"),
    (3_600_000_000, "h"),
    (60_000_000, "m"),
    (1_000_000, "s"),
    (1_000, "ms"),
    (1, "us"),
];
/// In bytes, the largest first.
const SIZES: [(u64, &str); 4] = [
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
];

/// A time, shown with the largest unit that divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// Bytes, shown with the largest unit that divides them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// How often: `count` per `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In which time; never zero.
    pub per: Duration,
}

/// Reads `250us`, `250ms`, `30s`, `15m`, `2h`, `1d`.
pub fn duration(text: &str) -> Option<Duration> {
    with_unit(text, &TIMES).map(Duration::from_micros)
}

/// Reads a duration in whole milliseconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    let us = with_unit(text, &TIMES)?;
    us.is_multiple_of(1_000).then_some(us / 1_000)
}

/// Reads `512B`, `64KiB`, `10MiB`, `1GiB`.
pub fn size(text: &str) -> Option<u64> {
    with_unit(text, &SIZES)
}

/// Reads `100/s`, `30/m`, `5/250ms`.
pub fn rate(text: &str) -> Option<Rate> {
    let (count, span) = text.split_once('/')?;
    let per = match span.starts_with(|c: char| c.is_ascii_digit()) {
        true => duration(span)?,
        false => duration(&format!("1{span}"))?,
    };
    let count = digits(count)?.try_into().ok().and_then(NonZeroU32::new)?;
    (!per.is_zero()).then_some(Rate { count, per })
}

fn with_unit(text: &str, units: &[(u64, &str)]) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, name) = text.split_at(at);
    let (factor, _) = units.iter().find(|(_, unit)| *unit == name)?;
    digits(number)?.checked_mul(*factor)
}

/// A number without a sign, which `parse` would take.
fn digits(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn show(f: &mut fmt::Formatter<'_>, number: u64, units: &[(u64, &str)], zero: &str) -> fmt::Result {
    match units
        .iter()
        .find(|(unit, _)| number >= *unit && number.is_multiple_of(*unit))
    {
        Some((unit, name)) => write!(f, "{}{name}", number / unit),
        None => f.write_str(zero),
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        show(f, us, &TIMES, "0s")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &SIZES, "0B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        for (text, us) in [
            ("250us", 250),
            ("250ms", 250_000),
            ("30s", 30_000_000),
            ("2h", 7_200_000_000),
            ("7d", 604_800_000_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_micros(us)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "5 s",
            " 5s",
            "1 year",
            "1min",
            "18446744073709551615d",
            "99999999999999999999s",
        ] {
            assert_eq!(duration(text), None, "{text}");
            assert_eq!(duration_ms(text), None, "{text}");
        }
        assert_eq!(duration_ms("2h"), Some(7_200_000));
        assert_eq!(duration_ms("1500us"), None);
    }

    #[test]
    fn sizes_are_read_as_written() {
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("0B"), Some(0));
        for text in [
            "",
            "5",
            "KiB",
            "1KB",
            "-1MiB",
            "1 KiB",
            "18446744073709551615GiB",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn rates_are_read_as_written() {
        let second = Duration::from_secs(1);
        for (text, count, per) in [
            ("100/s", 100, second),
            ("10/m", 10, 60 * second),
            ("7/2h", 7, 7200 * second),
            ("5/250ms", 5, second / 4),
        ] {
            let count = NonZeroU32::new(count).unwrap();
            assert_eq!(rate(text), Some(Rate { count, per }), "{text}");
        }
        for text in [
            "",
            "100",
            "100/",
            "0/s",
            "-1/s",
            "+1/s",
            "1/0s",
            "1/s/s",
            "1/min",
            "1 / s",
            "1/fortnight",
            "4294967296/s",
            "1/18446744073709551615d",
            "1/99999999999999999999s",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["250us", "1500ms", "90s", "1h", "2d", "0s"] {
            assert_eq!(Time(duration(text).unwrap()).to_string(), text);
        }
        assert_eq!(Time(duration("3600s").unwrap()).to_string(), "1h");
        for text in ["0B", "1500B", "1MiB", "1024GiB"] {
            assert_eq!(Size(size(text).unwrap()).to_string(), text);
        }
    }
}
