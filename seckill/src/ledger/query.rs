//! Statements with their parameters, and rows as values: the one place that says how an id, a count or a word stands in a column.

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Any, Decode, Executor, Row, Type,
    any::{AnyArguments, AnyRow},
};
use stock::Gate;

use stock::Metadata;

use super::{Action, LedgerError, LetterId, ListName, OrderStatus, TransferState, sql};
use crate::{
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    sale::{Admission, Stage},
};

type Inner<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// A statement with its parameters.
pub(super) struct Query<'q>(Inner<'q>);

/// A statement with its parameters in their order.
macro_rules! query {
    ($statement:expr $(, $value:expr)* $(,)?) => {
        $crate::ledger::query::Query::new($statement)$(.bind($value))*
    };
}

/// Reads a struct whose fields stand in columns in this order.
macro_rules! from_row {
    ($type:ty: $($field:ident),*) => {
        impl $crate::ledger::query::FromRow for $type {
            fn read(
                columns: &mut $crate::ledger::query::Columns<'_>,
            ) -> Result<Self, $crate::ledger::LedgerError> {
                Ok(Self { $($field: columns.take()?,)* })
            }
        }
    };
}

pub(super) use {from_row, query};

impl<'q> Query<'q> {
    pub(super) fn new(statement: &'static str) -> Self {
        Self(sqlx::query(statement))
    }

    pub(super) fn bind(self, value: impl Parameter<'q>) -> Self {
        Self(value.bind_to(self.0))
    }

    /// Runs it and answers how many rows it changed.
    pub(super) async fn run<'c>(
        self,
        on: impl Executor<'c, Database = Any>,
    ) -> Result<u64, LedgerError> {
        Ok(self.0.execute(on).await?.rows_affected())
    }

    /// All rows.
    pub(super) async fn all<'c, T: FromRow, C: FromIterator<T>>(
        self,
        on: impl Executor<'c, Database = Any>,
    ) -> Result<C, LedgerError> {
        let rows = self.0.fetch_all(on).await?;
        rows.iter().map(read).collect()
    }

    /// The first row, if there is any. All are fetched: a statement that writes must run to its end.
    pub(super) async fn first<'c, T: FromRow>(
        self,
        on: impl Executor<'c, Database = Any>,
    ) -> Result<Option<T>, LedgerError> {
        let rows = self.0.fetch_all(on).await?;
        rows.first().map(read).transpose()
    }

    /// The row of a statement that always has one.
    pub(super) async fn one<'c, T: FromRow>(
        self,
        on: impl Executor<'c, Database = Any>,
    ) -> Result<T, LedgerError> {
        read(&self.0.fetch_one(on).await?)
    }
}

/// What one or more parameters are made of.
pub(super) trait Parameter<'q> {
    fn bind_to(self, query: Inner<'q>) -> Inner<'q>;
}

macro_rules! parameters {
    ($($type:ty, |$value:ident, $query:ident| $bound:expr;)*) => {
        $(impl<'q> Parameter<'q> for $type {
            fn bind_to(self, $query: Inner<'q>) -> Inner<'q> {
                let $value = self;
                $bound
            }
        })*
    };
}

parameters! {
    i64, |number, query| query.bind(number);
    u64, |count, query| query.bind(sql(count));
    u32, |count, query| query.bind(i64::from(count));
    u16, |count, query| query.bind(i64::from(count));
    usize, |count, query| query.bind(sql(count as u64));
    bool, |is, query| query.bind(i64::from(is));
    String, |text, query| query.bind(text);
    &'q String, |text, query| query.bind(text.as_str());
    &'q str, |text, query| query.bind(text);
    &'q SaleId, |id, query| query.bind(id.as_str());
    &'q SkuId, |id, query| query.bind(id.as_str());
    &'q BuyerId, |id, query| query.bind(id.as_str());
    &'q RequestId, |id, query| query.bind(id.as_str());
    OrderId, |id, query| query.bind(id.to_string());
    ListName, |list, query| query.bind(list.as_str());
    Gate, |gate, query| query.bind(gate.as_str());
    // Sale, sku and index.
    &'q SegmentId, |id, query| id.index.bind_to(id.sku.bind_to(id.sale.bind_to(query)));
    // Sku, index and position: the sale is bound before it.
    &'q LetterId, |id, query| id.position.as_str().bind_to(id.segment.bind_to(id.sku.bind_to(query)));
}

/// The columns of a row that were not read yet.
pub(super) struct Columns<'r> {
    row: &'r AnyRow,
    next: usize,
}

