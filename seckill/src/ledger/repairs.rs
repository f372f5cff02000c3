//! What [`crate::reconcile`] asks to compare the store with the ledger order by order.

use std::collections::{HashMap, HashSet};

use super::{
    Action, LedgerError, OrderLedger, OrderStatus,
    engine::{Statement, among, list},
    query::query,
    store_tasks,
};
use crate::ids::{OrderId, SegmentId};

const COUNT: &str =
    "SELECT COUNT(*) FROM order_orders WHERE sale = $1 AND sku = $2 AND segment = $3";
const COUNT_TAKEN: &str = "SELECT COUNT(*) FROM order_orders \
    WHERE sale = $1 AND sku = $2 AND segment = $3 AND status <> 'refused'";
const PAID_UNITS: &str = "SELECT CAST(COALESCE(SUM(quantity), 0) AS BIGINT) FROM order_orders \
    WHERE sale = $1 AND sku = $2 AND segment = $3 AND status = 'paid'";
const STATUSES: Statement = among!(
    ["SELECT order_id, status FROM order_orders WHERE order_id"],
    "$1"
);
/// By both: a rebuilt store has the order at another position.
const SET_ASIDE: &str = "SELECT position, order_id FROM order_dead_letters \
    WHERE sale = $1 AND sku = $2 AND segment = $3 AND outcome = ''";
const PENDING: &str =
    "SELECT order_id FROM order_effects WHERE sale = $1 AND sku = $2 AND segment = $3";

impl OrderLedger {
    /// How many orders of a segment there are, refused and returned ones included. "None" does not say that none was accepted: settlement may be behind.
    pub async fn order_count(&self, segment: &SegmentId) -> Result<u64, LedgerError> {
        query!(COUNT, segment).one(self.reads()).await
    }

    /// How many of them ever had units: each of these the store has accepted. A letter that was closed as refused it need not know.
    pub async fn taken_count(&self, segment: &SegmentId) -> Result<u64, LedgerError> {
        query!(COUNT_TAKEN, segment).one(self.reads()).await
    }

    /// How many units of a segment are paid.
    pub async fn paid_units(&self, segment: &SegmentId) -> Result<u64, LedgerError> {
        query!(PAID_UNITS, segment).one(self.reads()).await
    }

    /// Where orders stand; those that the ledger does not have are absent.
    pub async fn statuses(
        &self,
        orders: impl IntoIterator<Item = OrderId>,
    ) -> Result<HashMap<OrderId, OrderStatus>, LedgerError> {
        let statuses = query!(STATUSES.on(self.engine), list(orders));
        statuses.all(self.reads()).await
    }

    /// The entries of a segment's queue that are set aside: their positions, and the ids of their orders.
    pub async fn set_aside_in(&self, segment: &SegmentId) -> Result<HashSet<String>, LedgerError> {
        let names: Vec<(String, String)> = query!(SET_ASIDE, segment).all(self.reads()).await?;
        let names = names
            .into_iter()
            .flat_map(|(position, order)| [position, order]);
        Ok(names.collect())
    }

    /// The orders of a segment that the store must still be told something about.
    pub async fn with_effects(&self, segment: &SegmentId) -> Result<HashSet<OrderId>, LedgerError> {
        query!(PENDING, segment).all(self.reads()).await
    }

    /// Tells the store once more what became of an order.
    pub async fn tell_again(
        &self,
        order: OrderId,
        segment: &SegmentId,
        action: Action,
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        let mut connection = self.pool.acquire().await?;
        store_tasks::insert(&mut connection, order, segment, action, now_ms).await?;
        drop(connection);
        self.wake();
        Ok(())
    }
}
