//! The reconciler mends leaks by position and freezes on suspicion; a second run changes nothing.

use std::time::Duration;

use seckill::{
    reconcile::{Reconciler, Repairs, Violations},
    store::{Gate, OrderState},
};

use crate::support::{
    ledger::segment,
    world::{Kind, World},
};

async fn repair(world: &World) -> Repairs {
    let reconciler = Reconciler::new(
        world.store.clone(),
        world.ledger().clone(),
        Violations::new(),
    );
    reconciler.repair(&world.sale, 9).await.unwrap()
}

/// An order that was acknowledged without being settled: nobody would ever return it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_of_an_order_that_only_the_store_has_go_back_once() {
    for kind in [Kind::Embedded, Kind::Redis] {
        let world = World::new(kind, 5).await;
        world.take(1).await;
        world.settle(1).await;
        let leaked = world.take(2).await;
        let entry = world
            .store
            .pull(&segment(), "c1", 1, Duration::ZERO)
            .await
            .unwrap();
        world
            .store
            .ack(&segment(), &[entry[0].position])
            .await
            .unwrap();
        let waiting = world.take(3).await;
        assert_eq!(repair(&world).await.leaks_returned, [leaked.order]);
        assert_eq!(world.counts().await.available, 3);
        assert!(repair(&world).await.is_empty(), "{kind:?}");
        // What still waits for settlement is no leak.
        world.settle(9).await;
        let row = world.ledger().order(waiting.order).await.unwrap();
        assert!(row.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_missed_a_return_is_told_again() {
    let world = World::new(Kind::Embedded, 5).await;
    let order = world.take(1).await;
    world.settle(1).await;
    world
        .ledger()
        .cancel(order.order, &order.buyer, 5)
        .await
        .unwrap();
    let returned = [order.order];
    // The effect was taken for done, and was not.
    world
        .ledger()
        .effects_done(seckill::ledger::Action::Release, &returned)
        .await
        .unwrap();
    assert_eq!(repair(&world).await.told_again, returned);
    assert!(repair(&world).await.is_empty(), "it is pending now");
    let effects = world.ledger().effects(&segment(), 9).await.unwrap();
    assert_eq!(effects.len(), 1);
}

/// Counting up or down by guess is how stock gets sold twice; the rebuild sets it right from the ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_may_oversell_is_frozen_and_rebuilt() {
    let world = World::new(Kind::Embedded, 5).await;
    let order = world.take(1).await;
    world.settle(1).await;
    world
        .store
        .release_many(&segment(), &[order.order])
        .await
        .unwrap();
    let repairs = repair(&world).await;
    assert_eq!(repairs.frozen.len(), 1);
    assert_eq!(world.counts().await.gate, Gate::Frozen);
    assert!(repair(&world).await.is_empty(), "frozen once");
    assert_eq!(world.recover().await, 1);
    world.agree().await;
    let all = world
        .store
        .accepted_after(&segment(), Default::default(), 9)
        .await
        .unwrap();
    assert_eq!(all[0].1.state, OrderState::Reserved);
    assert!(repair(&world).await.is_empty());
}

/// The store has fewer orders than the ledger: it has forgotten some, and with them that their units are taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_fewer_orders_than_the_ledger_is_frozen() {
    let mut world = World::new(Kind::Redis, 5).await;
    world.take(1).await;
    world.settle(1).await;
    world.lose().await;
    world
        .store
        .open(&world.sale.segment_specs()[0])
        .await
        .unwrap();
    let repairs = repair(&world).await;
    assert!(
        repairs.frozen[0]
            .reason
            .contains("1 orders recorded, only 0 accepted"),
        "{repairs:?}"
    );
    assert_eq!(world.recover().await, 1);
    world.agree().await;
}
