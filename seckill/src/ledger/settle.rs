//! Takes a batch of accepted orders into the ledger: one transaction, guarded by `sold + quantity <= total` (INV-STOCK-1).
//!
//! The orders are inserted first, because only then is it known how many of a redelivered batch are new; the guarded update
//! by the sum of the new ones comes last, so that the hot row is locked for no longer than the commit takes. When the guard
//! refuses, the store has admitted more than there is: the transaction is rolled back and the batch goes through one order
//! at a time, so that exactly those beyond the stock are refused.

use std::{collections::HashSet, sync::LazyLock};

use sqlx::{Any, AnyConnection, Transaction};

use super::{DeadLetter, LedgerError, OrderLedger, OrderStatus, sql};
use crate::{
    ids::{OrderId, SegmentId},
    store::{OrderState, StoredOrder},
};

/// What became of one order of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is in the ledger now.
    Settled,
    /// It was in the ledger before; nothing changed.
    Duplicate,
    /// No unit was left for it: it is recorded as refused, its units go back in the store.
    Refused,
    /// Its request id has another order: it is set aside, its units go back in the store.
    SecondOrder,
}

const POSTGRES: &str = include_str!("sql/settle.postgres.sql");
/// The same for a batch in which all orders are new, as almost all batches are: PostgreSQL then need not look into each unique
/// index before it writes there. An order that is not new fails the whole statement.
static POSTGRES_ALL_NEW: LazyLock<String> =
    LazyLock::new(|| POSTGRES.replacen("ON CONFLICT DO NOTHING", "", 1));
const SQLITE_ORDERS: &str = include_str!("sql/settle_orders.sqlite.sql");
const SQLITE_EVENTS: &str = include_str!("sql/settle_events.sqlite.sql");
const SQLITE_EFFECTS: &str = include_str!("sql/settle_effects.sqlite.sql");
const TAKE: &str =
    "UPDATE sale_skus SET sold = sold + $1 WHERE sale = $2 AND sku = $3 AND sold + $1 <= total";
/// An update that changes nothing: it locks the row, and reads what is left under that lock.
const LOCK_AND_READ_LEFT: &str =
    "UPDATE sale_skus SET sold = sold WHERE sale = $1 AND sku = $2 RETURNING total - sold";
const KNOWN_POSTGRES: &str =
    "SELECT order_id FROM order_orders WHERE order_id = ANY(string_to_array($1, E'\\n'))";
