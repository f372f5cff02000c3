//! What the shop must still be told. A row is written in the transaction that decided it; [`delivery`] delivers it at least once, the
//! events of one order in their order, and several nodes share the work by leases.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
pub(super) use delivery::EventKind;
use delivery::{Event, Outbox};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    EventId, LedgerError, LedgerOrder, OrderLedger, OrderStatus,
    engine::{Statement, among, from_list, list, side_by_side},
    orders::CLOCK_SLACK_MS,
    rows::{count, order_columns, read_order},
    sql,
};
use crate::ids::OrderId;

/// The place of an event among those of its order: an order begins once and ends once.
fn step(kind: EventKind) -> i64 {
    match kind {
        EventKind::Settled | EventKind::Refused => 1,
        EventKind::Paid | EventKind::Released => 2,
    }
}

/// A reason is a line for a person; a receiver's answer may be longer.
const REASON_MAX_CHARS: usize = 500;

/// The attempt is counted at the lease, so that a crash while delivering counts too.
const LEASE: Statement = side_by_side!("lease_events");
const PRUNE: &str = "DELETE FROM order_outbox WHERE (order_id, step) IN ( \
    SELECT order_id, step FROM order_outbox WHERE order_id < $1 AND delivered_at_ms > 0 AND delivered_at_ms < $2 \
    ORDER BY order_id LIMIT $3)";
const ORDERS: Statement = among!(
    [
        "SELECT ",
        order_columns!(),
        " FROM order_orders WHERE order_id"
    ],
    "$1"
);
const DELIVERED: Statement = among!(
    ["UPDATE order_outbox SET delivered_at_ms = $1 WHERE step = $2 AND order_id"],
    "$3"
);
const RETRY: Statement = among!(
    [
        "UPDATE order_outbox SET next_at_ms = $1 WHERE step = $2 AND attempts = $3 AND delivered_at_ms = 0 AND order_id"
    ],
    "$4"
);
const HELD: Statement = among!(
    [
        "UPDATE order_outbox SET next_at_ms = $1, attempts = attempts - 1 \
      WHERE step = $2 AND attempts = $3 AND delivered_at_ms = 0 AND order_id"
    ],
    "$4"
);

#[async_trait]
impl Outbox for OrderLedger {
    type Error = LedgerError;

    async fn lease_events(
        &self,
        now_ms: u64,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        let until = now_ms + lease.as_millis() as u64;
        let rows = sqlx::query(LEASE.on(self.engine))
            .bind(sql(now_ms))
            .bind(sql(until))
            .bind(limit as i64)
            .fetch_all(&self.pool)
            .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get::<String, _>(0)?);
        }
        let orders = sqlx::query(ORDERS.on(self.engine))
            .bind(list(&ids))
            .fetch_all(self.reads())
            .await?;
        let orders = orders
            .iter()
            .map(|row| read_order(row).map(|order| (order.order.to_string(), order)))
            .collect::<Result<std::collections::HashMap<_, _>, _>>()?;
        let mut events = Vec::with_capacity(rows.len());
        for (row, id) in rows.iter().zip(&ids) {
            let order = orders
                .get(id)
                .ok_or_else(|| LedgerError::Corrupt(format!("event of missing order {id}")))?;
            events.push(event(row, order)?);
        }
        events.sort_by(|a, b| (a.created_at_ms, &a.order).cmp(&(b.created_at_ms, &b.order)));
        Ok(events)
    }

    async fn events_delivered(&self, events: &[Event], now_ms: u64) -> Result<(), LedgerError> {
        self.for_each_step(&DELIVERED, events, now_ms).await?;
        // The next event of these orders may be due now.
        self.shared.outbox.notify_one();
        Ok(())
    }

    async fn events_dead(
        &self,
        events: &[(Event, String)],
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        const DEAD: &str = "UPDATE order_outbox SET dead_at_ms = $1 \
            WHERE order_id = $2 AND step = $3 AND attempts = $4 AND delivered_at_ms = 0 AND dead_at_ms = 0";
        const REASON: &str = "INSERT INTO order_outbox_failures (order_id, step, reason) VALUES ($1, $2, $3) \
            ON CONFLICT (order_id, step) DO UPDATE SET reason = excluded.reason";
        let mut tx = self.pool.begin().await?;
        for (event, reason) in events {
            let order = &event.order;
            let dead = sqlx::query(DEAD)
                .bind(sql(now_ms))
                .bind(order)
                .bind(i64::from(event.step))
                .bind(i64::from(event.attempts))
                .execute(&mut *tx)
                .await?;
            if dead.rows_affected() > 0 {
                let reason: String = reason.chars().take(REASON_MAX_CHARS).collect();
                sqlx::query(REASON)
                    .bind(order)
                    .bind(i64::from(event.step))
                    .bind(reason)
                    .execute(&mut *tx)
                    .await?;
            }
        }
        tx.commit().await?;
        // The next event of these orders may be due now.
        self.shared.outbox.notify_one();
        Ok(())
    }

    async fn events_retry_at(&self, events: &[Event], due_ms: u64) -> Result<(), LedgerError> {
        self.for_each_lease(&RETRY, events, due_ms).await
    }

    async fn events_held(&self, events: &[Event], due_ms: u64) -> Result<(), LedgerError> {
        self.for_each_lease(&HELD, events, due_ms).await
    }

    async fn events_pending(&self) -> Result<u64, LedgerError> {
        let pending =
            "SELECT COUNT(*) FROM order_outbox WHERE delivered_at_ms = 0 AND dead_at_ms = 0";
        let row = sqlx::query(pending).fetch_one(self.reads()).await?;
        count(&row, 0)
    }

    async fn events_given_up(&self) -> Result<u64, LedgerError> {
        let given_up = "SELECT COUNT(*) FROM order_outbox WHERE dead_at_ms > 0";
        let row = sqlx::query(given_up).fetch_one(self.reads()).await?;
        count(&row, 0)
    }

    async fn prune_events(
        &self,
        delivered_before_ms: u64,
        limit: usize,
    ) -> Result<u64, LedgerError> {
        // An event is delivered after its order was made, so only ids of that time are looked at.
        let made_before = delivered_before_ms.saturating_add(CLOCK_SLACK_MS);
        let pruned = sqlx::query(PRUNE)
            .bind(OrderId::new(made_before, 0, 0).to_string())
            .bind(sql(delivered_before_ms))
            .bind(limit as i64)
            .execute(&self.pool)
            .await?;
        Ok(pruned.rows_affected())
    }

    async fn events_due(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.shared.outbox.notified()).await;
    }
}

