//! Cases about an order after it was accepted, and about what an operator changes.

use super::{Counter, Subject};
use stock::{
    Gate, Lookup, OrderState, SegmentSpec, StockError, StoredOrder, Transition, Verdict,
    ids::{OrderId, SegmentId},
};

async fn release(counter: &Counter<'_>, orders: &[OrderId]) -> Vec<Transition> {
    counter
        .store()
        .release_many(counter.id(), orders)
        .await
        .expect("a store releases")
}

async fn confirm(counter: &Counter<'_>, orders: &[OrderId]) -> Vec<Transition> {
    counter
        .store()
        .confirm_many(counter.id(), orders)
        .await
        .expect("a store confirms")
}

/// INV-ORDER-4, first half.
pub async fn released_units_are_sold_again_and_returned_once(subject: &Subject) {
    let counter = Counter::open(subject, 2, 2).await;
    let order = counter.take("ann", "r1", 2).await;
    assert!(matches!(
        counter.buy("bob", "r1", 1).await,
        Verdict::SoldOut { .. }
    ));
    assert_eq!(release(&counter, &[order.order]).await, [Transition::Done]);
    assert_eq!(
        release(&counter, &[order.order]).await,
        [Transition::AlreadyReleased]
    );
    let counts = counter.snapshot().await;
    assert_eq!(
        (counts.available, counts.reserved, counts.accepted),
        (2, 0, 1)
    );
    counter.take("bob", "r1", 2).await;
    assert_eq!(
        release(&counter, &[order.order]).await,
        [Transition::AlreadyReleased]
    );
    assert_eq!(counter.snapshot().await.available, 0);
}

/// A retry that comes after the return must not buy a second time.
pub async fn a_released_request_stays_a_tombstone(subject: &Subject) {
    let counter = Counter::open(subject, 5, 2).await;
    let order = counter.take("ann", "r1", 1).await;
    release(&counter, &[order.order]).await;
    let tombstone = StoredOrder {
        state: OrderState::Released,
        ..order
    };
    let before = counter.snapshot().await;
    assert_eq!(
        counter.buy("ann", "r1", 1).await,
        Verdict::Replayed(tombstone)
    );
    assert_eq!(counter.buy("ann", "r1", 2).await, Verdict::KeyReused);
    assert_eq!(counter.snapshot().await, before);
    let later = counter.take("ann", "r2", 1).await;
    release(&counter, &[later.order]).await;
    let tombstone = StoredOrder {
        state: OrderState::Released,
        ..later
    };
    let again = counter.buy("ann", "r2", 1).await;
    assert_eq!(again, Verdict::Replayed(tombstone));
    counter.take("ann", "r3", 2).await;
}

/// INV-ORDER-4, second half.
pub async fn release_after_confirm_is_refused(subject: &Subject) {
    let counter = Counter::open(subject, 5, 5).await;
    let order = counter.take("ann", "r1", 2).await;
    assert_eq!(confirm(&counter, &[order.order]).await, [Transition::Done]);
    assert_eq!(
        confirm(&counter, &[order.order]).await,
        [Transition::AlreadySold]
    );
    assert_eq!(
        release(&counter, &[order.order]).await,
        [Transition::AlreadySold]
    );
    let counts = counter.snapshot().await;
    assert_eq!((counts.available, counts.reserved, counts.sold), (3, 0, 2));
    let sold = StoredOrder {
        state: OrderState::Sold,
        ..order
    };
    assert_eq!(counter.buy("ann", "r1", 2).await, Verdict::Replayed(sold));
}

/// Money that comes too late finds no stock; the caller refunds it.
pub async fn a_late_confirm_finds_the_order_released(subject: &Subject) {
    let counter = Counter::open(subject, 5, 5).await;
    let order = counter.take("ann", "r1", 2).await;
    release(&counter, &[order.order]).await;
    assert_eq!(
        confirm(&counter, &[order.order]).await,
        [Transition::AlreadyReleased]
    );
    let counts = counter.snapshot().await;
    assert_eq!((counts.available, counts.reserved, counts.sold), (5, 0, 0));
}

