//! A store that lost something is rebuilt from the ledger: on the embedded store beside SQLite, on Redis beside PostgreSQL.

use std::time::Duration;

use seckill::ledger::{LedgerError, OrderStatus, Settled};
use stock::{Gate, Lookup, OrderState, StockError, Verdict};
use testkit::faulty_store::FaultyStore;

use crate::support::{
    ledger::{eventually, sale_id, segment},
    world::{Kind, World, on_both_stores},
};

on_both_stores! {
    a_healthy_segment_is_left_alone,
    a_lost_store_is_rebuilt_from_the_ledger,
    a_lost_store_cannot_sell_what_was_sold_before,
    what_only_the_store_had_is_rescued,
    an_order_that_the_database_fails_does_not_keep_its_segment_frozen,
    over_admitted_orders_are_refused_by_the_rebuild,
    a_rebuild_that_loses_its_lease_anywhere_is_finished_by_the_next,
    two_rebuilders_at_once_leave_one_truth,
    a_worker_that_slept_through_the_rebuild_settles_nothing,
    the_gate_that_the_operator_wants_is_the_gate_it_opens_with,
    an_order_returned_or_paid_during_the_rebuild_ends_right,
}

async fn a_healthy_segment_is_left_alone(kind: Kind) {
    let world = World::new(kind, 5).await;
    world.take(1).await;
    assert_eq!(world.recover().await, 0);
    world.settle(9).await;
    assert_eq!(world.recover().await, 0);
    assert_eq!(world.counts().await.epoch, 1);
}

async fn a_lost_store_is_rebuilt_from_the_ledger(kind: Kind) {
    let mut world = World::new(kind, 5).await;
    let orders = [
        world.take(1).await,
        world.take(2).await,
        world.take(3).await,
    ];
    world.settle(9).await;
    let returned = &orders[1];
    world
        .ledger()
        .cancel(returned.order, &returned.buyer, 5)
        .await
        .unwrap();
    world.lose().await;
    assert!(matches!(
        world.store.snapshot(&segment()).await,
        Err(StockError::NotOpen(_))
    ));
    assert_eq!(world.recover().await, 1);
    world.agree().await;
    let counts = world.counts().await;
    assert_eq!((counts.available, counts.epoch), (3, 2));
    for order in &orders {
        assert_eq!(order.metadata.is_some(), *order == orders[1]);
        let lookup = Lookup::Order(order.order);
        let rebuilt = world.store.find(&segment(), &lookup).await.unwrap();
        assert_eq!(rebuilt.unwrap().metadata, order.metadata);
    }
    // A late retry of a returned order finds its tombstone (INV-ORDER-1).
    let again = world.buy(2).await;
    assert!(
        matches!(&again, Verdict::Replayed(order) if order.order == returned.order && order.state == OrderState::Released),
        "{again:?}"
    );
    assert_eq!(world.recover().await, 0, "once is enough");
}

/// INV-STOCK-1, over the loss.
async fn a_lost_store_cannot_sell_what_was_sold_before(kind: Kind) {
    let mut world = World::new(kind, 4).await;
    for buyer in 1..=3 {
        world.take(buyer).await;
    }
    world.settle(9).await;
    world.lose().await;
    world.recover().await;
    world.take(4).await;
    assert!(matches!(
        world.buy(5).await,
        Verdict::SoldOut { remaining: 0, .. }
    ));
    world.settle(9).await;
    world.agree().await;
    let report = world.report().await;
    assert_eq!((report.settled, report.refused), (4, 0));
}

/// INV-ORDER-3: what is still on the queue when the segment freezes is not lost with it.
async fn what_only_the_store_had_is_rescued(kind: Kind) {
    let world = World::new(kind, 9).await;
    let mut last = None;
    for buyer in 1..=4 {
        last = Some(world.take(buyer).await);
    }
    let last = last.unwrap();
    world.take(5).await;
    world.settle(2).await;
    // One entry is in the hands of a worker, two were never handed out.
    let wait = Duration::from_secs(3_600);
    assert_eq!(
        world
            .store
            .pull(&segment(), "c1", 1, wait)
            .await
            .unwrap()
            .len(),
        1
    );
    world
        .store
        .set_gate(&segment(), Gate::Frozen)
        .await
        .unwrap();
    assert_eq!(world.recover().await, 1);
    world.agree().await;
    assert_eq!(world.report().await.settled, 5);
    assert_eq!(world.counts().await.available, 4);
    let rescued = world.ledger().order(last.order).await.unwrap().unwrap();
    assert!(last.metadata.is_some() && rescued.metadata == last.metadata);
}

