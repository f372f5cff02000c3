//! What the stock store must still be told: written in the transaction that decided it, removed when the store has answered.

use sqlx::AnyConnection;
use stock::words;

use super::{
    LedgerError, OrderLedger,
    engine::{Statement, among, list},
    query::{from_row, query},
};
use crate::ids::{OrderId, SegmentId};

words! {
    /// What the store must do with an order.
    pub enum Action {
        /// Take its units back.
        Release = "release",
        /// Count its units as sold.
        Confirm = "confirm",
    }
}

/// One thing to tell the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreTask {
    /// The order.
    pub order: OrderId,
    /// What to do with it.
    pub action: Action,
}

from_row!(StoreTask: order, action);

const SEGMENTS: &str = "SELECT DISTINCT sale, sku, segment FROM order_effects";
const OLDEST: &str = "SELECT order_id, action FROM order_effects WHERE sale = $1 AND sku = $2 AND segment = $3 \
    ORDER BY created_at_ms, order_id LIMIT $4";

impl OrderLedger {
    /// The segments that have effects pending.
    pub async fn segments_with_effects(&self) -> Result<Vec<SegmentId>, LedgerError> {
        query!(SEGMENTS).all(self.reads()).await
    }

    /// The oldest pending effects of a segment.
    pub async fn effects(
        &self,
        segment: &SegmentId,
        limit: usize,
    ) -> Result<Vec<StoreTask>, LedgerError> {
        query!(OLDEST, segment, limit).all(self.reads()).await
    }

    /// Removes effects that the store has answered.
    pub async fn effects_done(
        &self,
        action: Action,
        orders: &[OrderId],
    ) -> Result<(), LedgerError> {
        const DONE: Statement = among!(
            ["DELETE FROM order_effects WHERE action = $1 AND order_id"],
            "$2"
        );
        if orders.is_empty() {
            return Ok(());
        }
        query!(DONE.on(self.engine), action.as_str(), list(orders))
            .run(&self.pool)
            .await?;
        Ok(())
    }
}

/// Writes one effect inside a transaction.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    order: OrderId,
    segment: &SegmentId,
    action: Action,
    now_ms: u64,
) -> Result<(), LedgerError> {
    const INSERT: &str = "INSERT INTO order_effects (order_id, action, sale, sku, segment, created_at_ms) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    query!(INSERT, order, action.as_str(), segment, now_ms)
        .run(connection)
        .await?;
    Ok(())
}

/// Writes the release of orders that this transaction has changed, given as [`list`].
pub(super) async fn insert_releases(
    ledger: &OrderLedger,
    connection: &mut AnyConnection,
    orders: &str,
    now_ms: u64,
) -> Result<(), LedgerError> {
    const INSERT: Statement = among!(
        [
            "INSERT INTO order_effects (order_id, action, sale, sku, segment, created_at_ms) \
          SELECT order_id, 'release', sale, sku, segment, $1 FROM order_orders WHERE order_id"
        ],
        "$2",
        " ON CONFLICT DO NOTHING"
    );
    query!(INSERT.on(ledger.engine), now_ms, orders)
        .run(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{Row, SqlSafeStr};

    use super::*;
    use crate::ledger;

    // Both used to read and sort every effect there was, four times a second.
    #[tokio::test]
    async fn effects_are_read_through_their_index() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        for statement in [OLDEST, SEGMENTS] {
            let explain =
                sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")).into_sql_str();
            let plan = sqlx::query(explain).fetch_all(ledger.pool()).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
            assert!(
                plan.len() == 1 && plan[0].contains("INDEX order_effects_segment"),
                "{plan:?}"
            );
        }
    }
}
