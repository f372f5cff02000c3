//! An order as a row: the columns, their order, and how they are read.

use super::{
    LedgerError, OrderStatus, Standing,
    query::{Columns, FromRow},
};
use crate::ids::{BuyerId, OrderId, RequestId, SegmentId};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use stock::Metadata;

/// A page of rows, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, Id> {
    /// The rows.
    pub rows: Vec<T>,
    /// What the next page begins after, if there may be one.
    pub next: Option<Id>,
}

impl<T, Id> Page<T, Id> {
    /// The rows that were read with this limit.
    pub(super) fn of(rows: Vec<T>, limit: usize, id: impl FnOnce(&T) -> Id) -> Self {
        let last = rows.last().filter(|_| rows.len() == limit);
        Self {
            next: last.map(id),
            rows,
        }
    }
}

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
    /// What its purchase brought for the shop.
    pub metadata: Option<Metadata>,
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
        let mut order = serializer.serialize_struct("Order", 12)?;
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
        match &self.metadata {
            Some(metadata) => order.serialize_field("metadata", metadata)?,
            None => order.skip_field("metadata")?,
        }
        order.end()
    }
}

/// The columns of a [`LedgerOrder`], for a `SELECT` or `RETURNING` of statements in this folder.
macro_rules! order_columns {
    () => {
        "order_id, sale, sku, segment, buyer, request_id, quantity, amount_minor, currency, status, reason, \
         created_at_ms, pay_by_ms, settled_at_ms, intent, fingerprint, version, metadata"
    };
}
pub(super) use order_columns;

impl FromRow for LedgerOrder {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        Ok(Self {
            order: columns.take()?,
            segment: columns.take()?,
            buyer: columns.take()?,
            request: columns.take()?,
            quantity: columns.take()?,
            amount_minor: columns.take()?,
            currency: columns.take()?,
            status: columns.take()?,
            reason: columns.take()?,
            created_at_ms: columns.take()?,
            pay_by_ms: columns.take()?,
            settled_at_ms: columns.take()?,
            intent: columns.if_any()?,
            fingerprint: columns.take::<i64>()?.cast_unsigned(),
            version: columns.take()?,
            metadata: columns.take()?,
        })
    }
}
