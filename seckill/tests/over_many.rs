//! Many sales that are over (INV-PAST-1): what a node does at its start, and every half minute, does not grow with them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use seckill::{
    engine::SaleEngine,
    ids::SaleId,
    ledger::{self, OrderLedger},
    sale::Sale,
};
use sqlx::Row;
use stock::embedded::WriteMode;
use tempfile::TempDir;
use testkit::{embedded, faulty_store::FaultyStore};

use crate::support::{
    ledger::{T0, sale},
    postgres,
};

/// What a node asked for and copied.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    statements: i64,
    store_calls: usize,
    catalogue_copies: u64,
}

/// So many sales that ended long ago, and one that goes on, in a PostgreSQL that counts its statements.
struct Past {
    ledger: OrderLedger,
    store: Arc<FaultyStore>,
    now_ms: u64,
    _server: postgres::Server,
    _folder: TempDir,
}

impl Past {
    async fn of(sales: u64) -> Self {
        let server = postgres::Server::with(
            "-c shared_preload_libraries=pg_stat_statements -c pg_stat_statements.track_utility=off -c fsync=off",
        );
        let url = server.new_database().await;
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let count = sqlx::query("CREATE EXTENSION pg_stat_statements");
        count.execute(ledger.pool()).await.unwrap();
        for n in 0..sales {
            let over = named(&format!("over-{n}"));
            ledger.create_sale(&over, T0).await.unwrap();
            for segment in over.segment_ids() {
                ledger.mark_opened(&segment, T0).await.unwrap();
            }
            ledger
                .mark_audited(&over.id, over.ends_at_ms)
                .await
                .unwrap();
        }
        let now_ms = named("over-0").kept_until_ms() + 3_600_000;
        let on = Sale {
            ends_at_ms: now_ms + 3_600_000,
            ..named("on")
        };
        ledger.create_sale(&on, T0).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = embedded::open(folder.path(), WriteMode::Plain);
        Self {
            ledger,
            store: FaultyStore::new(Arc::new(store)),
            now_ms,
            _server: server,
            _folder: folder,
        }
    }

    async fn statements(&self) -> i64 {
        let calls = "SELECT CAST(COALESCE(SUM(calls), 0) AS BIGINT) FROM pg_stat_statements s \
            JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database() AND query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%set_config%'";
        let row = sqlx::query(calls).fetch_one(self.ledger.pool()).await;
        row.unwrap().get(0)
    }

    async fn start(&self) -> (Arc<SaleEngine>, Cost) {
        let (statements, calls) = (self.statements().await, self.calls());
        let now_ms = self.now_ms;
        let (store, ledger) = (self.store.clone(), self.ledger.clone());
        let clock = Arc::new(move || now_ms);
        let patience = Duration::from_secs(5);
        let engine = SaleEngine::start(store, ledger, clock, patience, Arc::default());
        let engine = engine.await.unwrap();
        let cost = Cost {
            statements: self.statements().await - statements,
            store_calls: self.calls() - calls,
            catalogue_copies: engine.catalogue().replaced(),
        };
        (engine, cost)
    }

    async fn review(&self, engine: &SaleEngine) -> Cost {
        let (statements, calls) = (self.statements().await, self.calls());
        let copies = engine.catalogue().replaced();
        engine.review().await;
        Cost {
            statements: self.statements().await - statements,
            store_calls: self.calls() - calls,
            catalogue_copies: engine.catalogue().replaced() - copies,
        }
    }

    fn calls(&self) -> usize {
        self.store.calls.load(Ordering::SeqCst)
    }
}

fn named(id: &str) -> Sale {
    Sale {
        id: id.parse().unwrap(),
        ..sale(5)
    }
}

// Broke: a node asked the ledger twice, the store twice a segment, and copied its catalogue, for each sale that had ended: 5,000 of
// them took ten seconds at start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_as_fast_behind_many_sales_as_behind_few() {
    let (few, many) = tokio::join!(Past::of(5), Past::of(500));
    let (of_few, start_of_few) = few.start().await;
    let (of_many, start_of_many) = many.start().await;
    assert_eq!(of_many.catalogue().sales().len(), 501);
    assert_eq!(
        of_many.segments().borrow().len(),
        named("on").segment_ids().count()
    );
    assert_eq!(start_of_many, start_of_few);
    assert!(start_of_many.catalogue_copies <= 2, "{start_of_many:?}");
    // Late reads find a sale and its skus all the same.
    let old: SaleId = "over-77".parse().unwrap();
    let old = of_many.catalogue().sale(&old).unwrap();
    assert!(old.is_over && !old.has_stocks());
    let shoe = &old.sale.skus[0].sku;
    let segment = old.stock(shoe).unwrap().segments[0].id.clone();
    assert_eq!(
        of_many.catalogue().segment_by_tag(segment.tag()),
        Some(segment)
    );
    // The first review asks each store once whether it may forget, the next ones ask nothing.
    let first = [few.review(&of_few).await, many.review(&of_many).await];
    assert_eq!(first[0].statements, first[1].statements, "{first:?}");
    let next = [few.review(&of_few).await, many.review(&of_many).await];
    assert_eq!(next[0], next[1]);
    assert_eq!((next[1].store_calls, next[1].catalogue_copies), (0, 0));
}

// What is taken on trust at the start is looked at by the first review.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_store_of_an_audited_sale_is_noticed_by_the_first_review() {
    let mut past = Past::of(3).await;
    past.now_ms = named("over-0").last_payment_ms() + 120_000;
    let (engine, _) = past.start().await;
    let on = named("on").segment_ids().count();
    assert_eq!(engine.segments().borrow().len(), on);
    engine.review().await;
    assert_eq!(engine.segments().borrow().len(), 4 * on);
    engine.refresh().await.unwrap();
    assert_eq!(
        engine.segments().borrow().len(),
        4 * on,
        "taken up for good"
    );
}
