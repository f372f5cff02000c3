//! The epochs of segments, and what a segment is rebuilt from.
//!
//! An epoch is raised here before anything else happens to the segment. From then on the ledger takes no order that was pulled
//! under an older one ([`OrderLedger::settle`]), so what a rebuild reads is all there will ever be of the past (INV-EPOCH-1).

use std::collections::HashMap;

use sqlx::AnyConnection;
use stock::{OrderState, StockMoves, StoredOrder};

use super::{
    LedgerError, LedgerOrder, OrderLedger, OrderStatus, query::query, rows::order_columns,
};
use crate::{
    ids::{OrderId, SegmentId},
    sale::{Sale, shares},
};

/// The answer to [`OrderLedger::raise_epoch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// The new epoch.
    To(u64),
    /// The lease has gone to somebody else; nothing changed.
    LeaseLost,
    /// The segment was never opened; nothing changed.
    NeverOpened,
}

const IS_HOLDER: &str =
    "UPDATE sale_leases SET token = token WHERE name = 'recovery' AND token = $1";
const RAISE: &str = "UPDATE sale_segments SET epoch = CASE WHEN epoch > $4 THEN epoch ELSE $4 END + 1 \
    WHERE sale = $1 AND sku = $2 AND segment = $3 RETURNING epoch";
const EPOCHS: &str = "SELECT sale, sku, segment, epoch FROM sale_segments";
const SET: &str =
    "UPDATE sale_segments SET epoch = $4 WHERE sale = $1 AND sku = $2 AND segment = $3";
const FORGET_INSTALL: &str = "DELETE FROM sale_installs";
/// Nothing was taken for these yet, as far as anybody can still prove; the store is told so when it is rebuilt.
const CALL_OFF: &str = "UPDATE sale_transfers SET state = 'cancelled' \
    WHERE sale = $1 AND sku = $2 AND source = $3 AND state = 'pending'";
/// Locks the row, so that an epoch cannot be raised between this look and the commit. An order proves that its segment was open.
const IS_EPOCH: &str = "INSERT INTO sale_segments (sale, sku, segment, opened_at_ms, epoch) VALUES ($1, $2, $3, $5, $4) \
    ON CONFLICT (sale, sku, segment) DO UPDATE SET epoch = sale_segments.epoch WHERE sale_segments.epoch = $4";
const LEFT: &str = "SELECT transfer_id, CASE state WHEN 'cancelled' THEN 0 ELSE units END FROM sale_transfers \
    WHERE sale = $1 AND sku = $2 AND source = $3 AND state <> 'pending' ORDER BY transfer_id";
const ARRIVED: &str = "SELECT transfer_id, units FROM sale_transfers \
    WHERE sale = $1 AND sku = $2 AND destination = $3 AND state IN ('moving', 'done') ORDER BY transfer_id";
const PAGE: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM order_orders WHERE sale = $1 AND sku = $2 AND segment = $3 AND order_id > $4 ORDER BY order_id LIMIT $5"
);

impl OrderLedger {
    /// Raises the epoch of a segment above its own and above `above`, for the holder of the lease with this token. Transfers out
    /// of the segment that had not begun are called off in the same transaction.
    pub async fn raise_epoch(
        &self,
        segment: &SegmentId,
        above: u64,
        token: u64,
    ) -> Result<Raised, LedgerError> {
        let mut tx = self.pool.begin().await?;
        if query!(IS_HOLDER, token).run(&mut *tx).await? == 0 {
            return Ok(Raised::LeaseLost);
        }
        let raised = query!(RAISE, segment, above).first(&mut *tx).await?;
        let Some(epoch) = raised else {
            return Ok(Raised::NeverOpened);
        };
        query!(CALL_OFF, segment).run(&mut *tx).await?;
        tx.commit().await?;
        Ok(Raised::To(epoch))
    }

