//! Settlement into PostgreSQL and what bounds it: orders per second of the real workers (embedded store → ledger → acknowledged),
//! or of a bare batched `INSERT … SELECT … UNNEST` of the same rows into a table of the same columns. One measurement a call, as
//! one line of JSON; `peers/sale.py` interleaves them.
//!
//! Both send 256 orders a transaction over one connection at a time and wait for each commit. Tables are emptied and the server
//! checkpointed before each measurement, so that none pays for another's rows.

use std::{str::FromStr, sync::Arc, time::Duration};

use benches::purchases::{buy, embedded, now_ms, purchases, sale};
use clap::{Parser, ValueEnum};
use seckill::{
    ledger::{self, OrderLedger},
    reconcile::Violations,
    settlement::{Parts, Settlement, SettlementConfig},
};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use stock::{
    Purchase, SegmentSpec, StockStore,
    embedded::{SyncPolicy, WriteMode},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// The rows of a transaction: what settlement takes by default.
const BATCH: usize = 256;
/// Purchases of a call while the queue is filled, before the clock starts.
const FILL: usize = 1024;
/// How often it is asked whether the queue is empty: a thousandth of a measurement.
const LOOK_EVERY: Duration = Duration::from_millis(2);

const CREATE_INDEXED: &str =
    "CREATE TABLE IF NOT EXISTS bare_indexed (LIKE order_orders INCLUDING ALL)";
const CREATE_KEYED: &str = "CREATE TABLE IF NOT EXISTS bare_keyed (LIKE order_orders INCLUDING DEFAULTS, PRIMARY KEY (order_id))";
const EMPTY: &str = "TRUNCATE order_orders, order_outbox, order_effects, bare_indexed, bare_keyed, sale_skus, sale_sales";

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// The settlement workers, no hand-over to a shop configured.
    Settle,
    /// The same with an event for each order in the outbox.
    SettleOutbox,
    /// Bare inserts into a table with all indexes of the ledger's.
    InsertIndexed,
    /// Bare inserts into a table with its primary key alone.
    InsertKeyed,
}

/// One measurement of settlement, or of its bound.
#[derive(Parser)]
struct Arguments {
    /// What to measure.
    mode: Mode,
    /// `postgres://…` of a database of its own.
    #[arg(long)]
    url: String,
    /// Orders.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    orders: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Lays the ledger's tables.
    let pool = ledger::connect(&arguments.url).await?;
    let mut connection = PgConnectOptions::from_str(&arguments.url)?
        .connect()
        .await?;
    for statement in [CREATE_INDEXED, CREATE_KEYED, EMPTY, "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    let ledger = OrderLedger::new(pool);
    let elapsed = match arguments.mode {
        Mode::Settle => settle(ledger.without_outbox(), arguments.orders).await?,
        Mode::SettleOutbox => settle(ledger, arguments.orders).await?,
        Mode::InsertIndexed => insert(&mut connection, "bare_indexed", arguments.orders).await?,
        Mode::InsertKeyed => insert(&mut connection, "bare_keyed", arguments.orders).await?,
    };
    let table = match arguments.mode {
        Mode::Settle | Mode::SettleOutbox => "order_orders",
        Mode::InsertIndexed => "bare_indexed",
        Mode::InsertKeyed => "bare_keyed",
    };
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    let rows: i64 = sqlx::query_scalar(count).fetch_one(&mut connection).await?;
    anyhow::ensure!(
        u64::try_from(rows)? == arguments.orders,
        "{rows} rows in {table}, not {}",
        arguments.orders
    );
    let result = serde_json::json!({"orders": arguments.orders, "seconds": elapsed.as_secs_f64()});
    println!("{result}");
    connection.close().await?;
    Ok(())
}

/// The real path, from a queue that holds all orders to the last acknowledgement.
async fn settle(ledger: OrderLedger, orders: u64) -> anyhow::Result<Duration> {
    let folder = tempfile::tempdir()?;
    let store = embedded(folder.path(), SyncPolicy::Fast, WriteMode::Plain);
    let sale = sale("settle");
    ledger.create_sale(&sale, now_ms()).await?;
    let spec = sale.segment_specs().swap_remove(0);
    fill(&*store, &spec, orders).await?;

    let parts = Parts {
        store: store.clone(),
        ledger,
        clock: Arc::new(now_ms),
        accepted: Arc::default(),
        violations: Violations::default(),
        config: SettlementConfig {
            batch: BATCH,
            ..SettlementConfig::new("bench")
        },
    };
    let shutdown = CancellationToken::new();
    let (_kept, segments) = watch::channel(vec![spec.id.clone()]);
    let start = Instant::now();
    let settlement = Settlement::start(parts, segments, shutdown.clone());
    while store.depth(&spec.id).await?.entries > 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let elapsed = start.elapsed();
    shutdown.cancel();
    settlement.stopped().await;
    Ok(elapsed)
}

async fn fill(store: &dyn StockStore, spec: &SegmentSpec, orders: u64) -> anyhow::Result<()> {
    let opened = store.open(spec).await?;
    let mut first = 0;
    while first < orders {
        let count = FILL.min(usize::try_from(orders - first)?);
        buy(
            store,
            &spec.id,
            opened.epoch,
            purchases(&spec.id, first, count),
        )
        .await;
        first += count as u64;
    }
    Ok(())
}

/// What settlement would cost if it did nothing but insert: constants are constants, what differs by order is an array.
async fn insert(
    connection: &mut PgConnection,
    table: &str,
    orders: u64,
) -> anyhow::Result<Duration> {
    let statement = format!(
        "INSERT INTO {table} (order_id, sale, sku, segment, buyer, request_id, quantity, amount_minor, currency, status, reason, \
         created_at_ms, pay_by_ms, settled_at_ms, intent) \
         SELECT o, $1, $2, 0, b, r, q, q * 100, 'usd', 'reserved', '', c, p, $3, '' \
         FROM UNNEST($4::TEXT[], $5::TEXT[], $6::TEXT[], $7::BIGINT[], $8::BIGINT[], $9::BIGINT[]) AS new (o, b, r, q, c, p)"
    );
    let spec = sale("settle").segment_specs().swap_remove(0);
    let now = i64::try_from(now_ms())?;
    let mut batches: Vec<Vec<Purchase>> = Vec::new();
    let mut first = 0;
    while first < orders {
        let count = BATCH.min(usize::try_from(orders - first)?);
        batches.push(purchases(&spec.id, first, count));
        first += count as u64;
    }
    let start = Instant::now();
    for batch in &batches {
        let texts = |text: fn(&Purchase) -> String| batch.iter().map(text).collect::<Vec<_>>();
        let numbers = |number: i64| vec![number; batch.len()];
        sqlx::query(sqlx::AssertSqlSafe(statement.as_str()))
            .bind(spec.id.sale.as_str())
            .bind(spec.id.sku.as_str())
            .bind(now)
            .bind(texts(|purchase| purchase.order.to_string()))
            .bind(texts(|purchase| purchase.buyer.to_string()))
            .bind(texts(|purchase| purchase.request.to_string()))
            .bind(numbers(1))
            .bind(numbers(now))
            .bind(numbers(now + 900_000))
            .execute(&mut *connection)
            .await?;
    }
    Ok(start.elapsed())
}
