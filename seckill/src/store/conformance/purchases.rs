//! Cases about one purchase: what is accepted, what is refused, and in which order reasons count.

use super::{Counter, FAR_MS, PAY_WITHIN_MS, Subject};
use crate::{
    ids::{BuyerId, SegmentId},
    store::{Gate, Lookup, OrderState, Position, SegmentSpec, StockError, Verdict},
};

/// INV-ORDER-2: no order without deduction, no deduction without order.
pub async fn an_accepted_purchase_takes_its_units_and_is_remembered(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    let purchase = counter.purchase("ann", "r1", 3);
    let verdict = counter.buy_many(vec![purchase.clone()]).await.remove(0);
    let Verdict::Accepted { order, remaining, version } = verdict else { panic!("not accepted: {verdict:?}") };
    assert_eq!((order.order, &order.buyer, &order.request), (purchase.order, &purchase.buyer, &purchase.request));
    assert_eq!((order.quantity, order.state, remaining), (3, OrderState::Reserved, 7));
    assert!(order.created_at_ms.abs_diff((subject.now_ms)()) < FAR_MS / 2, "made now: {order:?}");
    assert_eq!(order.pay_by_ms, order.created_at_ms + PAY_WITHIN_MS);

    let counts = counter.snapshot().await;
    assert_eq!((counts.available, counts.reserved, counts.sold, counts.accepted), (7, 3, 0, 1));
    assert_eq!(counts.version, version);
    let found = counter.store().find(counter.id(), &Lookup::Order(purchase.order)).await;
    assert_eq!(found.expect("a store finds"), Some(order));
}

/// INV-ORDER-1: one order per request id, ever.
pub async fn a_replay_answers_the_first_order_and_changes_nothing(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    let first = counter.take("ann", "r1", 2).await;
    let before = counter.snapshot().await;
    for _ in 0..3 {
        assert_eq!(counter.buy("ann", "r1", 2).await, Verdict::Replayed(first.clone()));
    }
    assert_eq!(counter.snapshot().await, before);
}

/// The same request id, another fingerprint.
pub async fn a_request_id_with_other_content_is_a_conflict(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    counter.take("ann", "r1", 2).await;
    let before = counter.snapshot().await;
    assert_eq!(counter.buy("ann", "r1", 1).await, Verdict::KeyReused);
    let mut close = counter.purchase("ann", "r1", 2);
    close.fingerprint ^= 1;
    assert_eq!(counter.buy_many(vec![close]).await, [Verdict::KeyReused]);
    assert_eq!(counter.snapshot().await, before);
}

/// A request id belongs to its buyer, and no pair of the two can be mistaken for another pair.
pub async fn another_buyers_request_id_is_another_request(subject: &Subject) {
    let counter = Counter::open(subject, 10, 1).await;
    let mut orders = Vec::new();
    for (buyer, request) in [("ann", "r1"), ("bob", "r1"), ("a", "nn-r1"), ("a:b", "c"), ("a|b", "c"), ("x{", "}!|:,\"'\\")] {
        orders.push(counter.take(buyer, request, 1).await);
    }
    for order in &orders {
        let lookup = Lookup::Request(order.buyer.clone(), order.request.clone());
        assert_eq!(counter.store().find(counter.id(), &lookup).await.expect("a store finds").as_ref(), Some(order));
    }
    assert_eq!(counter.snapshot().await.accepted, 6);
}

/// The second place of a request in a batch replays the first.
pub async fn the_same_request_twice_in_one_batch_is_one_order(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    let batch = vec![counter.purchase("ann", "r1", 2), counter.purchase("ann", "r1", 2), counter.purchase("ann", "r1", 1)];
    let verdicts = counter.buy_many(batch).await;
    let Verdict::Accepted { order, .. } = &verdicts[0] else { panic!("not accepted: {verdicts:?}") };
    assert_eq!(verdicts[1], Verdict::Replayed(order.clone()));
    assert_eq!(verdicts[2], Verdict::KeyReused);
    let counts = counter.snapshot().await;
    assert_eq!((counts.available, counts.accepted), (8, 1));
}

