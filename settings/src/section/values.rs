//! The values of a section by type and range. What is wrong is noted, and then there is no value.

use std::{fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use toml::Value;

use super::Section;
use crate::{
    one_of,
    units::{self, Rate, Size, Time},
};

impl Section<'_> {
    /// A text.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text.clone()),
            _ => self.wrong(key, "must be a text in quotes"),
        }
    }

    /// A text that is read by a function; `what` is its form.
    pub fn parsed<T>(
        &self,
        key: &str,
        what: impl fmt::Display,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(&text).or_else(|| self.wrong(key, format_args!("must be {what}")))
    }

    /// The path of a file or folder. Nothing is opened.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Boolean(flag) => Some(*flag),
            _ => self.wrong(key, "must be true or false"),
        }
    }

    /// A whole number within a range.
    pub fn integer<T>(&self, key: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let found = self.value(key)?.as_integer();
        found
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .or_else(|| {
                let (low, high) = (range.start(), range.end());
                self.wrong(key, format_args!("must be {low} to {high}"))
            })
    }

    /// A whole number, as far as its type goes. Somebody else knows its range.
    pub fn whole<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        let found = self.value(key)?.as_integer();
        found
            .and_then(|number| T::try_from(number).ok())
            .or_else(|| self.wrong(key, "must be a whole number from 0"))
    }

    /// A number with or without a fraction. Somebody else knows its range.
    pub fn number(&self, key: &str) -> Option<f64> {
        as_number(self.value(key)?).or_else(|| self.wrong(key, "must be a number"))
    }

    /// A share of one: `0.5`.
    pub fn ratio(&self, key: &str) -> Option<f64> {
        as_number(self.value(key)?)
            .filter(|share| *share > 0.0 && *share <= 1.0)
            .or_else(|| self.wrong(key, "must be above 0.0, at most 1.0"))
    }

    /// A time such as `250ms` or `30s`. Somebody else knows its range.
    pub fn time(&self, key: &str) -> Option<Duration> {
        let found = self.value(key)?.as_str().and_then(units::duration);
        found.or_else(|| self.wrong(key, format_args!("must be {}", units::DURATION)))
    }

    /// A time such as `250ms` or `30s` within a range.
    pub fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let time = self.time(key)?;
        let (low, high) = (Time(*range.start()), Time(*range.end()));
        match range.contains(&time) {
            true => Some(time),
            false => self.wrong(key, format_args!("must be {low} to {high}")),
        }
    }

    /// A size such as `64KiB` within a range of bytes.
    pub fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let found = self.value(key)?.as_str().and_then(units::size);
        found.filter(|bytes| range.contains(bytes)).or_else(|| {
            let (low, high) = (Size(*range.start()), Size(*range.end()));
            self.wrong(
                key,
                format_args!("must be {}, {low} to {high}", units::SIZE),
            )
        })
    }

    /// A rate such as `100/s`.
    pub fn rate(&self, key: &str) -> Option<Rate> {
        self.parsed(key, units::RATE, units::rate)
    }

    /// One of several names.
    pub fn choice<T: Clone>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => Some(choice.clone()),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                self.wrong(key, one_of(&text, &names))
            }
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let found = self.value(key)?.as_array().and_then(|list| {
            list.iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect()
        });
        found.or_else(|| self.wrong(key, "must be a list of texts: [\"a\", \"b\"]"))
    }

    /// A list of texts, each read by a function; `what` is its form. What is wrong is left out.
    pub fn list<T>(
        &self,
        key: &str,
        what: impl fmt::Display,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let texts = self.texts(key)?;
        let read = texts.iter().filter_map(|text| {
            let item = parse(text);
            if item.is_none() {
                self.item_problem(key, text, format_args!("must be {what}"));
            }
            item
        });
        Some(read.collect())
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number).filter(|number| number.is_finite()),
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    }
}
