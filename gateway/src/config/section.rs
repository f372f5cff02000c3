//! Reading one TOML table key by key, noting every problem and going on.
//!
//! serde stops at the first problem; `penstock check` must name them all. So the raw form of the configuration is the parsed
//! TOML itself, and a [`Section`] hands out its values by type and range. The keys that were asked for are the keys
//! that exist: [`Section::finish`] reports every other one, with the nearest allowed name.

use std::{cell::RefCell, fmt, ops::RangeInclusive, time::Duration};

use toml::{Table, Value};

use super::values;

/// Every problem found so far, in the order of the file.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<String>>);

/// One table of the configuration and its place in the file.
#[derive(Debug)]
pub struct Section<'p> {
    path: String,
    table: Table,
    asked: RefCell<Vec<&'static str>>,
    problems: &'p Problems,
}

impl Problems {
    /// Notes a problem: the key with its place, then what is wrong.
    pub fn note(&self, key: impl fmt::Display, what: impl fmt::Display) {
        self.0.borrow_mut().push(format!("{key}: {what}"));
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// The list, for printing.
    pub fn into_list(self) -> Vec<String> {
        self.0.into_inner()
    }
}

impl<'p> Section<'p> {
    /// The whole file.
    pub fn root(table: Table, problems: &'p Problems) -> Self {
        Self::new(String::new(), table, problems)
    }

    fn new(path: String, table: Table, problems: &'p Problems) -> Self {
        Self {
            path,
            table,
            asked: RefCell::default(),
            problems,
        }
    }

    /// Whether the key is there at all, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Notes a problem that another crate has found, under the key it names.
    pub fn note(&self, key: impl fmt::Display, what: impl fmt::Display) {
        self.problems.note(key, what);
    }

    /// The key's full name: `upstream[0].name`.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes a problem with a key and shows the value it has.
    pub fn problem(&self, key: &str, what: impl fmt::Display) {
        match self.table.get(key) {
            Some(value) => self
                .problems
                .note(format_args!("{} = {value}", self.key(key)), what),
            None => self.problems.note(self.key(key), what),
        }
    }

    /// Notes that a key must be there. `what` is its form.
    pub fn missing(&self, key: &str, what: impl fmt::Display) {
        self.problems
            .note(self.key(key), format_args!("missing: must be {what}"));
    }

    /// The value as it stands.
    pub fn value(&self, key: &'static str) -> Option<&Value> {
        self.asked.borrow_mut().push(key);
        self.table.get(key)
    }

    /// A text.
    pub fn text(&self, key: &'static str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text.clone()),
            _ => self.wrong(key, "must be a text in quotes"),
        }
    }

