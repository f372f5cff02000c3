//! How long Redis keeps the orders of a sale that is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use seckill::{
    engine::SaleEngine,
    sale::Sale,
    store::{Gate, KEPT, OrderState, Position, SegmentSpec, StockStore, Verdict},
};

/// The store's own number is in its library; `KEPT` must say the same.
const WEEK_MS: u64 = KEPT.as_millis() as u64;

use crate::support::{
    ledger::{Engine, TestLedger, sale, segment},
    recovery::unsettled,
    redis::{Server, connect, now_ms, purchase, spec},
};

/// Request ids find their orders for a week after the last moment to pay; then the memory goes back and the counts stay.
#[tokio::test]
async fn a_sale_that_is_long_over_and_settled_gives_its_memory_back() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let sold = take(&store, &spec, epoch).await;
    let id = &spec.id;
    // The requests have a key of their own only where a buyer came twice.
    let second = purchase(id, "ann", "r2");
    let orders = [sold.order, second.order];
    store.buy_many(id, epoch, vec![second]).await.unwrap();
    let keys = async || {
        let pulled = store.pull(id, "c1", 10, Duration::ZERO).await.unwrap();
        assert_eq!(pulled, []);
        server.cli(&["dbsize"])
    };
    let ended_before = async |ms: u64| {
        let ends_at_ms = now_ms() - ms - spec.pay_within_ms;
        let over = SegmentSpec {
            ends_at_ms,
            starts_at_ms: ends_at_ms - 1,
            ..spec.clone()
        };
        store.open(&over).await.unwrap();
    };
    ended_before(WEEK_MS + 60_000).await;
    // On the queue, then with a consumer, then unpaid: never before all is settled.
    let pulled = store
        .pull(id, "c1", 10, Duration::from_secs(60))
        .await
        .unwrap();
    let idle = store.pull(id, "c1", 10, Duration::from_secs(60)).await;
    assert_eq!(idle.unwrap(), []);
    assert_eq!(server.cli(&["dbsize"]), "5");
    let positions: Vec<_> = pulled.iter().map(|entry| entry.position).collect();
    store.ack(id, &positions).await.unwrap();
    assert_eq!(keys().await, "5");
    store.confirm_many(id, &orders).await.unwrap();
    // Not a minute too early either.
    ended_before(WEEK_MS - 60_000).await;
    assert_eq!(keys().await, "5");
    ended_before(WEEK_MS + 60_000).await;
    assert_eq!(keys().await, "1", "the counters are left");

    let counts = store.snapshot(id).await.unwrap();
    assert_eq!((counts.available, counts.sold, counts.accepted), (3, 2, 2));
    assert!(!counts.needs_rebuild);
    // It never sells again, whatever its rules become: nobody remembers who bought.
    let reopened = store.open(&spec).await.unwrap();
    assert!(reopened.spec.ends_at_ms < now_ms());
    store.set_gate(id, Gate::Open).await.unwrap();
    let again = purchase(id, "ann", "r1");
    assert_eq!(
        store.buy_many(id, epoch, vec![again]).await.unwrap(),
        [Verdict::Ended]
    );
    // What workers and nodes ask of any segment is answered, not an error.
    assert_eq!(store.depth(id).await.unwrap().entries, 0);
    assert_eq!(keys().await, "1");
    store.ack(id, &positions).await.unwrap();
    let start = Position::default();
    assert_eq!(store.accepted_after(id, start, 9).await.unwrap(), []);
    assert_eq!(unsettled(&store, &spec).await.unwrap(), []);
    store.restock(id, "pallet", 1).await.unwrap();
    let counts = store.restock(id, "pallet", 1).await.unwrap();
    assert_eq!(counts.available, 4);
}

async fn take(
    store: &dyn StockStore,
    spec: &SegmentSpec,
    epoch: u64,
) -> seckill::store::StoredOrder {
    let wish = purchase(&spec.id, "ann", "r1");
    let mut verdicts = store.buy_many(&spec.id, epoch, vec![wish]).await.unwrap();
    match verdicts.remove(0) {
        Verdict::Accepted { order, .. } => order,
        other => panic!("{other:?}"),
    }
}

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
