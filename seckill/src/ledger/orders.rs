//! Orders one by one and in pages, and the two ways an unpaid order ends: its buyer cancels it, or its time is over.

use std::collections::BTreeMap;

use sqlx::AnyConnection;

use super::{
    LedgerError, LedgerOrder, OrderLedger, OrderStatus, checkout,
    engine::{Engine, Statement, list, side_by_side},
    outbox::{self, EventKind},
    query::query,
    rows::{Page, order_columns},
    store_tasks,
};
use crate::{
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    sale::Sale,
};

/// The answer to [`OrderLedger::cancel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancel {
    /// The order is released now.
    Cancelled(LedgerOrder),
    /// It had been released before.
    AlreadyReleased(LedgerOrder),
    /// It is being paid, is paid, or was refused.
    NotCancellable(LedgerOrder),
    /// The buyer has no such order in the ledger.
    Unknown,
}

/// The answer to [`OrderLedger::cancel_all`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelAll {
    /// All are released, now or before, or were refused and hold nothing; these orders as they stand.
    Cancelled(Vec<LedgerOrder>),
    /// This one is being paid or is paid, so nothing was changed.
    NotCancellable(Box<LedgerOrder>),
    /// The buyer has no such order in the ledger; nothing was changed.
    Unknown(OrderId),
}

const POSTGRES_NOW: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// An order's id carries the clock of the node that made it; a page looks this far around the sale's window.
pub(super) const CLOCK_SLACK_MS: u64 = 24 * 3_600_000;
/// Largest page.
const MAX_PAGE: usize = 10_000;

const BY_REQUEST: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM order_orders WHERE sale = $1 AND sku = $2 AND buyer = $3 AND request_id = $4"
);
/// Sku by sku, so that the unique key answers it.
const ALL_BY_REQUEST: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM order_orders WHERE sale = $1 AND sku IN (SELECT sku FROM sale_skus WHERE sale = $1) AND buyer = $2 AND request_id = $3"
);
const PAGE: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM order_orders WHERE sale = $1 AND order_id > $2 AND order_id <= $3 ORDER BY order_id LIMIT $4"
);
const CANCEL: &str = concat!(
    "UPDATE order_orders SET status = 'released', reason = 'cancelled', version = version + 1 \
     WHERE order_id = $1 AND buyer = $2 AND status = 'reserved' RETURNING ",
    order_columns!()
);
const EXPIRE: Statement = side_by_side!("expire");
const GIVE_BACK: &str = "UPDATE sale_skus SET sold = sold - $1 WHERE sale = $2 AND sku = $3";

impl OrderLedger {
    /// One order.
    pub async fn order(&self, order: OrderId) -> Result<Option<LedgerOrder>, LedgerError> {
        let mut connection = self.reads().acquire().await?;
        checkout::read(&mut connection, order).await
    }

    /// The order of a request.
    pub async fn order_by_request(
        &self,
        sale: &SaleId,
        sku: &SkuId,
        buyer: &BuyerId,
        request: &RequestId,
    ) -> Result<Option<LedgerOrder>, LedgerError> {
        let found = query!(BY_REQUEST, sale, sku, buyer, request);
        found.first(self.reads()).await
    }

    /// The orders of a request in all skus of a sale, in no order.
    pub async fn orders_by_request(
        &self,
        sale: &SaleId,
        buyer: &BuyerId,
        request: &RequestId,
    ) -> Result<Vec<LedgerOrder>, LedgerError> {
        query!(ALL_BY_REQUEST, sale, buyer, request)
            .all(self.reads())
            .await
    }

    /// The orders of a sale after a cursor, in the order of their ids.
    pub async fn orders_page(
        &self,
        sale: &Sale,
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Page<LedgerOrder, OrderId>, LedgerError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let first = OrderId::new(sale.starts_at_ms.saturating_sub(CLOCK_SLACK_MS), 0, 0);
        let last = OrderId::new(
            (sale.ends_at_ms + CLOCK_SLACK_MS).min((1 << 48) - 1),
            u32::MAX,
            u64::MAX,
        );
        let page = query!(PAGE, &sale.id, after.unwrap_or(first), last, limit);
        let orders = page.all(self.reads()).await?;
        Ok(Page::of(orders, limit, |order: &LedgerOrder| order.order))
    }

