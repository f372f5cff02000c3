//! What the shop must still be told. A row is written in the transaction that decided it; [`crate::downstream`] delivers it at
//! least once, the events of one order in their order, and several nodes share the work by leases.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{AnyConnection, Row};

use super::{
    EventId, LedgerError, LedgerOrder, OrderLedger,
    orders::CLOCK_SLACK_MS,
    rows::{count, order_columns, read_order},
    sql,
};
use crate::ids::OrderId;

/// What happened to an order, as the shop is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It is in the ledger and awaits its payment.
    Settled,
    /// The store had admitted it, the ledger has no unit for it.
    Refused,
    /// It is paid.
    Paid,
    /// Its units went back.
    Released,
}

impl EventKind {
    const ALL: [Self; 4] = [Self::Settled, Self::Refused, Self::Paid, Self::Released];

    /// The word in the database; with `order.` before it, the type on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Refused => "refused",
            Self::Paid => "paid",
            Self::Released => "released",
        }
    }

    /// Its place among the events of an order: an order begins once and ends once.
    fn step(self) -> i64 {
        match self {
            Self::Settled | Self::Refused => 1,
            Self::Paid | Self::Released => 2,
        }
    }
}

/// One event, leased to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// The order as it stands now; the parts that an event tells do not change, except the status, which `kind` gives.
    pub order: LedgerOrder,
    /// What happened.
    pub kind: EventKind,
    /// Its place among the events of the order.
    pub step: u32,
    /// When it happened.
    pub created_at_ms: u64,
    /// How often it was handed out, this time included.
    pub attempts: u32,
}

impl OutboxEvent {
    /// The same for every delivery of the event, so that the shop can recognise a repetition.
    pub fn id(&self) -> String {
        let (order, step) = (self.order.order, self.step);
        EventId { order, step }.to_string()
    }
}

/// A reason is a line for a person; a receiver's answer may be longer.
const REASON_MAX_CHARS: usize = 500;

/// The attempt is counted at the lease, so that a crash while delivering counts too.
const LEASE_POSTGRES: &str = include_str!("sql/lease_events.postgres.sql");
const LEASE_SQLITE: &str = include_str!("sql/lease_events.sqlite.sql");
const PRUNE: &str = "DELETE FROM order_outbox WHERE (order_id, step) IN ( \
    SELECT order_id, step FROM order_outbox WHERE order_id < $1 AND delivered_at_ms > 0 AND delivered_at_ms < $2 \
    ORDER BY order_id LIMIT $3)";
const ORDERS_POSTGRES: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM order_orders WHERE order_id = ANY(string_to_array($1, E'\\n'))"
);
const ORDERS_SQLITE: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM order_orders WHERE order_id IN (SELECT value FROM json_each($1))"
);