/// Broke: each rebuild failed at the same order, and the segment sold nothing for ever.
async fn an_order_that_the_database_fails_does_not_keep_its_segment_frozen(kind: Kind) {
    let world = World::new(kind, 9).await;
    for buyer in 1..=3 {
        world.take(buyer).await;
    }
    world.test.raise_for("buyer-2").await;
    world
        .store
        .set_gate(&segment(), Gate::Frozen)
        .await
        .unwrap();
    let mut rebuilder = world.rebuilder(usize::MAX).await;
    let mut looks = 0;
    while rebuilder.look(&[segment()]).await.unwrap() == 0 {
        looks += 1;
        assert!(looks < 10, "still frozen");
    }
    assert!(looks > 0, "the first failure may be the database's");
    let report = world.report().await;
    assert_eq!((report.settled, report.dead_letters), (2, 1));
    // The letter holds its unit, so that it can still be replayed.
    assert_eq!(world.counts().await.available, 6);
}

/// The ledger has the last word about what a store admitted too much.
async fn over_admitted_orders_are_refused_by_the_rebuild(kind: Kind) {
    let mut world = World::new(kind, 2).await;
    world.take(1).await;
    world.take(2).await;
    world.settle(9).await;
    // An older copy of the store, opened as new by mistake, sells one unit again.
    world.lose().await;
    world
        .store
        .open(&world.sale.segment_specs()[0])
        .await
        .unwrap();
    world.take(3).await;
    world
        .store
        .set_gate(&segment(), Gate::Frozen)
        .await
        .unwrap();
    assert_eq!(world.recover().await, 1);
    world.agree().await;
    let report = world.report().await;
    assert_eq!((report.settled, report.refused), (3, 1));
    assert_eq!(world.counts().await.available, 0);
}

async fn a_rebuild_that_loses_its_lease_anywhere_is_finished_by_the_next(kind: Kind) {
    for holds in 1..8 {
        let mut world = World::new(kind, 9).await;
        world.take(1).await;
        world.take(2).await;
        world.settle(1).await;
        if holds % 2 == 0 {
            world.settle(1).await;
            world.lose().await;
        } else {
            world
                .store
                .set_gate(&segment(), Gate::Frozen)
                .await
                .unwrap();
        }
        let mut first = world.rebuilder(holds).await;
        let done = first.look(&[segment()]).await.unwrap();
        if done == 0 {
            let refused = world.store.snapshot(&segment()).await;
            let sells = refused.is_ok_and(|counts| counts.gate == Gate::Open);
            assert!(!sells, "half a rebuild opens nothing ({holds} holds)");
            assert_eq!(world.recover().await, 1, "{holds} holds");
        }
        world.agree().await;
        assert_eq!(world.report().await.settled, 2, "{holds} holds");
    }
}

/// Both believe that they hold the lease; the epoch decides.
async fn two_rebuilders_at_once_leave_one_truth(kind: Kind) {
    let mut world = World::new(kind, 50).await;
    for buyer in 1..=30 {
        world.take(buyer).await;
    }
    world.settle(30).await;
    world.lose().await;
    let mut one = world.rebuilder(usize::MAX).await;
    let mut other = world.rebuilder(usize::MAX).await;
    let shoes = [segment()];
    let (first, second) = tokio::join!(one.look(&shoes), other.look(&shoes));
    first.unwrap();
    second.unwrap();
    // The one that was overtaken left nothing behind; the next look finds a healthy segment or finishes it.
    world.recover().await;
    world.agree().await;
    assert_eq!(world.counts().await.available, 20);
}

