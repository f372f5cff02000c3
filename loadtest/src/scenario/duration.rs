//! Durations as people write them: `250us`, `250ms`, `30s`, `1.5m`, `1h`.

use std::time::Duration;

/// Reads a number followed by `us`, `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.trim().parse().ok()?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// Writes a duration with the largest unit that keeps it readable.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 1.0 || duration.is_zero() {
        format!("{seconds}s")
    } else if seconds >= 1e-3 {
        format!("{}ms", round3(seconds * 1e3))
    } else {
        format!("{}us", round3(seconds * 1e6))
    }
}

fn round3(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        assert_eq!(parse_duration("250us"), Some(Duration::from_micros(250)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5m"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
    }

    #[test]
    fn a_bare_number_a_sign_or_a_strange_unit_is_refused() {
        for text in ["30", "-1s", "1d", "s", "", "NaNs", "1 fortnight"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn formatting_reads_back() {
        for text in ["250ms", "30s", "250us", "0s"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(format_duration(duration), text);
        }
    }
}