const KNOWN_SQLITE: &str =
    "SELECT order_id FROM order_orders WHERE order_id IN (SELECT value FROM json_each($1))";

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
                self.settle_sparingly(segment, epoch, orders, now_ms)
                    .await?
            }
        };
        self.announce(segment, orders);
        Ok(settled)
    }

    /// Tells this process that a transaction has committed which settled these.
    pub(super) fn announce(&self, segment: &SegmentId, orders: &[StoredOrder]) {
        self.shared
            .waiters
            .wake(orders.iter().map(|order| order.order));
        self.shared.following.settled(segment, orders);
        self.wake();
    }

    /// A transaction under the epoch in force, which stays in force until it ends.
    pub(super) async fn begin_under(
        &self,
        segment: &SegmentId,
        epoch: u64,
        now_ms: u64,
    ) -> Result<Transaction<'static, Any>, LedgerError> {
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
    async fn settle_sparingly(
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
                OrderStatus::Reserved if quantity > left => OrderStatus::Refused,
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
            if status == OrderStatus::Reserved {
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

    /// A transaction in which what is new of the batch is inserted, and which that is.
    async fn begin_with_orders(
        &self,
        segment: &SegmentId,
        epoch: u64,
        batch: &[(&StoredOrder, OrderStatus)],
        now_ms: u64,
    ) -> Result<(Transaction<'static, Any>, HashSet<OrderId>), LedgerError> {
        if !self.is_sqlite {
            let mut tx = self.begin_under(segment, epoch, now_ms).await?;
            match self
                .insert_postgres(&mut tx, &POSTGRES_ALL_NEW, segment, batch, now_ms)
                .await
            {
                // A redelivered batch: begin again, and skip what is known.
                Err(LedgerError::Invalid(sqlx::Error::Database(error)))
                    if error.is_unique_violation() =>
                {
                    tx.rollback().await?;
                }
                inserted => return Ok((tx, inserted?)),
            }
        }
        let mut tx = self.begin_under(segment, epoch, now_ms).await?;
        let fresh = self.insert_orders(&mut tx, segment, batch, now_ms).await?;
        Ok((tx, fresh))
    }

    /// Inserts what is new, with its events and effects; answers which were.
    async fn insert_orders(
        &self,
        connection: &mut AnyConnection,
        segment: &SegmentId,
        batch: &[(&StoredOrder, OrderStatus)],
        now_ms: u64,
    ) -> Result<HashSet<OrderId>, LedgerError> {
        if self.is_sqlite {
            return self
                .insert_orders_sqlite(connection, segment, batch, now_ms)
                .await;
        }
        self.insert_postgres(connection, POSTGRES, segment, batch, now_ms)
            .await
    }

    async fn insert_postgres(
        &self,
        connection: &mut AnyConnection,
        statement: &'static str,
        segment: &SegmentId,
        batch: &[(&StoredOrder, OrderStatus)],
        now_ms: u64,
    ) -> Result<HashSet<OrderId>, LedgerError> {
        let new: Vec<String> = sqlx::query_scalar(statement)
            .bind(segment.sale.as_str())
            .bind(segment.sku.as_str())
            .bind(i64::from(segment.index))
            .bind(sql(now_ms))
            .bind(self.list(batch.iter().map(|(order, _)| order.order)))
            .bind(self.list(batch.iter().map(|(order, _)| order.buyer.as_str())))
            .bind(self.list(batch.iter().map(|(order, _)| order.request.as_str())))
            .bind(self.list(batch.iter().map(|(order, _)| order.quantity)))
            .bind(self.list(batch.iter().map(|(order, _)| sql(order.created_at_ms))))
            .bind(self.list(batch.iter().map(|(order, _)| sql(order.pay_by_ms))))
            .bind(self.list(batch.iter().map(|(_, status)| status.as_str())))
            .bind(i64::from(self.has_outbox))
            .bind(
                self.list(
                    batch
                        .iter()
                        .map(|(order, _)| order.fingerprint.cast_signed()),
                ),
            )
            .fetch_all(connection)
            .await?;
        new.iter()
            .flat_map(|lines| lines.lines())
            .map(read_id)
            .collect()
    }

    async fn insert_orders_sqlite(
        &self,
        connection: &mut AnyConnection,
        segment: &SegmentId,
        batch: &[(&StoredOrder, OrderStatus)],
        now_ms: u64,
    ) -> Result<HashSet<OrderId>, LedgerError> {
        let row = |(order, status): &(&StoredOrder, OrderStatus)| {
            let (id, times) = (
                order.order.to_string(),
                (sql(order.created_at_ms), sql(order.pay_by_ms)),
            );
            serde_json::json!([
                id,
                order.buyer,
                order.request,
                order.quantity,
                times.0,
                times.1,
                status.as_str(),
                order.fingerprint.cast_signed(),
            ])
        };
        let rows = serde_json::Value::Array(batch.iter().map(row).collect());
        let new: Vec<String> = sqlx::query_scalar(SQLITE_ORDERS)
            .bind(segment.sale.as_str())
            .bind(segment.sku.as_str())
            .bind(i64::from(segment.index))
            .bind(sql(now_ms))
            .bind(rows.to_string())
            .fetch_all(&mut *connection)
            .await?;
        let ids = self.list(&new);
        if self.has_outbox && !new.is_empty() {
            sqlx::query(SQLITE_EVENTS)
                .bind(sql(now_ms))
                .bind(ids.as_str())
                .execute(&mut *connection)
                .await?;
        }
        if batch
            .iter()
            .any(|(_, status)| *status == OrderStatus::Refused)
        {
            sqlx::query(SQLITE_EFFECTS)
                .bind(sql(now_ms))
                .bind(ids.as_str())
                .execute(&mut *connection)
                .await?;
        }
        new.iter().map(|id| read_id(id)).collect()
    }

    /// Which of these orders the ledger has.
    async fn known_orders(
        &self,
        connection: &mut AnyConnection,
        orders: impl Iterator<Item = OrderId>,
    ) -> Result<HashSet<OrderId>, LedgerError> {
        let statement = if self.is_sqlite {
            KNOWN_SQLITE
        } else {
            KNOWN_POSTGRES
        };
        let known: Vec<String> = sqlx::query_scalar(statement)
            .bind(self.list(orders))
            .fetch_all(connection)
            .await?;
        known.iter().map(|id| read_id(id)).collect()
    }

    /// Whether the ledger has this order.
    pub(super) async fn is_known(
        &self,
        connection: &mut AnyConnection,
        order: &StoredOrder,
    ) -> Result<bool, LedgerError> {
        let known = self
            .known_orders(connection, std::iter::once(order.order))
            .await?;
        Ok(!known.is_empty())
    }

    /// A store that lost the record of a request accepted it again under another order id. The first order stands
    /// (INV-ORDER-1); this one is set aside and its units go back.
    async fn refuse_second_order(
        &self,
        connection: &mut AnyConnection,
        segment: &SegmentId,
        order: &StoredOrder,
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        let known =
            sqlx::query_scalar::<_, i64>("SELECT sold FROM sale_skus WHERE sale = $1 AND sku = $2")
                .bind(segment.sale.as_str())
                .bind(segment.sku.as_str())
                .fetch_all(&mut *connection)
                .await?;
        if known.is_empty() {
            // Nothing was inserted because there is no such sku, not because of another order.
            return Err(unknown_sku(segment));
        }
        let letter = DeadLetter {
            segment: segment.clone(),
            position: order.order.to_string(),
            order: Some(order.order),
            reason: "the request id has another order".to_owned(),
            raw: format!("{order:?}"),
        };
        super::dead_letters::insert(connection, &letter, now_ms).await?;
        super::effects::insert(
            connection,
            order.order,
            segment,
            super::Action::Release,
            now_ms,
        )
        .await
    }
}

/// What an order is in the ledger if there is stock for it. One that the store has already taken back never takes units here.
fn arrival_status(order: &StoredOrder) -> OrderStatus {
    match order.state {
        OrderState::Reserved | OrderState::Sold => OrderStatus::Reserved,
        OrderState::Released => OrderStatus::Released,
    }
}

/// What is left of a sku, read under the lock of its row.
pub(super) async fn units_left(
    connection: &mut AnyConnection,
    segment: &SegmentId,
) -> Result<u64, LedgerError> {
    let left = sqlx::query_scalar(LOCK_AND_READ_LEFT)
        .bind(segment.sale.as_str())
        .bind(segment.sku.as_str());
    let left: Vec<i64> = left.fetch_all(connection).await?;
    let left = left.first().ok_or_else(|| unknown_sku(segment))?;
    u64::try_from(*left).map_err(|_| {
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
    let taken = sqlx::query(TAKE)
        .bind(units)
        .bind(segment.sale.as_str())
        .bind(segment.sku.as_str());
    Ok(taken.execute(connection).await?.rows_affected() == 1)
}

fn read_id(text: &str) -> Result<OrderId, LedgerError> {
    text.parse()
        .map_err(|_| LedgerError::Corrupt(format!("order id {text:?}")))
}

fn unknown_sku(segment: &SegmentId) -> LedgerError {
    LedgerError::UnknownSku {
        sale: segment.sale.clone(),
        sku: segment.sku.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_orders_are_inserted_without_looking_for_conflicts() {
        let conflicts = |statement: &str| statement.matches("ON CONFLICT DO NOTHING").count();
        assert_eq!(conflicts(&POSTGRES_ALL_NEW), conflicts(POSTGRES) - 1);
        let orders = POSTGRES_ALL_NEW.split("RETURNING").next();
        assert_eq!(orders.map(conflicts), Some(0));
    }
}
