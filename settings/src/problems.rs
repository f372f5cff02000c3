//! What is wrong with a configuration, as a list.

use std::{cell::RefCell, fmt};

use crate::shown::shown;

/// One value that cannot be. The operator is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key with its place: `upstream[0].name`.
    pub key: String,
    /// The value found, as far as it may be shown.
    pub value: Option<String>,
    /// What is allowed there.
    pub what: String,
}

/// Every problem found so far, in the order of reading.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, what } = self;
        match value {
            Some(value) => write!(f, "{key} = {value}: {what}"),
            None => write!(f, "{key}: {what}"),
        }
    }
}

impl Problem {
    /// A problem of a text, which is shown as far as it may be.
    pub fn of_text(key: &str, text: &str, what: impl fmt::Display) -> Self {
        Self {
            key: key.to_owned(),
            value: shown(key, &text.into()),
            what: what.to_string(),
        }
    }
}

impl Problems {
    /// Notes a problem once. Two readers may ask for the same key.
    pub fn add(&self, problem: Problem) {
        let mut list = self.0.borrow_mut();
        if !list.contains(&problem) {
            list.push(problem);
        }
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Whether the key, or a table that holds it, has a problem.
    pub fn are_of(&self, key: &str) -> bool {
        let is_around = |outer: &str| {
            key.strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.0
            .borrow()
            .iter()
            .any(|problem| is_around(&problem.key))
    }

    /// The list.
    pub fn into_list(self) -> Vec<Problem> {
        self.0.into_inner()
    }

    /// The list as lines.
    pub fn into_lines(self) -> Vec<String> {
        self.into_list().iter().map(Problem::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_a_table_is_one_of_its_keys() {
        let problems = Problems::default();
        problems.add(Problem {
            key: "sale".to_owned(),
            value: None,
            what: "must be a table".to_owned(),
        });
        assert!(problems.are_of("sale"));
        assert!(problems.are_of("sale.id"));
        assert!(problems.are_of("sale[0].id"));
        assert!(!problems.are_of("sales"));
        assert!(!problems.are_of(""));
    }
}
