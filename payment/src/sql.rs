//! What sqlx errors mean here, the same for SQLite and PostgreSQL.

use sqlx::{Row, any::AnyRow};

/// How often a transaction that lost a race is begun again before the caller hears of it.
pub(crate) const TX_TRIES: u32 = 5;

/// Whether the transaction was undone by a race and may simply be run again.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    let Some(code) = error.as_database_error().and_then(|e| e.code()) else {
        return false;
    };
    matches!(
        code.as_ref(),
        // PostgreSQL: serialization failure, deadlock.
        "40001" | "40P01"
        // SQLite: busy, locked, busy with a stale snapshot.
        | "5" | "6" | "517"
    )
}

/// Whether a row or an object of that name was made by somebody else at the same moment.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else {
        return false;
    };
    error.is_unique_violation()
        // PostgreSQL: duplicate table, duplicate object.
        || matches!(error.code().as_deref(), Some("42P07" | "42710"))
}

/// A stored value that this crate cannot have written.
pub(crate) fn corrupt(what: &'static str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} is not one: {value}").into())
}

/// A column of text.
pub(crate) fn text(row: &AnyRow, column: &str) -> Result<String, sqlx::Error> {
    row.try_get(column)
}

/// A column of whole numbers.
pub(crate) fn int(row: &AnyRow, column: &str) -> Result<i64, sqlx::Error> {
    row.try_get(column)
}
