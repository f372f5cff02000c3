//! Cases about purchases that are refused: for which reason, and that a refusal changes nothing.

use std::time::Duration;

use super::{Counter, FAR_MS, Subject};
use stock::{
    Gate, Lookup, Position, SegmentSpec, StockError, Verdict,
    ids::{BuyerId, SegmentId},
};

/// INV-WINDOW-1, first half. The answer carries what a `Retry-After` needs.
pub async fn before_the_window_nothing_is_sold(subject: &Subject) {
    let spec = Counter::spec(subject, 10, 5);
    let (starts_at_ms, ends_at_ms) = (spec.ends_at_ms, spec.ends_at_ms + FAR_MS);
    let counter = Counter::open_with(
        subject,
        SegmentSpec {
            starts_at_ms,
            ends_at_ms,
            ..spec
        },
    )
    .await;
    let verdict = counter.buy("ann", "r1", 1).await;
    let Verdict::NotStarted {
        starts_at_ms: told,
        now_ms,
    } = verdict
    else {
        panic!("{verdict:?}")
    };
    assert_eq!(told, starts_at_ms);
    assert!(now_ms.abs_diff((subject.now_ms)()) < FAR_MS / 2);
    assert_eq!(counter.snapshot().await.available, 10);
}

/// INV-WINDOW-1, second half.
pub async fn after_the_window_nothing_is_sold(subject: &Subject) {
    let spec = Counter::spec(subject, 10, 5);
    let (starts_at_ms, ends_at_ms) = (spec.starts_at_ms - FAR_MS, spec.starts_at_ms);
    let counter = Counter::open_with(
        subject,
        SegmentSpec {
            starts_at_ms,
            ends_at_ms,
            ..spec
        },
    )
    .await;
    assert_eq!(counter.buy("ann", "r1", 1).await, Verdict::Ended);
    assert_eq!(counter.snapshot().await.available, 10);
}

/// Pause and resume.
pub async fn a_paused_sale_sells_nothing_until_it_is_resumed(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    counter.set_gate(Gate::Paused).await;
    assert_eq!(counter.buy("ann", "r1", 1).await, Verdict::Paused);
    counter.set_gate(Gate::Open).await;
    counter.take("ann", "r1", 1).await;
}

/// Closed is the same as over.
pub async fn a_closed_sale_has_ended(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    counter.set_gate(Gate::Closed).await;
    assert_eq!(counter.buy("ann", "r1", 1).await, Verdict::Ended);
    assert_eq!(counter.snapshot().await.accepted, 0);
}

/// Frozen hides every other reason: a sold-out segment under repair may come back with stock.
pub async fn a_frozen_segment_is_never_sold_out(subject: &Subject) {
    let counter = Counter::open(subject, 1, 1).await;
    counter.take("ann", "r1", 1).await;
    counter.set_gate(Gate::Frozen).await;
    assert_eq!(counter.buy("bob", "r1", 1).await, Verdict::Frozen);
    assert_eq!(counter.buy("ann", "r2", 1).await, Verdict::Frozen);
}

/// INV-EPOCH-1.
pub async fn an_old_epoch_buys_nothing(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    assert!(
        counter.epoch >= 1,
        "epochs begin at 1, so that 0 is always old"
    );
    for epoch in [counter.epoch - 1, counter.epoch + 1, u64::MAX] {
        let purchases = vec![counter.purchase("ann", "r1", 1)];
        let verdicts = counter
            .store()
            .buy_many(counter.id(), epoch, purchases)
            .await
            .expect("a store decides");
        assert_eq!(
            verdicts,
            [Verdict::StaleEpoch {
                current: counter.epoch
            }]
        );
    }
    assert_eq!(counter.snapshot().await.available, 10);
}

