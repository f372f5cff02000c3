//! One table of a configuration, read key by key.
//!
//! The keys that were asked for are the keys that exist: [`Section::finish`] reports every other one, with the nearest allowed name.

use std::{cell::RefCell, fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use toml::{Table, Value};

use crate::{
    Problem, Problems, one_of,
    shown::shown,
    units::{self, Rate, Size, Time},
};

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

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number).filter(|number| number.is_finite()),
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str, read: impl FnOnce(Section<'_>)) -> Vec<String> {
        let problems = Problems::default();
        read(Section::root(parse(text.as_bytes()).unwrap(), &problems));
        problems.into_lines()
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
        let text = "workers = -1\nwait = \"soon\"\nlong = \"2s\"\nbytes = \"64 parsecs\"\nshare = 2.0\nrate = 'fast'\n\
             names = [\"a\", \"b c\"]\nlevel = \"hihg\"\nnumber = \"1\"";
        let found = problems_of(text, |section| {
            section.integer("workers", 0..=64_u32);
            section.duration("wait", Duration::ZERO..=Duration::from_secs(1));
            section.duration("long", Duration::ZERO..=Duration::from_secs(1));
            section.size("bytes", 0..=1024);
            section.ratio("share");
            section.rate("rate");
            section.list("names", "one word", |text| {
                (!text.contains(' ')).then_some(())
            });
            section.choice("level", &[("high", 1), ("low", 0)]);
            section.number("number");
            section.require("name", "a name");
            section.finish();
        });
        assert_eq!(
            found,
            [
                "workers = -1: must be 0 to 64",
                "wait = \"soon\": must be a time such as \"250ms\" or \"30s\"",
                "long = \"2s\": must be 0s to 1s",
                "bytes = \"64 parsecs\": must be a size such as \"64KiB\", 0B to 1KiB",
                "share = 2.0: must be above 0.0, at most 1.0",
                "rate = \"fast\": must be <count>/<time> such as 100/s or 30/m",
                "names = [\"a\", \"b c\"]: \"b c\" must be one word",
                "level = \"hihg\": must be one of high, low (did you mean \"high\"?)",
                "number = \"1\": must be a number",
                "name: missing: must be a name",
            ]
        );
    }

    #[test]
    fn a_key_asked_for_twice_has_its_problem_once() {
        let found = problems_of("name = 7", |section| {
            section.text("name");
            section.text("name");
            section.finish();
        });
        assert_eq!(found, ["name = 7: must be a text in quotes"]);
    }

    #[test]
    fn a_secret_where_a_table_belongs_is_not_repeated() {
        let found = problems_of(
            "key = \"sk_live_abc\"\nkeys = [\"sk_live_abc\"]",
            |section| {
                section.section("key");
                section.sections("keys");
                section.finish();
            },
        );
        assert_eq!(
            found,
            [
                "key: must be a table: { key = value }",
                "keys: must be a list of tables"
            ]
        );
    }

    #[test]
    fn what_is_no_toml_names_its_line() {
        let told = |text: &[u8]| parse(text).unwrap_err().to_string();
        assert!(told(b"a = 1\nb = \n").starts_with("line 2: not TOML: "));
        assert_eq!(told(b"a = 1\n# caf\xE9"), "line 2: not UTF-8: must be text");
    }
}
