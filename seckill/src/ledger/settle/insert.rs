//! The statements that put a batch of orders into the ledger, with their events and effects, and tell which were new.

use std::{collections::HashSet, sync::LazyLock};

use sqlx::AnyConnection;
use stock::{Metadata, StoredOrder};

use crate::{
    ids::{OrderId, SegmentId},
    ledger::{
        LedgerError, OrderLedger, OrderStatus,
        engine::{Engine, Statement, among, list},
        pool::Tx,
        query::{parsed, query},
        sql,
    },
};

const POSTGRES: &str = include_str!("../sql/postgres/settle.sql");
/// The same for a batch in which all orders are new, as almost all batches are: PostgreSQL then need not look into each unique
/// index before it writes there. An order that is not new fails the whole statement.
static POSTGRES_ALL_NEW: LazyLock<String> =
    LazyLock::new(|| POSTGRES.replacen("ON CONFLICT DO NOTHING", "", 1));
const SQLITE_ORDERS: &str = include_str!("../sql/sqlite/settle_orders.sql");
const SQLITE_EVENTS: &str = include_str!("../sql/sqlite/settle_events.sql");
const SQLITE_EFFECTS: &str = include_str!("../sql/sqlite/settle_effects.sql");
const KNOWN: Statement = among!(["SELECT order_id FROM order_orders WHERE order_id"], "$1");

impl OrderLedger {
    /// A transaction in which what is new of the batch is inserted, and which that is.
    pub(super) async fn begin_with_orders(
        &self,
        segment: &SegmentId,
        epoch: u64,
        batch: &[(&StoredOrder, OrderStatus)],
        now_ms: u64,
    ) -> Result<(Tx, HashSet<OrderId>), LedgerError> {
        if self.engine == Engine::Postgres {
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
    pub(in crate::ledger) async fn insert_orders(
        &self,
        connection: &mut AnyConnection,
        segment: &SegmentId,
        batch: &[(&StoredOrder, OrderStatus)],
        now_ms: u64,
    ) -> Result<HashSet<OrderId>, LedgerError> {
        match self.engine {
            Engine::Postgres => {
                self.insert_postgres(connection, POSTGRES, segment, batch, now_ms)
                    .await
            }
            Engine::Sqlite => self.insert_sqlite(connection, segment, batch, now_ms).await,
        }
    }

    async fn insert_postgres(
        &self,
        connection: &mut AnyConnection,
        statement: &'static str,
        segment: &SegmentId,
        batch: &[(&StoredOrder, OrderStatus)],
        now_ms: u64,
    ) -> Result<HashSet<OrderId>, LedgerError> {
        let inserted = query!(statement, segment, now_ms)
            .bind(lines(batch.iter().map(|(order, _)| order.order)))
            .bind(lines(batch.iter().map(|(order, _)| order.buyer.as_str())))
            .bind(lines(batch.iter().map(|(order, _)| order.request.as_str())))
            .bind(lines(batch.iter().map(|(order, _)| order.quantity)))
            .bind(lines(
                batch.iter().map(|(order, _)| sql(order.created_at_ms)),
            ))
            .bind(lines(batch.iter().map(|(order, _)| sql(order.pay_by_ms))))
            .bind(lines(batch.iter().map(|(_, status)| status.as_str())))
            .bind(self.has_outbox)
            .bind(lines(
                batch
                    .iter()
                    .map(|(order, _)| order.fingerprint.cast_signed()),
            ))
            .bind(metadata_lines(batch));
        let new: Vec<String> = inserted.all(connection).await?;
        let ids = new.iter().flat_map(|lines| lines.lines());
        ids.map(parsed).collect()
    }

    async fn insert_sqlite(
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
                order.metadata.as_ref().map(Metadata::as_str),
            ])
        };
        let rows = serde_json::Value::Array(batch.iter().map(row).collect());
        let inserted = query!(SQLITE_ORDERS, segment, now_ms, rows.to_string());
        let new: HashSet<OrderId> = inserted.all(&mut *connection).await?;
        let ids = list(&new);
        if self.has_outbox && !new.is_empty() {
            query!(SQLITE_EVENTS, now_ms, &ids)
                .run(&mut *connection)
                .await?;
        }
        if batch
            .iter()
            .any(|(_, status)| *status == OrderStatus::Refused)
        {
            query!(SQLITE_EFFECTS, now_ms, &ids)
                .run(&mut *connection)
                .await?;
        }
        Ok(new)
    }

    /// Which of these orders the ledger has.
    pub(super) async fn known_orders(
        &self,
        connection: &mut AnyConnection,
        orders: impl Iterator<Item = OrderId>,
    ) -> Result<HashSet<OrderId>, LedgerError> {
        let known = query!(KNOWN.on(self.engine), list(orders));
        known.all(connection).await
    }

    /// Whether the ledger has this order.
    pub(in crate::ledger) async fn is_known(
        &self,
        connection: &mut AnyConnection,
        order: &StoredOrder,
    ) -> Result<bool, LedgerError> {
        let known = self
            .known_orders(connection, std::iter::once(order.order))
            .await?;
        Ok(!known.is_empty())
    }
}

/// A list as PostgreSQL takes a whole batch apart fastest: an item a line. Ids are visible ASCII.
fn lines<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    items.join("\n")
}

/// The metadata of a batch. JSON holds no end of a line, and a list that ends early has no value for the rest.
fn metadata_lines(batch: &[(&StoredOrder, OrderStatus)]) -> String {
    if batch.iter().all(|(order, _)| order.metadata.is_none()) {
        return String::new();
    }
    let text = |(order, _): &(&StoredOrder, OrderStatus)| {
        order
            .metadata
            .as_ref()
            .map_or("", Metadata::as_str)
            .to_owned()
    };
    lines(batch.iter().map(text))
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