impl OrderLedger {
    /// Runs a statement for events that share a lease: a later lease of one of them has raised its attempts.
    async fn for_each_lease(
        &self,
        statement: &Statement,
        events: &[Event],
        due_ms: u64,
    ) -> Result<(), LedgerError> {
        let mut leases: BTreeMap<(u32, u32), Vec<&str>> = BTreeMap::new();
        for event in events {
            let lease = leases.entry((event.step, event.attempts)).or_default();
            lease.push(&event.order);
        }
        for ((step, attempts), orders) in leases {
            sqlx::query(statement.on(self.engine))
                .bind(sql(due_ms))
                .bind(i64::from(step))
                .bind(i64::from(attempts))
                .bind(list(orders))
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    async fn for_each_step(
        &self,
        statement: &Statement,
        events: &[Event],
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        for step in 1..=2 {
            let orders: Vec<&str> = events
                .iter()
                .filter(|event| event.step == step)
                .map(|event| event.order.as_str())
                .collect();
            if !orders.is_empty() {
                let update = sqlx::query(statement.on(self.engine))
                    .bind(sql(now_ms))
                    .bind(i64::from(step))
                    .bind(list(orders));
                update.execute(&self.pool).await?;
            }
        }
        Ok(())
    }
}

/// The event of a row, with its order as it was then: it may have moved on since.
fn event(row: &AnyRow, order: &LedgerOrder) -> Result<Event, LedgerError> {
    let word: &str = row.try_get(2)?;
    let kind = EventKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == word)
        .ok_or_else(|| LedgerError::Corrupt(format!("event {word:?}")))?;
    let status = match kind {
        EventKind::Settled => OrderStatus::Reserved,
        EventKind::Refused => OrderStatus::Refused,
        EventKind::Paid => OrderStatus::Paid,
        EventKind::Released => OrderStatus::Released,
    };
    let order = LedgerOrder {
        status,
        ..order.clone()
    };
    let (step, created_at_ms) = (count(row, 1)? as u32, count(row, 3)?);
    let id = EventId {
        order: order.order,
        step,
    };
    let id = id.to_string();
    Ok(Event {
        body: Event::document(&id, kind, created_at_ms, &order),
        id,
        order: order.order.to_string(),
        step,
        kind,
        created_at_ms,
        attempts: count(row, 4)? as u32,
    })
}

/// Writes one event inside a transaction.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    order: OrderId,
    kind: EventKind,
    now_ms: u64,
) -> Result<(), LedgerError> {
    const INSERT: &str = "INSERT INTO order_outbox (order_id, step, kind, created_at_ms, next_at_ms) \
        VALUES ($1, $2, $3, $4, $4) ON CONFLICT DO NOTHING";
    sqlx::query(INSERT)
        .bind(order.to_string())
        .bind(step(kind))
        .bind(kind.as_str())
        .bind(sql(now_ms))
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes the same event for many orders, given as [`list`], inside a transaction.
pub(super) async fn insert_many(
    ledger: &OrderLedger,
    connection: &mut AnyConnection,
    orders: &str,
    kind: EventKind,
    now_ms: u64,
) -> Result<(), LedgerError> {
    const INSERT: Statement = from_list!(
        texts["INSERT INTO order_outbox (order_id, step, kind, created_at_ms, next_at_ms) SELECT value, $1, $2, $3, $3"],
        "$4",
        "WHERE TRUE ON CONFLICT DO NOTHING"
    );
    sqlx::query(INSERT.on(ledger.engine))
        .bind(step(kind))
        .bind(kind.as_str())
        .bind(sql(now_ms))
        .bind(orders)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::SqlSafeStr;

    use super::*;
    use crate::ledger;

    /// INV-PAST-1: neither the search nor the deletion reads the whole outbox.
    #[tokio::test]
    async fn old_events_are_found_by_the_ids_of_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {PRUNE}")).into_sql_str();
        let plan = sqlx::query(explain).bind("o").bind(1).bind(9);
        let plan = plan.fetch_all(ledger.pool()).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        let reads: Vec<_> = plan
            .iter()
            .filter(|line| line.contains("order_outbox"))
            .collect();
        assert!(
            !reads.is_empty() && reads.iter().all(|line| line.starts_with("SEARCH")),
            "{plan:#?}"
        );
    }
}
