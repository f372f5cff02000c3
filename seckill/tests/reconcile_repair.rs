//! The reconciler mends leaks by position and freezes on suspicion; a second run changes nothing.

use seckill::{
    ledger::OrderStatus,
    reconcile::{Reconciler, Repairs, Violations, Watch},
};
use stock::{Gate, OrderState, StoredOrder};

use crate::support::{
    ledger::segment,
    world::{Kind, World},
};

async fn repair(world: &World) -> Repairs {
    let reconciler = Reconciler::new(
        world.store.clone(),
        world.ledger().clone(),
        Violations::default(),
    );
    reconciler.repair(&world.sale, 9).await.unwrap()
}

/// A ledger that went back in time: a standby that lagged took over, or a copy was restored.
async fn forget(world: &World, orders: &[&StoredOrder]) {
    let pool = world.ledger().pool();
    for order in orders {
        for table in ["order_outbox", "order_effects", "order_orders"] {
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "DELETE FROM {table} WHERE order_id = $1"
            )))
            .bind(order.order.to_string())
            .execute(pool)
            .await
            .unwrap();
        }
        sqlx::query("UPDATE sale_skus SET sold = sold - 1 WHERE sku = 'shoe'")
            .execute(pool)
            .await
            .unwrap();
    }
}

/// Broke: the orders were called leaks, and their units sold again under their buyers' hands (INV-ORDER-3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_had_and_lost_is_settled_again() {
    for kind in [Kind::Embedded, Kind::Redis] {
        let world = World::new(kind, 5).await;
        let kept = world.take(1).await;
        let lost = world.take(2).await;
        let paid = world.take(3).await;
        let unpaid = world.take(4).await;
        world.settle(9).await;
        world.pay(paid.order).await;
        world.pay(unpaid.order).await;
        world.apply_effects().await.unwrap();
        forget(&world, &[&lost, &paid]).await;
        // Only the payment is gone from this one.
        sqlx::query("UPDATE order_orders SET status = 'reserved', intent = '' WHERE order_id = $1")
            .bind(unpaid.order.to_string())
            .execute(world.ledger().pool())
            .await
            .unwrap();
        let waiting = world.take(5).await;
        let repairs = repair(&world).await;
        assert_eq!(
            repairs.settled_again,
            [lost.order, paid.order, unpaid.order],
            "{kind:?} {repairs:?}"
        );
        assert!(repairs.refused.is_empty() && repairs.frozen.is_empty());
        assert_eq!(world.counts().await.available, 0);
        assert_eq!(status(&world, &kept).await, Some(OrderStatus::Reserved));
        assert_eq!(status(&world, &lost).await, Some(OrderStatus::Reserved));
        assert_eq!(status(&world, &paid).await, Some(OrderStatus::Paid));
        assert_eq!(status(&world, &unpaid).await, Some(OrderStatus::Paid));
        let again = world.ledger().order(lost.order).await.unwrap().unwrap();
        assert!(lost.metadata.is_some() && again.metadata == lost.metadata);
        // What still waits for settlement is left to settlement.
        assert_eq!(status(&world, &waiting).await, None);
        world.settle(9).await;
        assert!(repair(&world).await.is_empty(), "{kind:?}");
        world.apply_effects().await.unwrap();
        world.agree().await;
    }
}

/// The rebuild reads the ledger, so it fills the ledger first: a paid order was wiped with the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_keeps_what_the_ledger_had_and_lost() {
    for kind in [Kind::Embedded, Kind::Redis] {
        let world = World::new(kind, 5).await;
        let lost = world.take(1).await;
        let paid = world.take(2).await;
        world.settle(9).await;
        world.pay(paid.order).await;
        world.apply_effects().await.unwrap();
        forget(&world, &[&lost, &paid]).await;
        world
            .store
            .set_gate(&segment(), Gate::Frozen)
            .await
            .unwrap();
        assert_eq!(world.recover().await, 1, "{kind:?}");
        assert_eq!(status(&world, &lost).await, Some(OrderStatus::Reserved));
        assert_eq!(status(&world, &paid).await, Some(OrderStatus::Paid));
        world.agree().await;
        assert_eq!(world.counts().await.available, 3);
    }
}

/// The ledger has the last word: what it has no unit left for is refused, and only then do the units go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_refuses_gives_its_units_back_once() {
    let world = World::new(Kind::Embedded, 5).await;
    let lost = world.take(1).await;
    world.settle(9).await;
    forget(&world, &[&lost]).await;
    sqlx::query("UPDATE sale_skus SET sold = total WHERE sku = 'shoe'")
        .execute(world.ledger().pool())
        .await
        .unwrap();
    let repairs = repair(&world).await;
    assert_eq!(repairs.refused, [lost.order]);
    world.apply_effects().await.unwrap();
    assert_eq!(world.counts().await.available, 5);
    assert!(repair(&world).await.is_empty());
}

async fn status(world: &World, order: &StoredOrder) -> Option<OrderStatus> {
    let row = world.ledger().order(order.order).await.unwrap();
    row.map(|row| row.status)
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

/// INV-PAST-1. Broke: every worker read every order of every sale each ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_is_read_whole_once_after_its_end_and_in_new_orders_before() {
    for kind in [Kind::Embedded, Kind::Redis] {
        let world = World::new(kind, 5).await;
        let store = world.store.clone();
        let reconciler = Reconciler::new(store, world.ledger().clone(), Violations::default());
        let mut watch = Watch::new(reconciler);
        let now_ms = world.test.now_ms();
        let (goes_on, over) = ([(world.sale.clone(), false)], [(world.sale.clone(), true)]);
        assert_eq!(watch.look(&goes_on, now_ms + 59_000).await, 0);
        world.take(1).await;
        world.settle(9).await;
        sqlx::query("UPDATE sale_sales SET buyer_limit = 0")
            .execute(world.ledger().pool())
            .await
            .unwrap();
        // Once, when it is a minute old.
        assert_eq!(watch.look(&goes_on, now_ms + 59_500).await, 0);
        assert_eq!(watch.look(&goes_on, now_ms + 61_000).await, 1);
        assert_eq!(watch.look(&goes_on, now_ms + 62_000).await, 0);
        // Once more, at the end, and by no node after that.
        assert_eq!(watch.look(&over, now_ms + 63_000).await, 1);
        assert_eq!(world.ledger().unaudited().await.unwrap(), []);
        assert_eq!(watch.look(&over, now_ms + 64_000).await, 0);
    }
}

/// Broke: one order that the database fails kept all others from being settled again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_the_database_fails_keeps_no_other_from_being_settled_again() {
    for kind in [Kind::Embedded, Kind::Redis] {
        let world = World::new(kind, 5).await;
        let (one, failing) = (world.take(1).await, world.take(2).await);
        world.settle(9).await;
        forget(&world, &[&one, &failing]).await;
        world.test.raise_for("buyer-2").await;
        let repairs = repair(&world).await;
        assert_eq!(repairs.settled_again, [one.order]);
        assert_eq!(world.report().await.dead_letters, 1);
        assert!(repair(&world).await.is_empty(), "once is enough");
    }
}
