//! The two databases that a ledger can be in, and the statements that they spell differently.
//!
//! Almost all statements are one text for both. A list of values is one parameter, a JSON array, which each engine takes apart with a
//! function of its own: [`among!`] and [`from_list!`] spell that part. Statements with other differences are two files of one name,
//! `sql/postgres/NAME.sql` and `sql/sqlite/NAME.sql`: [`side_by_side!`].

use serde::Serialize;
use sqlx::AnyPool;

/// Which database the ledger is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Postgres,
    Sqlite,
}

impl Engine {
    /// Any option of the pool names the scheme; a connection would only be known once it is made.
    pub(super) fn of(pool: &AnyPool) -> Self {
        match pool.connect_options().database_url.scheme() {
            "sqlite" => Self::Sqlite,
            _ => Self::Postgres,
        }
    }
}

/// A statement in the spelling of each engine.
pub(super) struct Statement {
    pub(super) postgres: &'static str,
    pub(super) sqlite: &'static str,
}

impl Statement {
    pub(super) fn on(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Postgres => self.postgres,
            Engine::Sqlite => self.sqlite,
        }
    }
}

/// The statement of the two files of this name.
macro_rules! side_by_side {
    ($name:literal) => {
        $crate::ledger::engine::Statement {
            postgres: include_str!(concat!("sql/postgres/", $name, ".sql")),
            sqlite: include_str!(concat!("sql/sqlite/", $name, ".sql")),
        }
    };
}

/// `BEFORE column` is among the texts of the list in a parameter, `AFTER`.
macro_rules! among {
    ([$($before:tt)*], $list:literal $(, $after:literal)?) => {
        $crate::ledger::engine::Statement {
            // An array, so that an index is asked for each of its texts.
            postgres: concat!(
                $($before)*, " = ANY(ARRAY(SELECT json_array_elements_text(", $list, "::json)))" $(, $after)?
            ),
            sqlite: concat!($($before)*, " IN (SELECT value FROM json_each(", $list, "))" $(, $after)?),
        }
    };
}

/// `BEFORE FROM` the `value`s of the list in a parameter, `AFTER`: texts, or arrays whose parts are `value ->> 0` and so on.
macro_rules! from_list {
    (texts [$($before:tt)*], $list:literal, $after:literal) => {
        from_list!("json_array_elements_text", [$($before)*], $list, $after)
    };
    (rows [$($before:tt)*], $list:literal, $after:literal) => {
        from_list!("json_array_elements", [$($before)*], $list, $after)
    };
    ($function:literal, [$($before:tt)*], $list:literal, $after:literal) => {
        $crate::ledger::engine::Statement {
            postgres: concat!($($before)*, " FROM ", $function, "(", $list, "::json) AS listed (value) ", $after),
            sqlite: concat!($($before)*, " FROM json_each(", $list, ") AS listed ", $after),
        }
    };
}
pub(super) use {among, from_list, side_by_side};

/// A list as one parameter.
pub(super) fn list<T: Serialize>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<T> = items.into_iter().collect();
    serde_json::to_string(&items).expect("ids, words and numbers are valid JSON")
}