/// INV-EPOCH-1, in the ledger: its orders are in the rebuilt store already.
async fn a_worker_that_slept_through_the_rebuild_settles_nothing(kind: Kind) {
    let world = World::new(kind, 9).await;
    world.take(1).await;
    let entries = world
        .store
        .pull(&segment(), "c1", 9, Duration::ZERO)
        .await
        .unwrap();
    world
        .store
        .set_gate(&segment(), Gate::Frozen)
        .await
        .unwrap();
    world.recover().await;
    let late = world.take(2).await;
    let order = [entries[0].order.clone().unwrap()];
    let settled = world
        .ledger()
        .settle(&segment(), entries[0].epoch, &order, 1)
        .await;
    assert!(
        matches!(settled, Err(LedgerError::StaleEpoch { .. })),
        "{settled:?}"
    );
    // Its acknowledgement must not take the new order off the queue either.
    world
        .store
        .ack(&segment(), &[entries[0].position])
        .await
        .unwrap();
    world.settle(9).await;
    world.agree().await;
    let row = world.ledger().order(late.order).await.unwrap();
    assert_eq!(row.map(|row| row.status), Some(OrderStatus::Reserved));
}

async fn the_gate_that_the_operator_wants_is_the_gate_it_opens_with(kind: Kind) {
    let mut world = World::new(kind, 9).await;
    world.take(1).await;
    world.settle(9).await;
    world
        .ledger()
        .move_gate(&sale_id(), Gate::Paused)
        .await
        .unwrap();
    world.lose().await;
    world.recover().await;
    assert_eq!(world.counts().await.gate, Gate::Paused);
    assert_eq!(world.buy(2).await, Verdict::Paused);
}

/// INV-ORDER-4: the effects of what happened meanwhile wait for the rebuild, and then find their orders.
async fn an_order_returned_or_paid_during_the_rebuild_ends_right(kind: Kind) {
    let world = World::new(kind, 9).await;
    let order = world.take(1).await;
    world.settle(9).await;
    // As far as the loading of the orders, and no further: hold, rescue, load.
    world
        .store
        .set_gate(&segment(), Gate::Frozen)
        .await
        .unwrap();
    let mut first = world.rebuilder(3).await;
    first.look(&[segment()]).await.unwrap();
    world
        .ledger()
        .cancel(order.order, &order.buyer, 5)
        .await
        .unwrap();
    let effect = world.store.release_many(&segment(), &[order.order]).await;
    assert!(
        matches!(effect, Err(StockError::AwaitsRebuild(_))),
        "{effect:?}"
    );
    world.recover().await;
    world
        .store
        .release_many(&segment(), &[order.order])
        .await
        .unwrap();
    world.agree().await;
    assert_eq!(world.counts().await.available, 9);
    let again = world.ledger().settle(&segment(), 3, &[order], 1).await;
    assert_eq!(again.unwrap(), [Settled::Duplicate]);
}

/// One after another, each rebuild kept all later segments' buyers waiting, and a silent one kept them waiting for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_does_not_answer_holds_up_no_others_rebuild() {
    let mut world = World::new(Kind::Embedded, 5).await;
    let mut cut = world.sale.clone();
    cut.id = "cut".parse().unwrap();
    cut.segments = 4;
    world.ledger().create_sale(&cut, 0).await.unwrap();
    let segments: Vec<_> = cut
        .segment_specs()
        .into_iter()
        .map(|spec| spec.id)
        .collect();
    for segment in &segments {
        world.ledger().mark_opened(segment, 0).await.unwrap();
    }
    let inner = world.store.clone();
    let faulty = FaultyStore::new(inner.clone());
    faulty.stall(&segments[0]);
    world.store = faulty.clone();
    let mut rebuilder = world.rebuilder(usize::MAX).await;
    let all = segments.clone();
    let looking = tokio::spawn(async move { rebuilder.look(&all).await.unwrap() });
    eventually("the others are rebuilt", async || {
        let is_open = async |id| {
            inner
                .snapshot(id)
                .await
                .is_ok_and(|is| is.gate == Gate::Open)
        };
        is_open(&segments[1]).await && is_open(&segments[2]).await && is_open(&segments[3]).await
    })
    .await;
    faulty.resume();
    assert_eq!(looking.await.unwrap(), 4);
}