    /// The buyer gives an unpaid order back. The order of another buyer is not found.
    pub async fn cancel(
        &self,
        order: OrderId,
        buyer: &BuyerId,
        now_ms: u64,
    ) -> Result<Cancel, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let cancelled = query!(CANCEL, order, buyer).first(&mut *tx).await?;
        let Some(released) = cancelled else {
            let known = checkout::read(&mut tx, order).await?;
            tx.rollback().await?;
            return Ok(match known.filter(|known| known.buyer == *buyer) {
                None => Cancel::Unknown,
                Some(known) if known.status == OrderStatus::Released => {
                    Cancel::AlreadyReleased(known)
                }
                Some(known) => Cancel::NotCancellable(known),
            });
        };

        self.give_back(&mut tx, std::slice::from_ref(&released), now_ms)
            .await?;
        tx.commit().await?;
        self.shared.cancelled.increment(1);
        self.shared.order_watch.touch([order]);
        self.wake();
        Ok(Cancel::Cancelled(released))
    }

    /// Releases several orders of a buyer, all or none. What is released already stays so.
    pub async fn cancel_all(
        &self,
        orders: &[OrderId],
        buyer: &BuyerId,
        now_ms: u64,
    ) -> Result<CancelAll, LedgerError> {
        // Sorted, so that two callers lock the rows in the same order.
        let mut sorted = orders.to_vec();
        sorted.sort_unstable();
        let mut tx = self.pool.begin().await?;
        let (mut all, mut released) = (Vec::with_capacity(sorted.len()), Vec::new());
        for id in sorted {
            if let Some(order) = query!(CANCEL, id, buyer).first(&mut *tx).await? {
                released.push(order);
                continue;
            }
            match checkout::read(&mut tx, id).await? {
                Some(known) if known.buyer == *buyer => match known.status {
                    OrderStatus::Released | OrderStatus::Refused => all.push(known),
                    OrderStatus::Reserved | OrderStatus::Paying | OrderStatus::Paid => {
                        tx.rollback().await?;
                        return Ok(CancelAll::NotCancellable(Box::new(known)));
                    }
                },
                _ => {
                    tx.rollback().await?;
                    return Ok(CancelAll::Unknown(id));
                }
            }
        }
        if released.is_empty() {
            tx.rollback().await?;
            return Ok(CancelAll::Cancelled(all));
        }
        self.give_back(&mut tx, &released, now_ms).await?;
        tx.commit().await?;
        self.shared.cancelled.increment(released.len() as u64);
        self.wake();
        all.append(&mut released);
        Ok(CancelAll::Cancelled(all))
    }

    /// The ledger's clock, in unix milliseconds. PostgreSQL has one of its own; SQLite is in this process, so its clock is ours.
    pub async fn now_ms(&self, own_ms: u64) -> Result<u64, LedgerError> {
        if self.engine == Engine::Sqlite {
            return Ok(own_ms);
        }
        query!(POSTGRES_NOW).one(&self.pool).await
    }

    /// Releases orders that were not paid in time, at most `limit` of them. An order is released by exactly one caller, which is told its id.
    pub async fn expire_due(&self, now_ms: u64, limit: usize) -> Result<Vec<OrderId>, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let expired = query!(EXPIRE.on(self.engine), now_ms, limit);
        let released: Vec<LedgerOrder> = expired.all(&mut *tx).await?;
        if released.is_empty() {
            tx.rollback().await?;
            return Ok(Vec::new());
        }

        self.give_back(&mut tx, &released, now_ms).await?;
        tx.commit().await?;
        self.shared.expired.increment(released.len() as u64);
        let ids: Vec<OrderId> = released.iter().map(|order| order.order).collect();
        self.shared.order_watch.touch(ids.iter().copied());
        self.wake();
        Ok(ids)
    }

    /// The rest of a release, inside its transaction: the units, the store's effect, the shop's event.
    async fn give_back(
        &self,
        connection: &mut AnyConnection,
        released: &[LedgerOrder],
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        // Sorted, so that two releases lock the rows of several skus in the same order.
        let mut by_segment: BTreeMap<&SegmentId, Vec<&LedgerOrder>> = BTreeMap::new();
        for order in released {
            by_segment.entry(&order.segment).or_default().push(order);
        }
        for (segment, orders) in by_segment {
            let units: i64 = orders.iter().map(|order| i64::from(order.quantity)).sum();
            query!(GIVE_BACK, units, &segment.sale, &segment.sku)
                .run(&mut *connection)
                .await?;
        }
        let ids = list(released.iter().map(|order| order.order));
        store_tasks::insert_releases(self, connection, &ids, now_ms).await?;
        if self.has_outbox {
            outbox::insert_many(self, connection, &ids, EventKind::Released, now_ms).await?;
        }
        Ok(())
    }
}