/// Each item sees what the items before it did: the buyer limit and the stock included.
pub async fn a_batch_is_answered_in_the_order_of_its_items(subject: &Subject) {
    let counter = Counter::open(subject, 4, 2).await;
    let batch = [("ann", "r1", 2), ("ann", "r2", 1), ("bob", "r1", 2), ("cid", "r1", 1), ("ann", "r1", 2)]
        .map(|(buyer, request, quantity)| counter.purchase(buyer, request, quantity));
    let verdicts = counter.buy_many(batch.to_vec()).await;
    assert!(matches!(verdicts[0], Verdict::Accepted { remaining: 2, .. }), "{verdicts:?}");
    assert_eq!(verdicts[1], Verdict::BuyerLimit { held: 2, limit: 2 });
    assert!(matches!(verdicts[2], Verdict::Accepted { remaining: 0, .. }), "{verdicts:?}");
    assert!(matches!(verdicts[3], Verdict::SoldOut { remaining: 0, accepted: 2, .. }), "{verdicts:?}");
    assert!(matches!(&verdicts[4], Verdict::Replayed(order) if order.order == batch[0].order), "{verdicts:?}");
}

/// From nothing to more than any store takes in one step.
pub async fn a_batch_of_any_size_is_answered_whole(subject: &Subject) {
    let counter = Counter::open(subject, 10_000, 1).await;
    assert_eq!(counter.buy_many(Vec::new()).await, []);
    let batch: Vec<_> = (0..2_500).map(|buyer| counter.purchase(&format!("b{buyer}"), "r1", 1)).collect();
    let ids: Vec<_> = batch.iter().map(|purchase| purchase.order).collect();
    let verdicts = counter.buy_many(batch).await;
    for (verdict, id) in verdicts.iter().zip(&ids) {
        assert!(matches!(verdict, Verdict::Accepted { order, .. } if order.order == *id), "{verdict:?}");
    }
    let released = counter.store().release_many(counter.id(), &ids).await.expect("a store releases");
    assert_eq!(released.len(), 2_500);
    assert_eq!(counter.snapshot().await.available, 10_000);
}

/// INV-WINDOW-1, first half. The answer carries what a `Retry-After` needs.
pub async fn before_the_window_nothing_is_sold(subject: &Subject) {
    let spec = Counter::spec(subject, 10, 5);
    let (starts_at_ms, ends_at_ms) = (spec.ends_at_ms, spec.ends_at_ms + FAR_MS);
    let counter = Counter::open_with(subject, SegmentSpec { starts_at_ms, ends_at_ms, ..spec }).await;
    let verdict = counter.buy("ann", "r1", 1).await;
    let Verdict::NotStarted { starts_at_ms: told, now_ms } = verdict else { panic!("{verdict:?}") };
    assert_eq!(told, starts_at_ms);
    assert!(now_ms.abs_diff((subject.now_ms)()) < FAR_MS / 2);
    assert_eq!(counter.snapshot().await.available, 10);
}

/// INV-WINDOW-1, second half.
pub async fn after_the_window_nothing_is_sold(subject: &Subject) {
    let spec = Counter::spec(subject, 10, 5);
    let (starts_at_ms, ends_at_ms) = (spec.starts_at_ms - FAR_MS, spec.starts_at_ms);
    let counter = Counter::open_with(subject, SegmentSpec { starts_at_ms, ends_at_ms, ..spec }).await;
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
    assert!(counter.epoch >= 1, "epochs begin at 1, so that 0 is always old");
    for epoch in [counter.epoch - 1, counter.epoch + 1, u64::MAX] {
        let purchases = vec![counter.purchase("ann", "r1", 1)];
        let verdicts = counter.store().buy_many(counter.id(), epoch, purchases).await.expect("a store decides");
        assert_eq!(verdicts, [Verdict::StaleEpoch { current: counter.epoch }]);
    }
    assert_eq!(counter.snapshot().await.available, 10);
}

/// A retry must learn of its order whatever happened to the sale in the meantime.
pub async fn a_replay_is_answered_even_when_nobody_can_buy(subject: &Subject) {
    let counter = Counter::open(subject, 1, 1).await;
    let order = counter.take("ann", "r1", 1).await;
    for gate in [Gate::Open, Gate::Paused, Gate::Closed, Gate::Frozen] {
        counter.set_gate(gate).await;
        assert_eq!(counter.buy("ann", "r1", 1).await, Verdict::Replayed(order.clone()), "{gate:?}");
        let old = counter.store().buy_many(counter.id(), 0, vec![counter.purchase("ann", "r1", 1)]).await;
        assert_eq!(old.expect("a store decides"), [Verdict::Replayed(order.clone())], "old epoch, {gate:?}");
    }
    counter.set_gate(Gate::Open).await;
    let over = SegmentSpec { ends_at_ms: counter.spec.starts_at_ms + 1, ..counter.spec.clone() };
    counter.store().open(&over).await.expect("a store takes over changed rules");
    assert_eq!(counter.buy("ann", "r1", 1).await, Verdict::Replayed(order));
}

