//! Many sales that are over (INV-PAST-1): what a node does at its start, and every half minute, does not grow with them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderName, Request, StatusCode, header};
use seckill::{
    api::{self, identity::Identity},
    engine::{EngineError, SaleEngine},
    ids::{OrderId, SaleId, SegmentId},
    ledger::{self, OrderLedger},
    sale::Sale,
};
use sqlx::Row;
use stock::embedded::WriteMode;
use tempfile::TempDir;
use testkit::{embedded, faulty_store::FaultyStore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::support::{
    ledger::{T0, eventually, sale},
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

    async fn refresh(&self, engine: &SaleEngine) -> Cost {
        self.cost_of(engine, async {
            engine.refresh().await.unwrap();
        })
        .await
    }

    async fn review(&self, engine: &SaleEngine) -> Cost {
        self.cost_of(engine, engine.review()).await
    }

    async fn cost_of(&self, engine: &SaleEngine, work: impl Future<Output = ()>) -> Cost {
        let (statements, calls) = (self.statements().await, self.calls());
        let copies = engine.catalogue().replaced();
        work.await;
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
    assert_eq!(of_many.catalogue().sales().len(), 1);
    assert_eq!(
        of_many.segments().borrow().len(),
        named("on").segment_ids().count()
    );
    assert_eq!(start_of_many, start_of_few);
    assert!(start_of_many.catalogue_copies <= 2, "{start_of_many:?}");
    let reading = [few.refresh(&of_few).await, many.refresh(&of_many).await];
    assert_eq!(reading[0], reading[1]);
    assert_eq!(of_many.catalogue().sales().len(), 501);
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
    let stop = CancellationToken::new();
    let runs = tokio::spawn(engine.clone().run(stop.clone()));
    // The next review is half a minute later.
    eventually("all are looked after", async || {
        engine.segments().borrow().len() == 4 * on
    })
    .await;
    engine.refresh().await.unwrap();
    assert_eq!(
        engine.segments().borrow().len(),
        4 * on,
        "taken up for good"
    );
    stop.cancel();
    runs.await.unwrap();
}

/// A ledger with one sale that is over, and a node that has just started on it.
async fn just_started(over: Sale) -> (Arc<SaleEngine>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
    let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
    ledger.create_sale(&over, T0).await.unwrap();
    let ended = over.ends_at_ms;
    ledger.mark_audited(&over.id, ended).await.unwrap();
    let store = Arc::new(embedded::open(folder.path(), WriteMode::Plain));
    let now_ms = over.kept_until_ms() + 3_600_000;
    let (clock, patience) = (Arc::new(move || now_ms), Duration::from_secs(5));
    let engine = SaleEngine::start(store, ledger, clock, patience, Arc::default());
    (engine.await.unwrap(), folder)
}

/// What a buyer is told, and after how many seconds to ask again.
async fn told(engine: &Arc<SaleEngine>, path: &str) -> (StatusCode, Option<String>) {
    let identity = Identity::Header(HeaderName::from_static("x-buyer-id"));
    let request = Request::get(path).header("x-buyer-id", "ann");
    let request = request.body(Body::empty()).unwrap();
    let answer = api::router(engine.clone(), identity).oneshot(request);
    let answer = answer.await.unwrap();
    let retry = answer.headers().get(header::RETRY_AFTER);
    let retry = retry.map(|seconds| seconds.to_str().unwrap().to_owned());
    (answer.status(), retry)
}

// It sells before it has read what is over; until then nobody may be told that there is no such sale.
#[tokio::test]
async fn a_node_that_has_not_read_what_is_over_asks_for_patience() {
    let (engine, _folder) = just_started(named("over")).await;
    assert_eq!(engine.health().sales, Ok(()));
    let order = format!("/v1/orders/{}", OrderId::new(T0, 7, 7));
    let later = (StatusCode::SERVICE_UNAVAILABLE, Some("1".to_owned()));
    for path in ["/v1/sales/over", "/v1/sales/never", &order] {
        assert_eq!(told(&engine, path).await, later, "{path}");
    }
    let stop = CancellationToken::new();
    let runs = tokio::spawn(engine.clone().run(stop.clone()));
    while engine.catalogue().sale(&"over".parse().unwrap()).is_none() {
        tokio::task::yield_now().await;
    }
    while told(&engine, "/v1/sales/never").await == later {
        tokio::task::yield_now().await;
    }
    assert_eq!(told(&engine, "/v1/sales/over").await.0, StatusCode::OK);
    for path in ["/v1/sales/never", &order] {
        assert_eq!(told(&engine, path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    stop.cancel();
    runs.await.unwrap();
}

// Two segments with one tag would find each other's orders.
#[tokio::test]
async fn a_new_sale_does_not_get_the_tag_of_one_that_was_not_read_yet() {
    let (first, second) = (named("uejgtcuo"), named("iiwucoup"));
    let tag = |sale: &Sale| sale.segment_ids().next().as_ref().map(SegmentId::tag);
    assert_eq!(tag(&first), tag(&second));
    let (engine, _folder) = just_started(first).await;
    let refused = engine.create_sale(second).await.unwrap_err();
    assert!(matches!(refused, EngineError::TagTaken { .. }), "{refused}");
}
