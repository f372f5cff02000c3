//! A sale that is over: its segments are looked after for as long as anything is still to be done for it, and then left alone.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use seckill::{
    clock::WallClock,
    engine::SaleEngine,
    ids::SegmentId,
    ledger::{self, OrderLedger, OrderStatus},
    reaper,
    sale::Sale,
    series,
};
use stock::{KEPT, OrderState, StockError, embedded::WriteMode};
use testkit::embedded;

use crate::support::{
    ledger::{T0, order, sale as ledger_sale, segment},
    world::{Kind, World, on_both_stores},
};

on_both_stores! {
    returns_and_payments_of_an_ended_sale_reach_a_store_that_was_lost,
    a_sale_that_is_over_is_taken_up_when_its_store_is_lost_and_left_again,
    nobody_rebuilds_what_nobody_may_ask_for_unless_the_ledger_wants_it,
}

/// An instant a while after the last moment to pay.
fn after(world: &World, ms: u64) -> u64 {
    world.sale.ends_at_ms + world.sale.pay_within_ms + 60_000 + ms
}

fn clock_at(ms: &Arc<AtomicU64>) -> WallClock {
    let ms = ms.clone();
    Arc::new(move || ms.load(Ordering::SeqCst))
}

fn watched(engine: &SaleEngine) -> Vec<SegmentId> {
    engine.segments().borrow().clone()
}

// A node used to find such a sale over, because a lost store has no queue: nobody rebuilt it, and the effects waited for ever.
async fn returns_and_payments_of_an_ended_sale_reach_a_store_that_was_lost(kind: Kind) {
    let mut world = World::new(kind, 5).await;
    let (unpaid, paid) = (world.take(1).await, world.take(2).await);
    world.settle(9).await;
    world.lose().await;
    let now = Arc::new(AtomicU64::new(after(&world, 1)));
    let engine = world.engine(clock_at(&now)).await;
    assert_eq!(watched(&engine), [segment()], "one is unpaid");
    world.pay(paid.order).await;
    reaper::sweep(world.ledger(), unpaid.pay_by_ms + 1)
        .await
        .unwrap();
    engine.refresh().await.unwrap();
    assert_eq!(
        watched(&engine),
        [segment()],
        "the store has heard of neither"
    );
    world.apply_effects().await.unwrap_err();
    let mut rebuilder = world.rebuilder(usize::MAX).await;
    assert_eq!(rebuilder.look(&watched(&engine)).await.unwrap(), 1);
    assert_eq!(world.apply_effects().await.unwrap(), 2);
    world.agree().await;
    let counts = world.counts().await;
    assert_eq!((counts.available, counts.reserved, counts.sold), (4, 0, 1));
    engine.refresh().await.unwrap();
    assert_eq!(watched(&engine), [], "all is done");
}

async fn a_sale_that_is_over_is_taken_up_when_its_store_is_lost_and_left_again(kind: Kind) {
    let mut world = World::new(kind, 5).await;
    let bought = world.take(1).await;
    world.settle(9).await;
    world.pay(bought.order).await;
    world.apply_effects().await.unwrap();
    let now = Arc::new(AtomicU64::new(after(&world, 1)));
    let engine = world.engine(clock_at(&now)).await;
    assert_eq!(watched(&engine), []);
    engine.review().await;
    assert_eq!(watched(&engine), [], "nothing is wrong with it");
    world.lose().await;
    let engine = match kind {
        // The store that was lost is another object; its node goes with it.
        Kind::Embedded => world.engine(clock_at(&now)).await,
        Kind::Redis => engine,
    };
    engine.review().await;
    assert_eq!(watched(&engine), [segment()]);
    let mut rebuilder = world.rebuilder(usize::MAX).await;
    assert_eq!(rebuilder.look(&watched(&engine)).await.unwrap(), 1);
    world.agree().await;
    engine.refresh().await.unwrap();
    assert_eq!(watched(&engine), []);
    let replayed = world.counts().await;
    assert_eq!((replayed.sold, replayed.epoch), (1, 2));
}

