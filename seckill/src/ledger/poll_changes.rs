//! Reads what became of watched orders: one round for all callers of this node, whatever their number.
//!
//! A change that another node made is seen by the next round, after [`ROUND_EVERY`] at most; one that this node made at once.

use std::{sync::Arc, time::Duration};

use sqlx::any::AnyRow;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    LedgerError, LedgerOrder, OrderLedger,
    order_watch::{RequestKey, WatchKey},
    rows::{order_columns, read_order},
    sql,
};
use crate::ids::OrderId;
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

const ORDERS_POSTGRES: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM unnest(string_to_array($1, E'\\n'), string_to_array($2, E'\\n')::BIGINT[]) AS f (followed, known) \
     JOIN order_orders ON order_id = f.followed WHERE version > f.known"
);
const ORDERS_SQLITE: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM json_each($1) f JOIN order_orders ON order_id = f.value ->> 0 WHERE version > f.value ->> 1"
);
const REQUESTS_POSTGRES: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM unnest(string_to_array($1, E'\\n'), string_to_array($2, E'\\n'), string_to_array($3, E'\\n'), \
     string_to_array($4, E'\\n')) AS f (f_sale, f_sku, f_buyer, f_request) \
     JOIN order_orders ON sale = f_sale AND sku = f_sku AND buyer = f_buyer AND request_id = f_request"
);
const REQUESTS_SQLITE: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM json_each($1) f JOIN order_orders ON sale = f.value ->> 0 AND sku = f.value ->> 1 \
     AND buyer = f.value ->> 2 AND request_id = f.value ->> 3"
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
                WatchKey::Order(order) => orders.push((*order, *known)),
                WatchKey::Request(request) => requests.push(request.as_ref()),
            }
        }
        for page in orders.chunks(PAGE) {
            for order in self.later_orders(page).await? {
                let order = Arc::new(order);
                self.shared
                    .order_watch
                    .publish(&WatchKey::Order(order.order), &order);
            }
        }
        for page in requests.chunks(PAGE) {
            for order in self.orders_of_requests(page).await? {
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

    async fn later_orders(&self, page: &[(OrderId, u64)]) -> Result<Vec<LedgerOrder>, LedgerError> {
        let rows = if self.is_sqlite {
            let page: Vec<_> = page.iter().map(|(order, known)| (order, known)).collect();
            let page = serde_json::to_string(&page).expect("ids and numbers are valid JSON");
            let query = sqlx::query(ORDERS_SQLITE).bind(page);
            query.fetch_all(self.reads()).await?
        } else {
            sqlx::query(ORDERS_POSTGRES)
                .bind(self.list(page.iter().map(|(order, _)| order)))
                .bind(self.list(page.iter().map(|(_, known)| sql(*known))))
                .fetch_all(self.reads())
                .await?
        };
        read_all(&rows)
    }

    async fn orders_of_requests(
        &self,
        page: &[&RequestKey],
    ) -> Result<Vec<LedgerOrder>, LedgerError> {
        let rows = if self.is_sqlite {
            let page: Vec<_> = page
                .iter()
                .map(|key| (&key.sale, &key.sku, &key.buyer, &key.request))
                .collect();
            let page = serde_json::to_string(&page).expect("ids are valid JSON");
            let query = sqlx::query(REQUESTS_SQLITE).bind(page);
            query.fetch_all(self.reads()).await?
        } else {
            sqlx::query(REQUESTS_POSTGRES)
                .bind(self.list(page.iter().map(|key| &key.sale)))
                .bind(self.list(page.iter().map(|key| &key.sku)))
                .bind(self.list(page.iter().map(|key| &key.buyer)))
                .bind(self.list(page.iter().map(|key| &key.request)))
                .fetch_all(self.reads())
                .await?
        };
        read_all(&rows)
    }
}

fn read_all(rows: &[AnyRow]) -> Result<Vec<LedgerOrder>, LedgerError> {
    rows.iter().map(read_order).collect()
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
        for statement in [ORDERS_SQLITE, REQUESTS_SQLITE] {
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