/// Also among orders that are there.
pub async fn orders_that_are_not_there_are_unknown(subject: &Subject) {
    let counter = Counter::open(subject, 5, 5).await;
    let order = counter.take("ann", "r1", 1).await.order;
    let stranger = counter.purchase("ann", "r2", 1).order;
    assert_eq!(
        release(&counter, &[stranger, order]).await,
        [Transition::Unknown, Transition::Done]
    );
    assert_eq!(
        confirm(&counter, &[stranger, order]).await,
        [Transition::Unknown, Transition::AlreadyReleased]
    );
    assert_eq!(release(&counter, &[]).await, []);
    assert_eq!(confirm(&counter, &[]).await, []);
    assert_eq!(counter.snapshot().await.available, 5);
}

/// Twice in one call is the same as in two calls.
pub async fn the_same_order_twice_in_one_call_counts_once(subject: &Subject) {
    let counter = Counter::open(subject, 5, 5).await;
    let one = counter.take("ann", "r1", 2).await.order;
    let two = counter.take("ann", "r2", 1).await.order;
    assert_eq!(
        release(&counter, &[one, one]).await,
        [Transition::Done, Transition::AlreadyReleased]
    );
    assert_eq!(
        confirm(&counter, &[two, two]).await,
        [Transition::Done, Transition::AlreadySold]
    );
    let counts = counter.snapshot().await;
    assert_eq!((counts.available, counts.reserved, counts.sold), (4, 0, 1));
}

/// Both roads show the order as it stands now.
pub async fn an_order_is_found_by_its_id_and_by_its_request(subject: &Subject) {
    let counter = Counter::open(subject, 5, 5).await;
    let order = counter.take("ann", "r1", 2).await;
    let by_id = Lookup::Order(order.order);
    let by_request = Lookup::Request(order.buyer.clone(), order.request.clone());
    for state in [OrderState::Reserved, OrderState::Released] {
        for lookup in [&by_id, &by_request] {
            let found = counter
                .store()
                .find(counter.id(), lookup)
                .await
                .expect("a store finds");
            assert_eq!(
                found,
                Some(StoredOrder {
                    state,
                    ..order.clone()
                })
            );
        }
        release(&counter, &[order.order]).await;
    }
    for nothing in [
        Lookup::Order(counter.purchase("ann", "r2", 1).order),
        Lookup::Request(order.buyer.clone(), "r2".parse().expect("legal")),
        Lookup::Request("bob".parse().expect("legal"), order.request.clone()),
    ] {
        assert_eq!(
            counter
                .store()
                .find(counter.id(), &nothing)
                .await
                .expect("a store finds"),
            None
        );
    }
}

/// The id makes a restock repeatable.
pub async fn a_restock_adds_its_units_once(subject: &Subject) {
    let counter = Counter::open(subject, 1, 5).await;
    counter.take("ann", "r1", 1).await;
    for (id, restocked) in [("s1", 4), ("s1", 4), ("s2", 8), ("s1", 8)] {
        let counts = counter
            .store()
            .restock(counter.id(), id, 4)
            .await
            .expect("a store restocks");
        assert_eq!(
            (counts.restocked, counts.available, counts.spec.stock),
            (restocked, restocked, 1)
        );
    }
    counter.snapshot().await;
    counter.take("ann", "r2", 4).await;
}