    /// A text that is read by a function; `what` is its form.
    pub fn parsed<T>(
        &self,
        key: &'static str,
        what: impl fmt::Display,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(&text).or_else(|| self.wrong(key, format_args!("must be {what}")))
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            Value::Boolean(flag) => Some(*flag),
            _ => self.wrong(key, "must be true or false"),
        }
    }

    /// A whole number within a range.
    pub fn integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let found = match self.value(key)? {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        found.filter(|number| range.contains(number)).or_else(|| {
            let what = format_args!("must be {} to {}", range.start(), range.end()).to_string();
            self.wrong(key, what)
        })
    }

    /// A share of one: `0.5`.
    pub fn ratio(&self, key: &'static str) -> Option<f64> {
        let found = match self.value(key)? {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            _ => None,
        };
        found
            .filter(|share| *share > 0.0 && *share <= 1.0)
            .or_else(|| self.wrong(key, "must be above 0.0, at most 1.0"))
    }

    /// A time such as `250ms` or `30s` within a range.
    pub fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = match self.value(key)? {
            Value::String(text) => text,
            _ => return self.wrong(key, "must be a time such as \"250ms\" or \"30s\""),
        };
        let Some(time) = values::duration(text) else {
            return self.wrong(key, "must be a time such as \"250ms\" or \"30s\"");
        };
        if range.contains(&time) {
            Some(time)
        } else {
            let (low, high) = (values::Time(*range.start()), values::Time(*range.end()));
            self.wrong(key, format!("must be {low} to {high}"))
        }
    }

    /// A size such as `64KiB` within a range of bytes.
    pub fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let found = match self.value(key)? {
            Value::String(text) => values::size(text),
            _ => None,
        };
        found.filter(|bytes| range.contains(bytes)).or_else(|| {
            let (low, high) = (values::Size(*range.start()), values::Size(*range.end()));
            self.wrong(
                key,
                format!("must be a size such as \"64KiB\", {low} to {high}"),
            )
        })
    }

    /// One of several names.
    pub fn choice<T: Clone>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
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
    pub fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let found = match self.value(key)? {
            Value::Array(list) => list
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect(),
            _ => None,
        };
        found.or_else(|| self.wrong(key, "must be a list of texts: [\"a\", \"b\"]"))
    }

    /// A table within this one.
    pub fn section(&self, key: &'static str) -> Option<Section<'p>> {
        match self.value(key)? {
            Value::Table(table) => Some(Section::new(self.key(key), table.clone(), self.problems)),
            _ => self.wrong(key, "must be a table: { key = value }"),
        }
    }

    /// A list of tables: `[[key]]`, or `key = [{ … }, { … }]`.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'p>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let tables: Option<Vec<Table>> = value
            .as_array()
            .and_then(|list| list.iter().map(|item| item.as_table().cloned()).collect());
        match tables {
            Some(tables) => tables
                .into_iter()
                .enumerate()
                .map(|(at, table)| {
                    Section::new(format!("{}[{at}]", self.key(key)), table, self.problems)
                })
                .collect(),
            None => {
                self.problem(key, "must be a list of tables");
                Vec::new()
            }
        }
    }

    /// A table that another crate reads.
    pub fn raw(&self, key: &'static str) -> Option<Table> {
        match self.value(key)? {
            Value::Table(table) => Some(table.clone()),
            _ => self.wrong(key, "must be a table"),
        }
    }

    /// Reports the unknown keys: those that no reader asked for. Ends the section.
    pub fn finish(self) {
        let mut asked = self.asked.borrow().clone();
        asked.sort_unstable();
        asked.dedup();
        for key in self
            .table
            .keys()
            .filter(|key| !asked.contains(&key.as_str()))
        {
            self.problems.note(
                self.key(key),
                format_args!("unknown key: {}", one_of(key, &asked)),
            );
        }
    }

    fn wrong<T>(&self, key: &str, what: impl fmt::Display) -> Option<T> {
        self.problem(key, what);
        None
    }
}

/// `must be one of a, b, c (did you mean "b"?)`.
pub fn one_of(found: &str, allowed: &[&str]) -> String {
    let list = allowed.join(", ");
    match nearest(found, allowed) {
        Some(name) => format!("must be one of {list} (did you mean {name:?}?)"),
        None => format!("must be one of {list}"),
    }
}

/// The allowed name that differs least, if it differs in at most a third of its letters.
fn nearest<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    allowed
        .iter()
        .map(|name| (edits(found, name), *name))
        .filter(|(edits, name)| *edits <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance, on bytes: keys are ASCII.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str, read: impl FnOnce(Section<'_>)) -> Vec<String> {
        let problems = Problems::default();
        read(Section::root(text.parse().unwrap(), &problems));
        problems.into_list()
    }

    #[test]
    fn an_unknown_key_names_the_nearest_allowed_one() {
        let found = problems_of("adress = \"x\"", |section| {
            section.text("address");
            section.finish();
        });
        assert_eq!(
            found,
            ["adress: unknown key: must be one of address (did you mean \"address\"?)"]
        );
    }

    #[test]
    fn every_problem_is_noted_with_key_and_value() {
        let text = "workers = -1\nwait = \"soon\"\nbytes = \"64 parsecs\"\nshare = 2.0";
        let found = problems_of(text, |section| {
            section.integer("workers", 0..=64);
            section.duration("wait", Duration::ZERO..=Duration::from_secs(1));
            section.size("bytes", 0..=1024);
            section.ratio("share");
            section.finish();
        });
        assert_eq!(found.len(), 4);
        assert_eq!(found[0], "workers = -1: must be 0 to 64");
        assert!(found[1].starts_with("wait = \"soon\": must be a time"));
    }

    #[test]
    fn names_too_far_off_get_no_suggestion() {
        assert_eq!(one_of("zzz", &["address"]), "must be one of address");
    }
}
