//! One table of the scenario file, read key by key. Wrong types, missing and unknown keys are collected, not returned, so
//! that a file's problems are all reported at once.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use toml::{Table, Value};

use super::duration::parse_duration;

/// One value that cannot be: which key, what it says, what it may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full key, such as `profile.rate`.
    pub key: String,
    /// The value found, or `(missing)`.
    pub value: String,
    /// What is allowed there.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; allowed: {}", self.key, self.value, self.allowed)
    }
}

/// Everything wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} problem(s) in the scenario", self.0.len())?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A table being read. Keys that nobody asked for are reported when it is dropped by [`Section::finish`].
pub(super) struct Section {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    problems: Rc<RefCell<Vec<Problem>>>,
}

impl Section {
    pub(super) fn root(table: Table) -> Self {
        Section {
            path: String::new(),
            table,
            known: Vec::new(),
            problems: Rc::default(),
        }
    }

    /// The problems collected so far, by this table and every one below it.
    pub(super) fn problems(&self) -> Rc<RefCell<Vec<Problem>>> {
        Rc::clone(&self.problems)
    }

    /// The table under `key`, or nothing if there is none.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Section> {
        match self.take(key)? {
            Value::Table(table) => Some(Section {
                path: self.full(key),
                table,
                known: Vec::new(),
                problems: Rc::clone(&self.problems),
            }),
            other => {
                self.wrong(key, &other, "a table");
                None
            }
        }
    }

    /// The table under `key`; an empty one, and a problem, if there is none.
    pub(super) fn required_table(&mut self, key: &'static str) -> Section {
        if !self.table.contains_key(key) {
            self.missing(key, "a table");
        }
        self.table(key).unwrap_or(Section {
            path: self.full(key),
            table: Table::new(),
            known: Vec::new(),
            problems: Rc::default(), // its missing keys would only repeat the problem
        })
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(key, &other, "a string");
                None
            }
        }
    }

    pub(super) fn required_string(&mut self, key: &'static str) -> String {
        if !self.table.contains_key(key) {
            self.missing(key, "a string");
        }
        self.string(key).unwrap_or_default()
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let allowed = "a list of strings";
        let value = self.take(key)?;
        let list = match &value {
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect(),
            _ => None,
        };
        if list.is_none() {
            self.wrong(key, &value, allowed);
        }
        list
    }

    pub(super) fn bool(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(value) => Some(value),
            other => {
                self.wrong(key, &other, "true or false");
                None
            }
        }
    }

    /// A whole number that fits `T`.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        let read = value
            .as_integer()
            .and_then(|number| T::try_from(number).ok());
        if read.is_none() {
            self.wrong(key, &value, "a whole number from 0");
        }
        read
    }

    pub(super) fn number(&mut self, key: &'static str) -> Option<f64> {
        match self.take(key)? {
            Value::Integer(number) => Some(number as f64),
            Value::Float(number) if number.is_finite() => Some(number),
            other => {
                self.wrong(key, &other, "a number");
                None
            }
        }
    }

    pub(super) fn required_number(&mut self, key: &'static str) -> f64 {
        if !self.table.contains_key(key) {
            self.missing(key, "a number");
        }
        // A value inside every range: the missing key is reported once, not twice.
        self.number(key).unwrap_or(1.0)
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let value = self.take(key)?;
        let read = value.as_str().and_then(parse_duration);
        if read.is_none() {
            self.wrong(key, &value, "a duration such as \"250ms\" or \"30s\"");
        }
        read
    }

    pub(super) fn required_duration(&mut self, key: &'static str) -> Duration {
        if !self.table.contains_key(key) {
            self.missing(key, "a duration such as \"250ms\" or \"30s\"");
        }
        self.duration(key).unwrap_or(Duration::from_secs(1))
    }

    /// Takes every remaining key, for tables whose keys are data.
    pub(super) fn drain(&mut self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.table).into_iter().collect()
    }

    pub(super) fn problem(&self, key: &str, value: impl fmt::Display, allowed: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            key: self.full(key),
            value: value.to_string(),
            allowed: allowed.into(),
        });
    }

    /// Reports the keys nobody asked for.
    pub(super) fn finish(self) {
        for (key, value) in &self.table {
            self.problem(
                key,
                format!("unknown key (value {value})"),
                self.known.join(", "),
            );
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn wrong(&self, key: &str, value: &Value, allowed: &str) {
        self.problem(key, value, allowed);
    }

    fn missing(&self, key: &str, allowed: &str) {
        self.problem(key, "(missing)", allowed);
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}
