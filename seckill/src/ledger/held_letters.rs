//! Orders of dead letters while an operator has not decided: their buyers were told that they have them, so their units stay held,
//! over rebuilds too. [`crate::rebuild`] loads them into the rebuilt store beside the ledger's orders.

use sqlx::AnyConnection;
use stock::StoredOrder;

use super::{
    DeadLetter, LedgerError, OrderLedger, OrderStatus, Settled,
    query::{Columns, FromRow, query},
};
use crate::ids::{OrderId, SegmentId};

const HELD: &str = "SELECT held FROM order_dead_letters \
    WHERE sale = $1 AND sku = $2 AND segment = $3 AND outcome = '' AND held <> '' AND order_id > $4 \
    ORDER BY order_id LIMIT $5";

/// The column `held`: '' where nothing is.
struct Held(Option<StoredOrder>);

impl FromRow for Held {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        columns.json().map(Self)
    }
}

impl DeadLetter {
    /// The letter of an order that the ledger refused for its own sake.
    pub fn of_order(
        segment: SegmentId,
        position: String,
        order: &StoredOrder,
        reason: String,
    ) -> Self {
        Self {
            segment,
            position,
            order: Some(order.order),
            reason,
            raw: format!("{order:?}"),
            held: Some(order.clone()),
        }
    }
}

impl OrderLedger {
    /// Orders of open letters of a segment that units may be held for, after an id, in the order of their ids. The same order is
    /// in two pages never, in one page twice if it has two letters.
    pub async fn held_letters(
        &self,
        segment: &SegmentId,
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<StoredOrder>, LedgerError> {
        let after = after.unwrap_or(OrderId::from_u128(0));
        let held: Vec<Held> = query!(HELD, segment, after, limit)
            .all(self.reads())
            .await?;
        Ok(held.into_iter().filter_map(|held| held.0).collect())
    }

    /// Records an order as refused for which the store holds nothing, whatever is left of the sku: what is left is somebody else's.
    pub(super) async fn refuse_within(
        &self,
        connection: &mut AnyConnection,
        segment: &SegmentId,
        order: &StoredOrder,
        now_ms: u64,
    ) -> Result<Settled, LedgerError> {
        if self.is_known(connection, order).await? {
            return Ok(Settled::Duplicate);
        }
        let refused = [(order, OrderStatus::Refused)];
        let fresh = self
            .insert_orders(connection, segment, &refused, now_ms)
            .await?;
        if fresh.is_empty() {
            self.refuse_second_order(connection, segment, order, now_ms)
                .await?;
            return Ok(Settled::SecondOrder);
        }
        Ok(Settled::Refused)
    }
}