/// INV-BUYER-1. A release frees the buyer for a new request.
pub async fn the_buyer_limit_counts_live_units(subject: &Subject) {
    let counter = Counter::open(subject, 10, 3).await;
    let first = counter.take("ann", "r1", 2).await;
    assert_eq!(counter.buy("ann", "r2", 2).await, Verdict::BuyerLimit { held: 2, limit: 3 });
    let second = counter.take("ann", "r3", 1).await;
    assert_eq!(counter.buy("ann", "r4", 1).await, Verdict::BuyerLimit { held: 3, limit: 3 });

    counter.store().release_many(counter.id(), &[first.order]).await.expect("a store releases");
    counter.take("ann", "r5", 2).await;
    // Sold units are live too.
    counter.store().confirm_many(counter.id(), &[second.order]).await.expect("a store confirms");
    assert_eq!(counter.buy("ann", "r6", 1).await, Verdict::BuyerLimit { held: 3, limit: 3 });
    counter.take("bob", "r1", 3).await;
}

/// INV-STOCK-1. A large wish may fail where a small one is still met.
pub async fn sold_out_tells_what_is_left(subject: &Subject) {
    let counter = Counter::open(subject, 3, 10).await;
    counter.take("ann", "r1", 2).await;
    let version = counter.snapshot().await.version;
    assert_eq!(counter.buy("bob", "r1", 2).await, Verdict::SoldOut { remaining: 1, version, accepted: 1 });
    // A refusal is no order: the same request id may try again, with other content even.
    counter.take("bob", "r1", 1).await;
    let version = counter.snapshot().await.version;
    assert_eq!(counter.buy("cid", "r1", 1).await, Verdict::SoldOut { remaining: 0, version, accepted: 2 });
}

/// The two ends of what a quantity can be.
pub async fn a_quantity_of_zero_or_far_too_much_changes_nothing(subject: &Subject) {
    let counter = Counter::open(subject, 10, u32::MAX).await;
    assert_eq!(counter.buy("ann", "r1", 0).await, Verdict::InvalidQuantity);
    counter.take("ann", "r2", 1).await;
    assert!(matches!(counter.buy("ann", "r3", u32::MAX).await, Verdict::BuyerLimit { held: 1, limit: u32::MAX }));
    assert!(matches!(counter.buy("bob", "r1", u32::MAX).await, Verdict::SoldOut { remaining: 9, .. }));
    assert_eq!(counter.snapshot().await.accepted, 1);
}

/// A lost segment must never look like an empty one.
pub async fn a_segment_that_was_never_opened_is_not_open(subject: &Subject) {
    let counter = Counter { subject, spec: Counter::spec(subject, 1, 1), epoch: 1 };
    let (store, id) = (counter.store(), counter.id());
    let order = counter.purchase("ann", "r1", 1).order;
    let lookup = Lookup::Request(BuyerId::try_new("ann").expect("legal"), "r1".parse().expect("legal"));
    let failures = [
        store.buy_many(id, 1, vec![counter.purchase("ann", "r1", 1)]).await.err(),
        store.release_many(id, &[order]).await.err(),
        store.confirm_many(id, &[order]).await.err(),
        store.set_gate(id, Gate::Paused).await.err(),
        store.restock(id, "s1", 1).await.err(),
        store.snapshot(id).await.err(),
        store.find(id, &lookup).await.err(),
        store.accepted_after(id, Position::default(), 10).await.err(),
        store.pull(id, "c1", 10, std::time::Duration::ZERO).await.err(),
        store.depth(id).await.err(),
    ];
    for (call, failure) in failures.into_iter().enumerate() {
        assert!(matches!(&failure, Some(StockError::NotOpen(told)) if told == id), "call {call}: {failure:?}");
    }
    // And asking has not opened it.
    let sibling = SegmentId { index: 1, ..id.clone() };
    assert!(matches!(store.snapshot(&sibling).await, Err(StockError::NotOpen(_))));
}
