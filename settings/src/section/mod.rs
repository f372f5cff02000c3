//! One table of a configuration, read key by key.
//!
//! The keys that were asked for are the keys that exist: [`Section::finish`] reports every other one, with the nearest allowed name.

mod values;

use std::{cell::RefCell, fmt};

use toml::{Table, Value};

use crate::{Problem, Problems, one_of, shown::shown};

/// One table of the configuration and its place in the file.
#[derive(Debug)]
pub struct Section<'p> {
    path: String,
    table: Table,
    asked: RefCell<Vec<String>>,
    problems: &'p Problems,
}

/// Reads a text as TOML. The problem names the line.
pub fn parse(text: &[u8]) -> Result<Table, Problem> {
    let at_line = |end: usize, what: String| {
        let before = text.get(..end).unwrap_or(text);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem {
            key: format!("line {line}"),
            value: None,
            what,
        }
    };
    let text = std::str::from_utf8(text)
        .map_err(|error| at_line(error.valid_up_to(), "not UTF-8: must be text".to_owned()))?;
    text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        at_line(start, format!("not TOML: {}", error.message()))
    })
}

/// Reads a text that is the table at a place of the file, such as `seckill`: all of it, or every problem as a line.
pub fn read_at<T>(
    place: &str,
    text: &str,
    read: impl FnOnce(Section<'_>) -> Option<T>,
) -> Result<T, Vec<String>> {
    let table = parse(text.as_bytes()).map_err(|problem| vec![problem.to_string()])?;
    let problems = Problems::default();
    let found = read(Section::at(place.to_owned(), table, &problems));
    match found {
        Some(found) if problems.is_empty() => Ok(found),
        _ => Err(problems.into_lines()),
    }
}

/// The keys that a reader asks for when there are none.
pub fn keys_of(read: impl FnOnce(&Section<'_>)) -> Vec<String> {
    let problems = Problems::default();
    let empty = Section::root(Table::new(), &problems);
    read(&empty);
    empty.asked.into_inner()
}

impl<'p> Section<'p> {
    /// The whole file.
    pub fn root(table: Table, problems: &'p Problems) -> Self {
        Self::at(String::new(), table, problems)
    }

    /// The table at a place of the file, such as `seckill`.
    pub fn at(path: String, table: Table, problems: &'p Problems) -> Self {
        Self {
            path,
            table,
            asked: RefCell::default(),
            problems,
        }
    }

    /// Where this section notes its problems.
    pub fn problems(&self) -> &'p Problems {
        self.problems
    }

    /// Whether the key is there at all, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The key's full name: `upstream[0].name`.
    pub fn key(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// Notes a problem with a key and shows the value it has, unless that may be a secret.
    pub fn problem(&self, key: &str, what: impl fmt::Display) {
        let full = self.key(key);
        self.problems.add(Problem {
            value: self.table.get(key).and_then(|value| shown(&full, value)),
            key: full,
            what: what.to_string(),
        });
    }

    /// Notes that a key must be there. `what` is its form.
    pub fn missing(&self, key: &str, what: impl fmt::Display) {
        self.problems.add(Problem {
            key: self.key(key),
            value: None,
            what: format!("missing: must be {what}"),
        });
    }

    /// Notes that a key must be there, unless it is. `what` is its form.
    pub fn require(&self, key: &str, what: impl fmt::Display) {
        if self.value(key).is_none() {
            self.missing(key, what);
        }
    }

    /// The value as it stands.
    pub fn value(&self, key: &str) -> Option<&Value> {
        let mut asked = self.asked.borrow_mut();
        if !asked.iter().any(|known| known == key) {
            asked.push(key.to_owned());
        }
        self.table.get(key)
    }

    /// Notes a problem with one item of a list and shows the item.
    pub fn item_problem(&self, key: &str, item: &str, what: impl fmt::Display) {
        match shown(key, &item.into()) {
            Some(item) => self.problem(key, format_args!("{item} {what}")),
            None => self.problem(key, what),
        }
    }

    /// A table within this one.
    pub fn section(&self, key: &str) -> Option<Section<'p>> {
        match self.value(key)? {
            Value::Table(table) => Some(Self::at(self.key(key), table.clone(), self.problems)),
            _ => self.wrong_table(key, "must be a table: { key = value }"),
        }
    }

    /// A list of tables: `[[key]]`, or `key = [{ … }, { … }]`.
    pub fn sections(&self, key: &str) -> Vec<Section<'p>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let tables: Option<Vec<Table>> = value
            .as_array()
            .and_then(|list| list.iter().map(|item| item.as_table().cloned()).collect());
        let tables = tables.or_else(|| self.wrong_table(key, "must be a list of tables"));
        tables
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(at, table)| Self::at(format!("{}[{at}]", self.key(key)), table, self.problems))
            .collect()
    }

    /// Reports the unknown keys: those that no reader asked for. Ends the section.
    pub fn finish(self) {
        let mut asked = self.asked.into_inner();
        asked.sort_unstable();
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        for key in self
            .table
            .keys()
            .filter(|key| !asked.contains(&key.as_str()))
        {
            // Never its value: it may be a secret under a wrong name.
            self.problems.add(Problem {
                key: match self.path.as_str() {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                },
                value: None,
                what: format!("unknown key: {}", one_of(key, &asked)),
            });
        }
    }

    fn wrong<T>(&self, key: &str, what: impl fmt::Display) -> Option<T> {
        self.problem(key, what);
        None
    }

    /// Where a table belongs, a value is not shown: it may be the secret whose place the table would name.
    fn wrong_table<T>(&self, key: &str, what: &str) -> Option<T> {
        self.problems.add(Problem {
            key: self.key(key),
            value: None,
            what: what.to_owned(),
        });
        None
    }
}

#[cfg(test)]
mod tests;
