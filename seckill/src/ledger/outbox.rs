//! What the shop must still be told. A row is written in the transaction that decided it; [`delivery`] delivers it at least once, the
//! events of one order in their order, and several nodes share the work by leases.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use async_trait::async_trait;
pub(super) use delivery::EventKind;
use delivery::{Event, Outbox};
use sqlx::AnyConnection;

use super::{
    EventId, LedgerError, LedgerOrder, OrderLedger, OrderStatus,
    engine::{Statement, among, from_list, list, side_by_side},
    orders::CLOCK_SLACK_MS,
    query::{Columns, FromRow, from_row, query},
    rows::order_columns,
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
        let leased = query!(LEASE.on(self.engine), now_ms, until, limit);
        let rows: Vec<Leased> = leased.all(&self.pool).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let ids = list(rows.iter().map(|row| row.order));
        let orders: Vec<LedgerOrder> = query!(ORDERS.on(self.engine), ids)
            .all(self.reads())
            .await?;
        let orders: HashMap<OrderId, LedgerOrder> = orders
            .into_iter()
            .map(|order| (order.order, order))
            .collect();
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let order = orders.get(&row.order).ok_or_else(|| {
                LedgerError::Corrupt(format!("event of missing order {}", row.order))
            })?;
            events.push(row.event(order));
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
            let dead = query!(DEAD, now_ms, order, event.step, event.attempts);
            if dead.run(&mut *tx).await? > 0 {
                let reason: String = reason.chars().take(REASON_MAX_CHARS).collect();
                query!(REASON, order, event.step, reason)
                    .run(&mut *tx)
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
        query!(pending).one(self.reads()).await
    }

    async fn events_given_up(&self) -> Result<u64, LedgerError> {
        let given_up = "SELECT COUNT(*) FROM order_outbox WHERE dead_at_ms > 0";
        query!(given_up).one(self.reads()).await
    }

    async fn prune_events(
        &self,
        delivered_before_ms: u64,
        limit: usize,
    ) -> Result<u64, LedgerError> {
        // An event is delivered after its order was made, so only ids of that time are looked at.
        let made_before = delivered_before_ms.saturating_add(CLOCK_SLACK_MS);
        let up_to = OrderId::new(made_before, 0, 0);
        let pruned = query!(PRUNE, up_to, delivered_before_ms, limit);
        pruned.run(&self.pool).await
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
            query!(
                statement.on(self.engine),
                due_ms,
                step,
                attempts,
                list(orders)
            )
            .run(&self.pool)
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
                let update = query!(statement.on(self.engine), now_ms, step, list(orders));
                update.run(&self.pool).await?;
            }
        }
        Ok(())
    }
}

/// A row that was leased.
struct Leased {
    order: OrderId,
    step: u32,
    kind: EventKind,
    created_at_ms: u64,
    attempts: u32,
}

from_row!(Leased: order, step, kind, created_at_ms, attempts);

impl FromRow for EventKind {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        let word: String = columns.take()?;
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == word);
        known.ok_or_else(|| LedgerError::Corrupt(format!("unknown word {word:?}")))
    }
}

impl Leased {
    /// The event, with its order as it was then: it may have moved on since.
    fn event(self, order: &LedgerOrder) -> Event {
        let status = match self.kind {
            EventKind::Settled => OrderStatus::Reserved,
            EventKind::Refused => OrderStatus::Refused,
            EventKind::Paid => OrderStatus::Paid,
            EventKind::Released => OrderStatus::Released,
        };
        let order = LedgerOrder {
            status,
            ..order.clone()
        };
        let (order_id, step) = (self.order, self.step);
        let id = EventId {
            order: order_id,
            step,
        }
        .to_string();
        Event {
            body: Event::document(&id, self.kind, self.created_at_ms, &order),
            id,
            order: order_id.to_string(),
            step,
            kind: self.kind,
            created_at_ms: self.created_at_ms,
            attempts: self.attempts,
        }
    }
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
    query!(INSERT, order, step(kind), kind.as_str(), now_ms)
        .run(connection)
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
    query!(
        INSERT.on(ledger.engine),
        step(kind),
        kind.as_str(),
        now_ms,
        orders
    )
    .run(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{Row, SqlSafeStr};

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