/// INV-BUYER-1. A release frees the buyer for a new request.
pub async fn the_buyer_limit_counts_live_units(subject: &Subject) {
    let counter = Counter::open(subject, 10, 3).await;
    let first = counter.take("ann", "r1", 2).await;
    assert_eq!(
        counter.buy("ann", "r2", 2).await,
        Verdict::BuyerLimit { held: 2, limit: 3 }
    );
    let second = counter.take("ann", "r3", 1).await;
    assert_eq!(
        counter.buy("ann", "r4", 1).await,
        Verdict::BuyerLimit { held: 3, limit: 3 }
    );

    counter
        .store()
        .release_many(counter.id(), &[first.order])
        .await
        .expect("a store releases");
    counter.take("ann", "r5", 2).await;
    // Sold units are live too.
    counter
        .store()
        .confirm_many(counter.id(), &[second.order])
        .await
        .expect("a store confirms");
    assert_eq!(
        counter.buy("ann", "r6", 1).await,
        Verdict::BuyerLimit { held: 3, limit: 3 }
    );
    counter.take("bob", "r1", 3).await;
}

/// INV-STOCK-1. A large wish may fail where a small one is still met.
pub async fn sold_out_tells_what_is_left(subject: &Subject) {
    let counter = Counter::open(subject, 3, 10).await;
    counter.take("ann", "r1", 2).await;
    let version = counter.snapshot().await.version;
    assert_eq!(
        counter.buy("bob", "r1", 2).await,
        Verdict::SoldOut {
            remaining: 1,
            version,
            accepted: 1
        }
    );
    // A refusal is no order: the same request id may try again, with other content even.
    counter.take("bob", "r1", 1).await;
    let version = counter.snapshot().await.version;
    assert_eq!(
        counter.buy("cid", "r1", 1).await,
        Verdict::SoldOut {
            remaining: 0,
            version,
            accepted: 2
        }
    );
}

/// The two ends of what a quantity can be.
pub async fn a_quantity_of_zero_or_far_too_much_changes_nothing(subject: &Subject) {
    let counter = Counter::open(subject, 10, u32::MAX).await;
    assert_eq!(counter.buy("ann", "r1", 0).await, Verdict::InvalidQuantity);
    counter.take("ann", "r2", 1).await;
    assert!(matches!(
        counter.buy("ann", "r3", u32::MAX).await,
        Verdict::BuyerLimit {
            held: 1,
            limit: u32::MAX
        }
    ));
    assert!(matches!(
        counter.buy("bob", "r1", u32::MAX).await,
        Verdict::SoldOut { remaining: 9, .. }
    ));
    assert_eq!(counter.snapshot().await.accepted, 1);
}

/// A lost segment must never look like an empty one.
pub async fn a_segment_that_was_never_opened_is_not_open(subject: &Subject) {
    let counter = Counter {
        subject,
        spec: Counter::spec(subject, 1, 1),
        epoch: 1,
    };
    let (store, id) = (counter.store(), counter.id());
    let order = counter.purchase("ann", "r1", 1).order;
    let lookup = Lookup::Request(
        BuyerId::try_new("ann").expect("legal"),
        "r1".parse().expect("legal"),
    );
    let failures = [
        store
            .buy_many(id, 1, vec![counter.purchase("ann", "r1", 1)])
            .await
            .err(),
        store.release_many(id, &[order]).await.err(),
        store.confirm_many(id, &[order]).await.err(),
        store.set_gate(id, Gate::Paused).await.err(),
        store.restock(id, "s1", 1).await.err(),
        store.snapshot(id).await.err(),
        store.find(id, &lookup).await.err(),
        store
            .accepted_after(id, Position::default(), 10)
            .await
            .err(),
        store.pull(id, "c1", 10, Duration::ZERO).await.err(),
        store.depth(id).await.err(),
    ];
    for (call, failure) in failures.into_iter().enumerate() {
        assert!(
            matches!(&failure, Some(StockError::NotOpen(told)) if told == id),
            "call {call}: {failure:?}"
        );
    }
    // And asking has not opened it.
    let sibling = SegmentId {
        index: 1,
        ..id.clone()
    };
    assert!(matches!(
        store.snapshot(&sibling).await,
        Err(StockError::NotOpen(_))
    ));
}