/// A gateway opens its segments at every start; that must never undo sales.
pub async fn opening_again_never_resets_stock(subject: &Subject) {
    let counter = Counter::open(subject, 5, 5).await;
    let order = counter.take("ann", "r1", 2).await;
    counter.set_gate(Gate::Paused).await;
    let before = counter.snapshot().await;
    assert_eq!(
        counter
            .store()
            .open(&counter.spec)
            .await
            .expect("a store opens again"),
        before
    );
    let more = SegmentSpec {
        stock: 1_000,
        ..counter.spec.clone()
    };
    assert_eq!(
        counter
            .store()
            .open(&more)
            .await
            .expect("a store opens again"),
        before
    );
    assert_eq!(counter.snapshot().await, before);
    assert_eq!(counter.buy("ann", "r1", 2).await, Verdict::Replayed(order));
}

/// Window, limit and time to pay may change under way.
pub async fn changed_rules_take_effect(subject: &Subject) {
    let counter = Counter::open(subject, 10, 1).await;
    counter.take("ann", "r1", 1).await;
    assert_eq!(
        counter.buy("ann", "r2", 1).await,
        Verdict::BuyerLimit { held: 1, limit: 1 }
    );
    let wider = SegmentSpec {
        buyer_limit: 3,
        pay_within_ms: 1_000,
        ..counter.spec.clone()
    };
    let counts = counter
        .store()
        .open(&wider)
        .await
        .expect("a store takes over changed rules");
    assert_eq!(counts.spec, wider);
    let order = counter.take("ann", "r2", 2).await;
    assert_eq!(order.pay_by_ms, order.created_at_ms + 1_000);

    let over = SegmentSpec {
        ends_at_ms: wider.starts_at_ms + 1,
        ..wider
    };
    counter
        .store()
        .open(&over)
        .await
        .expect("a store takes over changed rules");
    assert_eq!(counter.buy("bob", "r1", 1).await, Verdict::Ended);
    assert_eq!(counter.snapshot().await.available, 7);
}

/// Neither another sku nor another part of the same sku.
pub async fn segments_do_not_touch_each_other(subject: &Subject) {
    let one = Counter::open(subject, 5, 1).await;
    let other_part = SegmentId {
        index: 1,
        ..one.id().clone()
    };
    let other_sku = SegmentId {
        sku: "shirt".parse().expect("legal"),
        ..one.id().clone()
    };
    let two = Counter::open_with(
        subject,
        SegmentSpec {
            id: other_part,
            ..one.spec.clone()
        },
    )
    .await;
    let three = Counter::open_with(
        subject,
        SegmentSpec {
            id: other_sku,
            ..one.spec.clone()
        },
    )
    .await;
    let order = one.take("ann", "r1", 1).await;
    two.take("ann", "r1", 1).await;
    one.set_gate(Gate::Closed).await;
    assert_eq!(release(&two, &[order.order]).await, [Transition::Unknown]);
    assert_eq!(
        (two.snapshot().await.available, two.snapshot().await.gate),
        (4, Gate::Open)
    );
    assert_eq!(
        (
            three.snapshot().await.available,
            three.snapshot().await.accepted
        ),
        (5, 0)
    );
    let fourth = SegmentId {
        index: 2,
        ..one.id().clone()
    };
    assert!(matches!(
        one.store().snapshot(&fourth).await,
        Err(StockError::NotOpen(_))
    ));
}

/// The version is what lets a gateway tell an old "sold out" from a newer return.
pub async fn the_version_grows_with_every_change(subject: &Subject) {
    let counter = Counter::open(subject, 5, 5).await;
    let mut last = counter.snapshot().await.version;
    let mut grows = async |what: &str| {
        let version = counter.snapshot().await.version;
        assert!(version > last, "{what}: {version} after {last}");
        last = version;
    };
    let one = counter.take("ann", "r1", 1).await.order;
    grows("purchase").await;
    let two = counter.take("ann", "r2", 1).await.order;
    grows("purchase").await;
    release(&counter, &[one]).await;
    grows("release").await;
    confirm(&counter, &[two]).await;
    grows("confirm").await;
    counter
        .store()
        .restock(counter.id(), "s1", 1)
        .await
        .expect("a store restocks");
    grows("restock").await;
}
