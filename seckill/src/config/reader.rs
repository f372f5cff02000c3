//! Reading values of the table while collecting every problem.

use std::{io, path::Path, time::Duration};

use crate::sale::parse_duration_ms;

/// The problems so far, and what reading a value may touch.
pub(super) struct Reader<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        env: &'a dyn Fn(&str) -> Option<String>,
        read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Self {
        Self {
            env,
            read,
            problems: Vec::new(),
        }
    }

    /// Notes a problem of `seckill.key`.
    pub(super) fn bad(&mut self, key: &str, value: &str, allowed: &str) {
        self.problems
            .push(format!("seckill.{key} = \"{value}\": {allowed}"));
    }

    /// The value, if nothing was wrong with anything.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<String>> {
        match (self.problems.is_empty(), value) {
            (true, Some(value)) => Ok(value),
            _ => Err(self.problems),
        }
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        text: Option<&str>,
        default: Duration,
        range_ms: std::ops::RangeInclusive<u64>,
    ) -> Duration {
        let Some(text) = text else { return default };
        match parse_duration_ms(text).filter(|ms| range_ms.contains(ms)) {
            Some(ms) => Duration::from_millis(ms),
            None => {
                let (min, max) = (range_ms.start(), range_ms.end());
                self.bad(
                    key,
                    text,
                    &format!("must be a duration from {min}ms to {max}ms, as in 250ms or 30s"),
                );
                default
            }
        }
    }

    /// A whole number of things.
    pub(super) fn count(
        &mut self,
        key: &str,
        number: Option<i64>,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> usize {
        let Some(number) = number else { return default };
        match usize::try_from(number).ok().filter(|n| range.contains(n)) {
            Some(count) => count,
            None => {
                let (min, max) = (range.start(), range.end());
                let allowed = format!("must be a whole number from {min} to {max}");
                self.bad(key, &number.to_string(), &allowed);
                default
            }
        }
    }

    /// A number of bytes with its unit.
    pub(super) fn size(
        &mut self,
        key: &str,
        text: Option<&str>,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let Some(text) = text else { return default };
        let parsed = UNITS.iter().find_map(|(unit, factor)| {
            let number = text.strip_suffix(unit)?;
            number.parse::<u64>().ok()?.checked_mul(*factor)
        });
        match parsed.filter(|bytes| range.contains(bytes)) {
            Some(bytes) => bytes,
            None => {
                let (min, max) = (range.start() >> 10, range.end() >> 30);
                self.bad(
                    key,
                    text,
                    &format!("must be a size from {min}KiB to {max}GiB, as in 64MiB or 1GiB"),
                );
                default
            }
        }
    }

    /// A secret out of `KEY_file` or `KEY_env`, white space around it ignored. Neither is no secret; both are a problem.
    pub(super) fn secret(
        &mut self,
        key: &str,
        file: Option<&Path>,
        env: Option<&str>,
    ) -> Option<Vec<u8>> {
        let found = match (file, env) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.bad(
                    key,
                    "…",
                    &format!("must be given once, by {key}_file or by {key}_env"),
                );
                return None;
            }
            (Some(path), None) => match (self.read)(path) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    self.bad(
                        &format!("{key}_file"),
                        &path.display().to_string(),
                        &format!("must be readable ({error})"),
                    );
                    return None;
                }
            },
            (None, Some(name)) => (self.env)(name).map(String::into_bytes),
        };
        let found = found
            .map(|bytes| bytes.trim_ascii().to_vec())
            .filter(|bytes| !bytes.is_empty());
        if found.is_none() {
            let place = file.map_or_else(
                || env.unwrap_or_default().to_owned(),
                |path| path.display().to_string(),
            );
            self.bad(key, &place, "must hold the secret, and is empty or not set");
        }
        found
    }
}