    /// Whether a transaction works under the epoch in force. Holds the epoch until the transaction ends.
    pub(super) async fn is_epoch(
        connection: &mut AnyConnection,
        segment: &SegmentId,
        epoch: u64,
        now_ms: u64,
    ) -> Result<bool, LedgerError> {
        let current = query!(IS_EPOCH, segment, epoch, now_ms);
        Ok(current.run(connection).await? > 0)
    }

    /// Gives every segment an epoch above all that the ledger and a store's copy have seen, and answers them. For a restore: the store
    /// beside the ledger is an installation of its own from now on, which registers when it is started.
    pub(crate) async fn raise_all(
        &self,
        held: &[(SegmentId, u64)],
    ) -> Result<HashMap<SegmentId, u64>, LedgerError> {
        let known: Vec<(SegmentId, u64)> = query!(EPOCHS).all(&self.pool).await?;
        let mut epochs = HashMap::<SegmentId, u64>::new();
        for (segment, epoch) in held.iter().cloned().chain(known) {
            let newest = epochs.entry(segment).or_default();
            *newest = epoch.max(*newest);
        }
        for (segment, epoch) in &mut epochs {
            *epoch += 1;
            query!(SET, segment, *epoch).run(&self.pool).await?;
        }
        query!(FORGET_INSTALL).run(&self.pool).await?;
        Ok(epochs)
    }

    /// What came to a segment and left it, beside orders: its share of the sku's restocks, and transfers.
    pub async fn stock_moves(
        &self,
        sale: &Sale,
        segment: &SegmentId,
    ) -> Result<StockMoves, LedgerError> {
        let segments = sale.segments_of(&segment.sku);
        let place = segments.iter().position(|id| id == segment);
        let mut moves = StockMoves::default();
        for restock in self.restocks(&sale.id).await? {
            let share = place.and_then(|place| shares(restock.units, segments.len()).nth(place));
            if restock.sku == segment.sku
                && let Some(share) = share
            {
                moves.restocks.push((restock.id, share));
            }
        }
        for (statement, list) in [
            (LEFT, &mut moves.withdrawals),
            (ARRIVED, &mut moves.restocks),
        ] {
            let moved: Vec<(String, u64)> = query!(statement, segment).all(self.reads()).await?;
            list.extend(moved);
        }
        Ok(moves)
    }

    /// The orders of one segment after an id, in the order of their ids.
    pub async fn segment_orders(
        &self,
        segment: &SegmentId,
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<LedgerOrder>, LedgerError> {
        let after = after.unwrap_or(OrderId::from_u128(0));
        query!(PAGE, segment, after, limit).all(self.reads()).await
    }
}

impl LedgerOrder {
    /// The order as a stock store holds it.
    pub fn as_stored(&self) -> StoredOrder {
        let state = match self.status {
            OrderStatus::Reserved | OrderStatus::Paying => OrderState::Reserved,
            OrderStatus::Paid => OrderState::Sold,
            OrderStatus::Released | OrderStatus::Refused => OrderState::Released,
        };
        StoredOrder {
            order: self.order,
            buyer: self.buyer.clone(),
            request: self.request.clone(),
            quantity: self.quantity,
            fingerprint: self.fingerprint,
            state,
            created_at_ms: self.created_at_ms,
            pay_by_ms: self.pay_by_ms,
            metadata: self.metadata.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Row, SqlSafeStr};

    use super::*;
    use crate::ledger;

    /// INV-PAST-1. Broke: each page sorted all orders of the sku, so that the rebuild of a big sale did not come to an end.
    #[tokio::test]
    async fn a_page_of_a_rebuild_is_read_from_an_index_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {PAGE}")).into_sql_str();
        let plan = sqlx::query(explain)
            .bind("s")
            .bind("k")
            .bind(1)
            .bind("o")
            .bind(9);
        let plan = plan.fetch_all(ledger.pool()).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        let index = "SEARCH order_orders USING INDEX order_orders_segment \
            (sale=? AND sku=? AND segment=? AND order_id>?)";
        assert_eq!(plan, [index]);
    }
}
