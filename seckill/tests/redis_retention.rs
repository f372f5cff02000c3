//! How a node and Redis give the memory of a sale back that is over; `stock` has the store's own part.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use seckill::{engine::SaleEngine, sale::Sale};
use stock::{KEPT, OrderQueue, OrderState, SegmentSpec, Segments, Selling};
use testkit::redis::{Server, connect, now_ms, take};

use crate::support::ledger::{Engine, TestLedger, sale, segment};

const WEEK_MS: u64 = KEPT.as_millis() as u64;

/// A node that starts later finds a sale that is over, not one whose store has lost its data.
#[tokio::test]
async fn a_node_that_starts_after_a_sale_was_forgotten_is_ready() {
    let server = Server::start(&[]);
    let store = Arc::new(connect(&server.url()).await);
    // Its window ended years ago by the clock of the server.
    let test = TestLedger::with_sale(Engine::Sqlite, 5).await;
    let start = async || {
        let deadline = Duration::from_secs(5);
        let engine = SaleEngine::start(
            store.clone(),
            test.ledger.clone(),
            test.clock(),
            deadline,
            Arc::default(),
        );
        engine.await.unwrap()
    };
    assert_eq!(start().await.health().sales, Ok(()));
    // Two skus, each with its counters and its queue.
    assert_eq!(server.cli(&["dbsize"]), "4");
    let idle = store.pull(&segment(), "c1", 9, Duration::ZERO).await;
    assert_eq!(idle.unwrap(), []);
    assert_eq!(server.cli(&["dbsize"]), "3", "the queue of one is dropped");
    let engine = start().await;
    assert_eq!(engine.health().sales, Ok(()));
    engine.refresh().await.unwrap();
    assert_eq!(engine.health().sales, Ok(()));
    assert_eq!(store.snapshot(&segment()).await.unwrap().available, 5);
}

/// Nobody works on the queues of a sale that is over; its memory goes back all the same.
#[tokio::test]
async fn a_sale_that_nobody_works_on_any_more_gives_its_memory_back() {
    let server = Server::start(&[]);
    let store = Arc::new(connect(&server.url()).await);
    let test = TestLedger::new(Engine::Sqlite).await;
    let sale = Sale {
        starts_at_ms: now_ms() - 1_000,
        ends_at_ms: now_ms() + 600_000,
        ..sale(5)
    };
    test.ledger.create_sale(&sale, now_ms()).await.unwrap();
    let ahead = Arc::new(AtomicU64::new(0));
    let clock = {
        let ahead = ahead.clone();
        Arc::new(move || now_ms() + ahead.load(Ordering::SeqCst))
    };
    let patience = Duration::from_secs(5);
    let engine = SaleEngine::start(
        store.clone(),
        test.ledger.clone(),
        clock,
        patience,
        Arc::default(),
    );
    let engine = engine.await.unwrap();
    let spec = sale.segment_specs().swap_remove(0);
    let sold = take(&*store, &spec, 1).await;
    let pulled = store
        .pull(&spec.id, "c1", 10, Duration::ZERO)
        .await
        .unwrap();
    let mut settled = sold.clone();
    settled.state = OrderState::Released;
    test.ledger
        .settle(&spec.id, 1, &[settled], now_ms())
        .await
        .unwrap();
    store.ack(&spec.id, &[pulled[0].position]).await.unwrap();
    store.release_many(&spec.id, &[sold.order]).await.unwrap();
    // The server's clock cannot be moved; the window can.
    for spec in sale.segment_specs() {
        let ends_at_ms = now_ms() - WEEK_MS - 60_000 - spec.pay_within_ms;
        let over = SegmentSpec {
            starts_at_ms: ends_at_ms - 1,
            ends_at_ms,
            ..spec
        };
        store.open(&over).await.unwrap();
    }
    ahead.store(WEEK_MS + 2_000_000, Ordering::SeqCst);
    engine.refresh().await.unwrap();
    assert!(engine.segments().borrow().is_empty());
    assert_eq!(
        server.cli(&["dbsize"]),
        "6",
        "4 of the sku that sold, 2 of the other"
    );
    engine.review().await;
    assert_eq!(server.cli(&["dbsize"]), "2", "the counters are left");
    engine.review().await;
    assert!(engine.segments().borrow().is_empty());
}