impl OrderLedger {
    /// Leases events that are due, oldest first. Until the lease ends no other caller gets them; if it ends without an answer
    /// they are due again.
    pub async fn lease_events(
        &self,
        now_ms: u64,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<OutboxEvent>, LedgerError> {
        let until = now_ms + lease.as_millis() as u64;
        let lease = if self.is_sqlite {
            LEASE_SQLITE
        } else {
            LEASE_POSTGRES
        };
        let rows = sqlx::query(lease)
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
        let statement = if self.is_sqlite {
            ORDERS_SQLITE
        } else {
            ORDERS_POSTGRES
        };
        let orders = sqlx::query(statement)
            .bind(self.list(&ids))
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
            let word: &str = row.try_get(2)?;
            let kind = EventKind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == word);
            events.push(OutboxEvent {
                order: order.clone(),
                kind: kind.ok_or_else(|| LedgerError::Corrupt(format!("event {word:?}")))?,
                step: count(row, 1)? as u32,
                created_at_ms: count(row, 3)?,
                attempts: count(row, 4)? as u32,
            });
        }
        events.sort_by_key(|event| (event.created_at_ms, event.order.order));
        Ok(events)
    }

    /// These were delivered.
    pub async fn events_delivered(
        &self,
        events: &[OutboxEvent],
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        const POSTGRES: &str = "UPDATE order_outbox SET delivered_at_ms = $1 WHERE step = $2 AND order_id = ANY(string_to_array($3, E'\\n'))";
        const SQLITE: &str = "UPDATE order_outbox SET delivered_at_ms = $1 WHERE step = $2 AND order_id IN (SELECT value FROM json_each($3))";
        let statement = if self.is_sqlite { SQLITE } else { POSTGRES };
        self.for_each_step(statement, events, now_ms).await?;
        // The next event of these orders may be due now.
        self.shared.outbox.notify_one();
        Ok(())
    }

    /// These are given up, each for its reason; they stay for an operator ([`OrderLedger::dead_deliveries`]).
    pub async fn events_dead(
        &self,
        events: &[(OutboxEvent, String)],
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        const DEAD: &str = "UPDATE order_outbox SET dead_at_ms = $1 \
            WHERE order_id = $2 AND step = $3 AND attempts = $4 AND delivered_at_ms = 0 AND dead_at_ms = 0";
        const REASON: &str = "INSERT INTO order_outbox_failures (order_id, step, reason) VALUES ($1, $2, $3) \
            ON CONFLICT (order_id, step) DO UPDATE SET reason = excluded.reason";
        let mut tx = self.pool.begin().await?;
        for (event, reason) in events {
            let order = event.order.order.to_string();
            let dead = sqlx::query(DEAD)
                .bind(sql(now_ms))
                .bind(&order)
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

    /// These failed and are tried again later. Where the lease has ended and another node has the event, its word counts.
    pub async fn events_retry_at(
        &self,
        events: &[OutboxEvent],
        due_ms: u64,
    ) -> Result<(), LedgerError> {
        const POSTGRES: &str = "UPDATE order_outbox SET next_at_ms = $1 WHERE step = $2 AND attempts = $3 AND delivered_at_ms = 0 \
            AND order_id = ANY(string_to_array($4, E'\\n'))";
        const SQLITE: &str = "UPDATE order_outbox SET next_at_ms = $1 WHERE step = $2 AND attempts = $3 AND delivered_at_ms = 0 \
            AND order_id IN (SELECT value FROM json_each($4))";
        let statement = if self.is_sqlite { SQLITE } else { POSTGRES };
        self.for_each_lease(statement, events, due_ms).await
    }

    /// These were never sent: they are due at `due_ms`, and this lease does not count as a try.
    pub async fn events_held(
        &self,
        events: &[OutboxEvent],
        due_ms: u64,
    ) -> Result<(), LedgerError> {
        const POSTGRES: &str = "UPDATE order_outbox SET next_at_ms = $1, attempts = attempts - 1 \
            WHERE step = $2 AND attempts = $3 AND delivered_at_ms = 0 AND order_id = ANY(string_to_array($4, E'\\n'))";
        const SQLITE: &str = "UPDATE order_outbox SET next_at_ms = $1, attempts = attempts - 1 \
            WHERE step = $2 AND attempts = $3 AND delivered_at_ms = 0 AND order_id IN (SELECT value FROM json_each($4))";
        let statement = if self.is_sqlite { SQLITE } else { POSTGRES };
        self.for_each_lease(statement, events, due_ms).await
    }

    /// How many events wait, leased or not.
    pub async fn events_pending(&self) -> Result<u64, LedgerError> {
        let pending =
            "SELECT COUNT(*) FROM order_outbox WHERE delivered_at_ms = 0 AND dead_at_ms = 0";
        let row = sqlx::query(pending).fetch_one(self.reads()).await?;
        count(&row, 0)
    }

    /// How many events were given up and wait for an operator.
    pub async fn events_given_up(&self) -> Result<u64, LedgerError> {
        let given_up = "SELECT COUNT(*) FROM order_outbox WHERE dead_at_ms > 0";
        let row = sqlx::query(given_up).fetch_one(self.reads()).await?;
        count(&row, 0)
    }

    /// Forgets at most `limit` events delivered before an instant, oldest orders first; answers how many. Repeat it while it is `limit`:
    /// all at once may take longer than a statement may, and would then never be done.
    pub async fn prune_events(
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

    /// Runs a statement for events that share a lease: a later lease of one of them has raised its attempts.
    async fn for_each_lease(
        &self,
        statement: &'static str,
        events: &[OutboxEvent],
        due_ms: u64,
    ) -> Result<(), LedgerError> {
        let mut leases: BTreeMap<(u32, u32), Vec<OrderId>> = BTreeMap::new();
        for event in events {
            let lease = leases.entry((event.step, event.attempts)).or_default();
            lease.push(event.order.order);
        }
        for ((step, attempts), orders) in leases {
            sqlx::query(statement)
                .bind(sql(due_ms))
                .bind(i64::from(step))
                .bind(i64::from(attempts))
                .bind(self.list(orders))
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    async fn for_each_step(
        &self,
        statement: &'static str,
        events: &[OutboxEvent],
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        for step in 1..=2 {
            let orders: Vec<OrderId> = events
                .iter()
                .filter(|event| event.step == step)
                .map(|event| event.order.order)
                .collect();
            if !orders.is_empty() {
                let update = sqlx::query(statement)
                    .bind(sql(now_ms))
                    .bind(i64::from(step))
                    .bind(self.list(orders));
                update.execute(&self.pool).await?;
            }
        }
        Ok(())
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
    sqlx::query(INSERT)
        .bind(order.to_string())
        .bind(kind.step())
        .bind(kind.as_str())
        .bind(sql(now_ms))
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes the same event for many orders, given as [`OrderLedger::list`], inside a transaction.
pub(super) async fn insert_many(
    ledger: &OrderLedger,
    connection: &mut AnyConnection,
    orders: &str,
    kind: EventKind,
    now_ms: u64,
) -> Result<(), LedgerError> {
    const POSTGRES: &str = "INSERT INTO order_outbox (order_id, step, kind, created_at_ms, next_at_ms) \
        SELECT id, $1, $2, $3, $3 FROM unnest(string_to_array($4, E'\\n')) AS ids (id) ON CONFLICT DO NOTHING";
    const SQLITE: &str = "INSERT INTO order_outbox (order_id, step, kind, created_at_ms, next_at_ms) \
        SELECT value, $1, $2, $3, $3 FROM json_each($4) WHERE true ON CONFLICT DO NOTHING";
    let statement = if ledger.is_sqlite { SQLITE } else { POSTGRES };
    sqlx::query(statement)
        .bind(kind.step())
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
