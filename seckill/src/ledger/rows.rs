//! An order as a row: the columns, their order, and how they are read.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use sqlx::{Row, any::AnyRow};

use super::{LedgerError, OrderStatus, Standing};
use crate::ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId};

/// An order of the ledger. Serialized, it is the order document of the sale API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerOrder {
    /// Its id.
    pub order: OrderId,
    /// Sale, sku and part of the stock.
    pub segment: SegmentId,
    /// Who bought.
    pub buyer: BuyerId,
    /// The idempotency key it was bought under.
    pub request: RequestId,
    /// Units.
    pub quantity: u32,
    /// Quantity times price.
    pub amount_minor: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Where it stands.
    pub status: OrderStatus,
    /// Why it was released or refused: `expired`, `cancelled`, `oversold`, `returned`; empty otherwise.
    pub reason: String,
    /// When the store accepted it.
    pub created_at_ms: u64,
    /// When it is returned if no payment has begun.
    pub pay_by_ms: u64,
    /// When the ledger took it.
    pub settled_at_ms: u64,
    /// The payment intent that holds or paid it.
    pub intent: Option<String>,
    /// Hash of what its request asked for.
    pub fingerprint: u64,
    /// Grows with every change of `status`; see [`Standing`](super::Standing).
    pub version: u64,
}

impl LedgerOrder {
    /// Where it stands, comparable with other readings of it.
    pub fn standing(&self) -> Standing {
        Standing {
            version: self.version,
            status: self.status,
        }
    }
}

impl Serialize for LedgerOrder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut order = serializer.serialize_struct("Order", 11)?;
        order.serialize_field("id", &self.order)?;
        order.serialize_field("object", "order")?;
        order.serialize_field("sale", &self.segment.sale)?;
        order.serialize_field("sku", &self.segment.sku)?;
        order.serialize_field("buyer", &self.buyer)?;
        order.serialize_field("quantity", &self.quantity)?;
        order.serialize_field("amount_minor", &self.amount_minor)?;
        order.serialize_field("currency", &self.currency)?;
        order.serialize_field("status", &self.status)?;
        order.serialize_field("created_at_ms", &self.created_at_ms)?;
        order.serialize_field("pay_by_ms", &self.pay_by_ms)?;
        order.end()
    }
}

/// The columns that [`read_order`] expects, for a `SELECT` or `RETURNING` of statements in this folder.
macro_rules! order_columns {
    () => {
        "order_id, sale, sku, segment, buyer, request_id, quantity, amount_minor, currency, status, reason, \
         created_at_ms, pay_by_ms, settled_at_ms, intent, fingerprint, version"
    };
}
pub(super) use order_columns;

/// Reads a row of [`order_columns`].
pub(super) fn read_order(row: &AnyRow) -> Result<LedgerOrder, LedgerError> {
    let intent: String = row.try_get(14)?;
    Ok(LedgerOrder {
        order: parsed::<OrderId>(row, 0)?,
        segment: read_segment(row, 1)?,
        buyer: parsed::<BuyerId>(row, 4)?,
        request: parsed::<RequestId>(row, 5)?,
        quantity: count(row, 6)?
            .try_into()
            .map_err(|_| LedgerError::Corrupt("quantity above 2^32".to_owned()))?,
        amount_minor: row.try_get(7)?,
        currency: row.try_get(8)?,
        status: parsed::<OrderStatus>(row, 9)?,
        reason: row.try_get(10)?,
        created_at_ms: count(row, 11)?,
        pay_by_ms: count(row, 12)?,
        settled_at_ms: count(row, 13)?,
        intent: Some(intent).filter(|intent| !intent.is_empty()),
        fingerprint: row.try_get::<i64, _>(15)?.cast_unsigned(),
        version: count(row, 16)?,
    })
}

/// Reads `sale, sku, segment` from three columns in a row.
pub(super) fn read_segment(row: &AnyRow, first: usize) -> Result<SegmentId, LedgerError> {
    Ok(SegmentId {
        sale: parsed::<SaleId>(row, first)?,
        sku: parsed::<SkuId>(row, first + 1)?,
        index: count(row, first + 2)?
            .try_into()
            .map_err(|_| LedgerError::Corrupt("segment above 2^16".to_owned()))?,
    })
}

/// Reads a text column as an id or a word.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &AnyRow,
    column: usize,
) -> Result<T, LedgerError> {
    let text: &str = row.try_get(column)?;
    text.parse()
        .map_err(|error: T::Err| LedgerError::Corrupt(format!("{text:?}: {error}")))
}

/// Reads a number that is never negative.
pub(super) fn count(row: &AnyRow, column: usize) -> Result<u64, LedgerError> {
    let number: i64 = row.try_get(column)?;
    number
        .try_into()
        .map_err(|_| LedgerError::Corrupt(format!("negative count {number}")))
}
