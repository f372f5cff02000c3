//! What every module that stores something needs: typed columns, what an error of the database means, retries, and pieces of a list.

mod page;
mod retry;
mod schema;

use sqlx::{Row, any::AnyRow};

use crate::money::{Currency, Money};

pub use self::schema::{SCHEMA, Schema};
pub(crate) use self::{
    page::{LAST_ID, Page, page_after},
    retry::{MayRetry, retrying},
};

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

/// The column `currency`.
pub(crate) fn currency(row: &AnyRow) -> Result<Currency, sqlx::Error> {
    let code = text(row, "currency")?;
    Currency::from_code(&code).ok_or_else(|| corrupt("currency", &code))
}

/// A column of minor units, of the row's currency.
pub(crate) fn money(row: &AnyRow, column: &str) -> Result<Money, sqlx::Error> {
    let minor = int(row, column)?;
    Money::try_new(minor, currency(row)?).map_err(|_| corrupt("amount", &minor.to_string()))
}