// Broke: the gauges of every sale there ever was stayed until the process ended, and "stock left" counted them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_series_of_a_sale_leave_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
    let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
    let sale = Sale {
        id: "leaves".parse().unwrap(),
        ..ledger_sale(5)
    };
    ledger.create_sale(&sale, T0).await.unwrap();
    let store = Arc::new(embedded::open(folder.path(), WriteMode::Plain));
    let now = Arc::new(AtomicU64::new(sale.starts_at_ms + 1));
    let patience = Duration::from_secs(5);
    let bells = Arc::default();
    let engine = SaleEngine::start(store, ledger, clock_at(&now), patience, bells);
    let engine = engine.await.unwrap();
    let shown = || {
        let mut page = String::new();
        series::render(&mut page, |_| None);
        let lines = page
            .lines()
            .filter(|line| line.contains("sale=\"leaves\""))
            .map(|line| line.split('{').next().unwrap_or_default().to_owned());
        lines.collect::<BTreeSet<_>>()
    };
    let all = [
        "penstock_sale_purchases_total",
        "penstock_sale_purchases_waiting",
        "penstock_sale_state",
        "penstock_stock_available_units",
        "penstock_stock_initial_units",
        "penstock_stock_reserved_units",
        "penstock_stock_sold_units",
    ];
    assert_eq!(shown(), BTreeSet::from(all.map(str::to_owned)));
    // Ended, but still to be paid.
    now.store(sale.ends_at_ms + 1, Ordering::SeqCst);
    engine.refresh().await.unwrap();
    assert_eq!(shown().len(), all.len());
    now.store(
        sale.ends_at_ms + sale.pay_within_ms + 60_001,
        Ordering::SeqCst,
    );
    engine.refresh().await.unwrap();
    assert_eq!(shown(), BTreeSet::new());
}

async fn nobody_rebuilds_what_nobody_may_ask_for_unless_the_ledger_wants_it(kind: Kind) {
    let mut world = World::new(kind, 5).await;
    let bought = world.take(1).await;
    world.settle(9).await;
    world.pay(bought.order).await;
    world.apply_effects().await.unwrap();
    world.lose().await;
    let kept_ms = u64::try_from(KEPT.as_millis()).unwrap();
    let now = Arc::new(AtomicU64::new(after(&world, kept_ms)));
    let engine = world.engine(clock_at(&now)).await;
    engine.review().await;
    assert_eq!(watched(&engine), []);
    // An operator has settled something late: it is unpaid, and what follows must reach a store.
    let late = order(7, 1);
    let shoe = segment();
    let settled = world
        .ledger()
        .settle(&shoe, 1, std::slice::from_ref(&late), 1);
    settled.await.unwrap();
    engine.review().await;
    assert_eq!(watched(&engine), [segment()]);
    let mut rebuilder = world.rebuilder(usize::MAX).await;
    assert_eq!(rebuilder.look(&watched(&engine)).await.unwrap(), 1);
    reaper::sweep(world.ledger(), late.pay_by_ms + 1)
        .await
        .unwrap();
    engine.refresh().await.unwrap();
    assert_eq!(
        watched(&engine),
        [segment()],
        "the return has not reached the store"
    );
    world.apply_effects().await.unwrap();
    world.agree().await;
    engine.refresh().await.unwrap();
    assert_eq!(watched(&engine), []);
    let row = world.ledger().order(late.order).await.unwrap().unwrap();
    assert_eq!(row.status, OrderStatus::Released);
    assert_eq!(row.as_stored().state, OrderState::Released);
    let unknown = SegmentId {
        index: 9,
        ..segment()
    };
    assert!(matches!(
        world.store.snapshot(&unknown).await,
        Err(StockError::NotOpen(_))
    ));
}