impl<'r> Columns<'r> {
    /// Reads the next value, from as many columns as it has.
    pub(super) fn take<T: FromRow>(&mut self) -> Result<T, LedgerError> {
        T::read(self)
    }

    /// Reads a text that stands for nothing if it is empty.
    pub(super) fn if_any<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
    ) -> Result<Option<T>, LedgerError> {
        let text: &str = self.column()?;
        (!text.is_empty()).then(|| parsed(text)).transpose()
    }

    /// Reads what [`as_json`] wrote.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LedgerError> {
        let text: &str = self.column()?;
        if text.is_empty() {
            return Ok(None);
        }
        let read = serde_json::from_str(text);
        read.map(Some)
            .map_err(|error| LedgerError::Corrupt(format!("{text:?}: {error}")))
    }

    fn column<T: Decode<'r, Any> + Type<Any>>(&mut self) -> Result<T, LedgerError> {
        let value = self.row.try_get(self.next)?;
        self.next += 1;
        Ok(value)
    }

    fn text<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self) -> Result<T, LedgerError> {
        parsed(self.column()?)
    }

    /// A number that is never negative and has at most so many bits.
    fn count<T: TryFrom<i64>>(&mut self) -> Result<T, LedgerError> {
        let number: i64 = self.column()?;
        let bits = 8 * size_of::<T>();
        number
            .try_into()
            .map_err(|_| LedgerError::Corrupt(format!("{number} is not a count of {bits} bits")))
    }
}

/// What is read from one or more columns of a row.
pub(super) trait FromRow: Sized {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError>;
}

/// A part that SQL need not look into; '' if there is none.
pub(super) fn as_json<T: Serialize>(part: &Option<T>) -> String {
    part.as_ref().map_or_else(String::new, |part| {
        serde_json::to_string(part).expect("plain data is valid JSON")
    })
}

/// Reads a text as an id or a word.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
) -> Result<T, LedgerError> {
    text.parse()
        .map_err(|error| LedgerError::Corrupt(format!("{text:?}: {error}")))
}

fn read<T: FromRow>(row: &AnyRow) -> Result<T, LedgerError> {
    Columns { row, next: 0 }.take()
}

macro_rules! columns {
    ($($read:ident: $($type:ty),*;)*) => {
        $($(impl FromRow for $type {
            fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
                columns.$read()
            }
        })*)*
    };
}

columns! {
    column: i64, String;
    count: u64, u32, u16;
    text: SaleId, SkuId, BuyerId, RequestId, OrderId, OrderStatus, Action, TransferState, ListName, Admission, Stage, Gate;
}

from_row!(SegmentId: sale, sku, index);

/// NULL where an order has none.
impl FromRow for Option<Metadata> {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        let text: Option<&str> = columns.column()?;
        let read = text.map(Metadata::from_stored).transpose();
        read.map_err(LedgerError::Corrupt)
    }
}

/// 0 is false.
impl FromRow for bool {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        Ok(columns.take::<i64>()? != 0)
    }
}

macro_rules! tuples {
    ($(($($part:ident),*))*) => {
        $(impl<$($part: FromRow),*> FromRow for ($($part,)*) {
            fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
                Ok(($(columns.take::<$part>()?,)*))
            }
        })*
    };
}

tuples! { (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{self, OrderLedger};

    #[tokio::test]
    async fn a_column_with_what_it_cannot_hold_is_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let on = ledger.reads();
        let is_corrupt = |failed: LedgerError| matches!(failed, LedgerError::Corrupt(_));
        let negative = query!("SELECT -1").one::<u64>(on).await;
        assert!(is_corrupt(negative.unwrap_err()));
        assert_eq!(query!("SELECT 65535").one::<u16>(on).await.unwrap(), 65_535);
        let wide = query!("SELECT 65536").one::<u16>(on).await;
        assert!(is_corrupt(wide.unwrap_err()));
        let no_id = query!("SELECT ''").one::<SaleId>(on).await;
        assert!(is_corrupt(no_id.unwrap_err()));
        let no_word = query!("SELECT 'opened'").one::<Stage>(on).await;
        assert!(is_corrupt(no_word.unwrap_err()));
    }

    #[tokio::test]
    async fn parameters_and_columns_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let segment = SegmentId {
            sale: "spring".parse().unwrap(),
            sku: "shoe".parse().unwrap(),
            index: 3,
        };
        // More than SQL can count is as much as it can.
        let row = query!("SELECT $1, $2, $3, $4, $5", &segment, u64::MAX, "");
        let row: (SegmentId, u64, String) = row.one(ledger.reads()).await.unwrap();
        assert_eq!(row, (segment, i64::MAX as u64, String::new()));
    }
}
