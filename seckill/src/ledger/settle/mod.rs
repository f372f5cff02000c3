//! Takes a batch of accepted orders into the ledger: one transaction, guarded by `sold + quantity <= total` (INV-STOCK-1).
//!
//! The orders are inserted first, because only then is it known how many of a redelivered batch are new; the guarded update
//! by the sum of the new ones comes last, so that the hot row is locked for no longer than the commit takes. When the guard
//! refuses, the store has admitted more than there is: the transaction is rolled back and the batch goes through one order
//! at a time, so that exactly those beyond the stock are refused.

mod insert;

use std::collections::HashSet;

use sqlx::AnyConnection;
use stock::{OrderState, StoredOrder, words};

use super::{DeadLetter, LedgerError, OrderLedger, OrderStatus, pool::Tx, query::query, sql};
use crate::ids::{OrderId, SegmentId};

words! {
    /// What became of one order of a batch, and the word for a closed letter.
    pub enum Settled {
        /// It is in the ledger now.
        Settled = "settled",
        /// It was in the ledger before; nothing changed.
        Duplicate = "duplicate",
        /// No unit was left for it: it is recorded as refused, its units go back in the store.
        Refused = "refused",
        /// Its request id has another order: it is set aside, its units go back in the store.
        SecondOrder = "second_order",
    }
}

const TAKE: &str =
    "UPDATE sale_skus SET sold = sold + $1 WHERE sale = $2 AND sku = $3 AND sold + $1 <= total";
/// An update that changes nothing: it locks the row, and reads what is left under that lock.
const LOCK_AND_READ_LEFT: &str =
    "UPDATE sale_skus SET sold = sold WHERE sale = $1 AND sku = $2 RETURNING total - sold";
impl OrderLedger {
    /// Settles a batch of one segment that was handed out under an epoch. Answers in the order of the batch. Repeating it
    /// changes nothing.
    pub async fn settle(
        &self,
        segment: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
        now_ms: u64,
    ) -> Result<Vec<Settled>, LedgerError> {
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let settled = match self.settle_together(segment, epoch, orders, now_ms).await? {
            Some(settled) => settled,
            None => {
                self.settle_one_by_one(segment, epoch, orders, now_ms)
                    .await?
            }
        };
        self.announce(segment, orders);
        Ok(settled)
    }

    /// Tells this process that a transaction has committed which settled these.
    pub(super) fn announce(&self, segment: &SegmentId, orders: &[StoredOrder]) {
        self.shared.order_watch.settled(segment, orders);
        self.wake();
    }

    /// A transaction under the epoch in force, which stays in force until it ends.
    pub(super) async fn begin_under(
        &self,
        segment: &SegmentId,
        epoch: u64,
        now_ms: u64,
    ) -> Result<Tx, LedgerError> {
        let mut tx = self.pool.begin().await?;
        if !Self::is_epoch(&mut tx, segment, epoch, now_ms).await? {
            return Err(LedgerError::StaleEpoch {
                segment: segment.clone(),
                epoch,
            });
        }
        Ok(tx)
    }

    /// The usual path. `None`: the guard refused and nothing was changed.
    async fn settle_together(
        &self,
        segment: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
        now_ms: u64,
    ) -> Result<Option<Vec<Settled>>, LedgerError> {
        let batch: Vec<_> = orders
            .iter()
            .map(|order| (order, arrival_status(order)))
            .collect();
        let (mut tx, mut fresh) = self
            .begin_with_orders(segment, epoch, &batch, now_ms)
            .await?;
        let taken = orders
            .iter()
            .filter(|order| order.state != OrderState::Released && fresh.contains(&order.order));
        // A batch may hold the same order twice; it takes its units once.
        let taken: HashSet<(OrderId, u32)> =
            taken.map(|order| (order.order, order.quantity)).collect();
        let units = taken.iter().map(|(_, quantity)| i64::from(*quantity)).sum();
        if !take(&mut tx, segment, units).await? {
            tx.rollback().await?;
            return Ok(None);
        }
        let mut settled = Vec::with_capacity(orders.len());
        let mut skipped = Vec::new();
        for (place, order) in orders.iter().enumerate() {
            let is_fresh = fresh.remove(&order.order);
            settled.push(if is_fresh {
                Settled::Settled
            } else {
                Settled::Duplicate
            });
            if !is_fresh {
                skipped.push(place);
            }
        }
        if !skipped.is_empty() {
            let known = self
                .known_orders(&mut tx, skipped.iter().map(|&place| orders[place].order))
                .await?;
            for place in skipped
                .into_iter()
                .filter(|&place| !known.contains(&orders[place].order))
            {
                self.refuse_second_order(&mut tx, segment, &orders[place], now_ms)
                    .await?;
                settled[place] = Settled::SecondOrder;
            }
        }
        tx.commit().await?;
        Ok(Some(settled))
    }

