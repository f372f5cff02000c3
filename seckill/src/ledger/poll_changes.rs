//! Reads what became of watched orders: one round for all callers of this node, whatever their number.
//!
//! A change that another node made is seen by the next round, after [`ROUND_EVERY`] at most; one that this node made at once.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    LedgerError, LedgerOrder, OrderLedger,
    engine::{Statement, from_list, list},
    order_watch::{RequestKey, WatchKey},
    query::query,
    rows::order_columns,
    sql,
};
use limiter::backoff::Backoff;

/// How long a change of another node may stay unseen, the round itself not counted.
const ROUND_EVERY: Duration = Duration::from_millis(250);
/// After a round the database rests this many times as long as the round took: watching costs it a fifth of a core at most.
const REST: u32 = 4;
/// What this node changes itself is read in batches this far apart: a settlement of many batches a second rings for each.
const GATHER: Duration = Duration::from_millis(10);
/// Keys in one query.
const PAGE: usize = 1_000;
/// The waits while the database does not answer.
const BACKOFF: Backoff = Backoff {
    first: ROUND_EVERY,
    max: Duration::from_secs(2),
};

const ORDERS: Statement = from_list!(rows ["SELECT ", order_columns!()], "$1",
    "JOIN order_orders ON order_id = value ->> 0 WHERE version > CAST(value ->> 1 AS BIGINT)"
);
const REQUESTS: Statement = from_list!(rows ["SELECT ", order_columns!()], "$1",
    "JOIN order_orders ON sale = value ->> 0 AND sku = value ->> 1 AND buyer = value ->> 2 AND request_id = value ->> 3"
);

impl OrderLedger {
    /// Reads changes for the subscriptions of this node, until `shutdown`. One per process.
    pub async fn poll_changes(self, shutdown: CancellationToken) {
        let seconds = metrics::histogram!("penstock_order_watch_round_seconds");
        let mut failures = 0;
        let mut next_round = Instant::now();
        loop {
            let (keys, is_round) = tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(next_round) => (self.shared.order_watch.take_all(), true),
                // After a failure only the next round asks again.
                () = self.shared.order_watch.notified(), if failures == 0 => {
                    tokio::time::sleep(GATHER).await;
                    (self.shared.order_watch.take_dirty(), false)
                }
            };
            let started = Instant::now();
            match self.read_changes(&keys).await {
                Ok(()) => {
                    failures = 0;
                    let took = started.elapsed();
                    if !keys.is_empty() {
                        seconds.record(took.as_secs_f64());
                    }
                    if is_round {
                        next_round = started + took + ROUND_EVERY.max(took.saturating_mul(REST));
                    }
                }
                Err(error) => {
                    failures += 1;
                    warn!(%error, watched = keys.len(), failures, "watched orders were not read");
                    next_round = Instant::now() + BACKOFF.wait(failures, rand::random());
                }
            }
        }
    }

    /// Reads what is later than known of these keys and hands it out.
    pub(super) async fn read_changes(&self, keys: &[(WatchKey, u64)]) -> Result<(), LedgerError> {
        let mut orders = Vec::new();
        let mut requests = Vec::new();
        for (key, known) in keys {
            match key {
                WatchKey::Order(order) => orders.push((order, sql(*known))),
                WatchKey::Request(key) => {
                    requests.push((&key.sale, &key.sku, &key.buyer, &key.request));
                }
            }
        }
        for page in orders.chunks(PAGE) {
            for order in self.listed_orders(&ORDERS, list(page)).await? {
                let order = Arc::new(order);
                self.shared
                    .order_watch
                    .publish(&WatchKey::Order(order.order), &order);
            }
        }
        for page in requests.chunks(PAGE) {
            for order in self.listed_orders(&REQUESTS, list(page)).await? {
                let key = WatchKey::Request(Box::new(RequestKey {
                    sale: order.segment.sale.clone(),
                    sku: order.segment.sku.clone(),
                    buyer: order.buyer.clone(),
                    request: order.request.clone(),
                }));
                self.shared.order_watch.publish(&key, &Arc::new(order));
            }
        }
        Ok(())
    }

    async fn listed_orders(
        &self,
        statement: &Statement,
        listed: String,
    ) -> Result<Vec<LedgerOrder>, LedgerError> {
        query!(statement.on(self.engine), listed)
            .all(self.reads())
            .await
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Row, SqlSafeStr};

    use super::*;
    use crate::ledger;

    // A round over ten thousand watched orders must not read the table.
    #[tokio::test]
    async fn watched_orders_are_read_through_their_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        for statement in [ORDERS.sqlite, REQUESTS.sqlite] {
            let explain =
                sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")).into_sql_str();
            let plan = sqlx::query(explain)
                .bind("[]")
                .fetch_all(ledger.pool())
                .await;
            let plan: Vec<String> = plan.unwrap().iter().map(|row| row.get(3)).collect();
            assert!(
                plan.iter()
                    .any(|step| step.contains("SEARCH order_orders USING")),
                "{plan:?}"
            );
        }
    }
}