    /// The path of a store that admitted too much: one order at a time under the row's lock, while units are left.
    async fn settle_one_by_one(
        &self,
        segment: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
        now_ms: u64,
    ) -> Result<Vec<Settled>, LedgerError> {
        let mut tx = self.begin_under(segment, epoch, now_ms).await?;
        let settled = self.settle_within(&mut tx, segment, orders, now_ms).await?;
        tx.commit().await?;
        Ok(settled)
    }

    /// The same inside a transaction.
    pub(super) async fn settle_within(
        &self,
        connection: &mut AnyConnection,
        segment: &SegmentId,
        orders: &[StoredOrder],
        now_ms: u64,
    ) -> Result<Vec<Settled>, LedgerError> {
        let mut left = sql(units_left(connection, segment).await?);
        let mut known = self
            .known_orders(connection, orders.iter().map(|order| order.order))
            .await?;
        let mut units = 0;
        let mut settled = Vec::with_capacity(orders.len());
        for order in orders {
            if !known.insert(order.order) {
                settled.push(Settled::Duplicate);
                continue;
            }
            let quantity = i64::from(order.quantity);
            let status = match arrival_status(order) {
                OrderStatus::Reserved | OrderStatus::Paid if quantity > left => {
                    OrderStatus::Refused
                }
                other => other,
            };
            let fresh = self
                .insert_orders(connection, segment, &[(order, status)], now_ms)
                .await?;
            if fresh.is_empty() {
                self.refuse_second_order(connection, segment, order, now_ms)
                    .await?;
                settled.push(Settled::SecondOrder);
                continue;
            }
            if status.is_live() {
                left -= quantity;
                units += quantity;
            }
            settled.push(if status == OrderStatus::Refused {
                Settled::Refused
            } else {
                Settled::Settled
            });
        }
        if !take(connection, segment, units).await? {
            // The row was locked, so this is a fault of this function.
            return Err(LedgerError::Corrupt(format!(
                "INV-STOCK-1: units of {segment} changed under a lock"
            )));
        }
        Ok(settled)
    }

    /// A store that lost the record of a request accepted it again under another order id. The first order stands
    /// (INV-ORDER-1); this one is set aside and its units go back.
    pub(super) async fn refuse_second_order(
        &self,
        connection: &mut AnyConnection,
        segment: &SegmentId,
        order: &StoredOrder,
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        const KNOWN: &str = "SELECT sold FROM sale_skus WHERE sale = $1 AND sku = $2";
        let known = query!(KNOWN, &segment.sale, &segment.sku);
        let known: Option<i64> = known.first(&mut *connection).await?;
        if known.is_none() {
            // Nothing was inserted because there is no such sku, not because of another order.
            return Err(unknown_sku(segment));
        }
        let letter = DeadLetter {
            segment: segment.clone(),
            position: order.order.to_string(),
            order: Some(order.order),
            reason: "the request id has another order".to_owned(),
            raw: format!("{order:?}"),
            held: None,
        };
        super::dead_letters::insert(connection, &letter, now_ms).await?;
        super::store_tasks::insert(
            connection,
            order.order,
            segment,
            super::Action::Release,
            now_ms,
        )
        .await
    }
}

/// What an order is in the ledger if there is stock for it. One that the store has already taken back never takes units here;
/// one that the store has as sold was paid once, in a ledger that has lost it since.
fn arrival_status(order: &StoredOrder) -> OrderStatus {
    match order.state {
        OrderState::Reserved => OrderStatus::Reserved,
        OrderState::Sold => OrderStatus::Paid,
        OrderState::Released => OrderStatus::Released,
    }
}

/// What is left of a sku, read under the lock of its row.
pub(super) async fn units_left(
    connection: &mut AnyConnection,
    segment: &SegmentId,
) -> Result<u64, LedgerError> {
    let left = query!(LOCK_AND_READ_LEFT, &segment.sale, &segment.sku);
    let left: Option<i64> = left.first(connection).await?;
    let left = left.ok_or_else(|| unknown_sku(segment))?;
    u64::try_from(left).map_err(|_| {
        LedgerError::Corrupt(format!("INV-STOCK-1: {left} units of {segment} are left"))
    })
}

/// The guard. False: fewer units are left.
async fn take(
    connection: &mut AnyConnection,
    segment: &SegmentId,
    units: i64,
) -> Result<bool, LedgerError> {
    if units == 0 {
        return Ok(true);
    }
    let taken = query!(TAKE, units, &segment.sale, &segment.sku);
    Ok(taken.run(connection).await? == 1)
}

fn unknown_sku(segment: &SegmentId) -> LedgerError {
    LedgerError::UnknownSku {
        sale: segment.sale.clone(),
        sku: segment.sku.clone(),
    }
}
