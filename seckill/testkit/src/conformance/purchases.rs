//! Cases about purchases that are accepted, and about the same purchase coming again.

use super::{Counter, FAR_MS, PAY_WITHIN_MS, Subject};
use stock::{Gate, Lookup, OrderState, SegmentSpec, Verdict};

/// INV-ORDER-2: no order without deduction, no deduction without order.
pub async fn an_accepted_purchase_takes_its_units_and_is_remembered(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    let purchase = counter.purchase("ann", "r1", 3);
    let verdict = counter.buy_many(vec![purchase.clone()]).await.remove(0);
    let Verdict::Accepted {
        order,
        remaining,
        version,
    } = verdict
    else {
        panic!("not accepted: {verdict:?}")
    };
    assert_eq!(
        (order.order, &order.buyer, &order.request),
        (purchase.order, &purchase.buyer, &purchase.request)
    );
    assert_eq!(
        (order.quantity, order.state, remaining),
        (3, OrderState::Reserved, 7)
    );
    assert!(
        order.created_at_ms.abs_diff((subject.now_ms)()) < FAR_MS / 2,
        "made now: {order:?}"
    );
    assert_eq!(order.pay_by_ms, order.created_at_ms + PAY_WITHIN_MS);

    let counts = counter.snapshot().await;
    assert_eq!(
        (
            counts.available,
            counts.reserved,
            counts.sold,
            counts.accepted
        ),
        (7, 3, 0, 1)
    );
    assert_eq!(counts.version, version);
    let found = counter
        .store()
        .find(counter.id(), &Lookup::Order(purchase.order))
        .await;
    assert_eq!(found.expect("a store finds"), Some(order));
}

/// INV-ORDER-1: one order per request id, ever.
pub async fn a_replay_answers_the_first_order_and_changes_nothing(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    let first = counter.take("ann", "r1", 2).await;
    let before = counter.snapshot().await;
    for _ in 0..3 {
        assert_eq!(
            counter.buy("ann", "r1", 2).await,
            Verdict::Replayed(first.clone())
        );
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
    for (buyer, request) in [
        ("ann", "r1"),
        ("bob", "r1"),
        ("a", "nn-r1"),
        ("a:b", "c"),
        ("a|b", "c"),
        ("x{", "}!|:,\"'\\"),
    ] {
        orders.push(counter.take(buyer, request, 1).await);
    }
    for order in &orders {
        let lookup = Lookup::Request(order.buyer.clone(), order.request.clone());
        assert_eq!(
            counter
                .store()
                .find(counter.id(), &lookup)
                .await
                .expect("a store finds")
                .as_ref(),
            Some(order)
        );
    }
    assert_eq!(counter.snapshot().await.accepted, 6);
}

/// The second place of a request in a batch replays the first.
pub async fn the_same_request_twice_in_one_batch_is_one_order(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    let batch = vec![
        counter.purchase("ann", "r1", 2),
        counter.purchase("ann", "r1", 2),
        counter.purchase("ann", "r1", 1),
    ];
    let verdicts = counter.buy_many(batch).await;
    let Verdict::Accepted { order, .. } = &verdicts[0] else {
        panic!("not accepted: {verdicts:?}")
    };
    assert_eq!(verdicts[1], Verdict::Replayed(order.clone()));
    assert_eq!(verdicts[2], Verdict::KeyReused);
    let counts = counter.snapshot().await;
    assert_eq!((counts.available, counts.accepted), (8, 1));
}

/// INV-ORDER-1 of every order of a buyer, whether it came in one call with his others or later.
pub async fn later_orders_of_a_buyer_are_remembered_like_his_first(subject: &Subject) {
    let counter = Counter::open(subject, 10, 5).await;
    // One ends like the other.
    let batch = [("r1", 1), ("xr1", 1), ("xr1", 1), ("r1", 1), ("xr1", 2)]
        .map(|(request, quantity)| counter.purchase("ann", request, quantity));
    let verdicts = counter.buy_many(batch.to_vec()).await;
    let [
        Verdict::Accepted { order: first, .. },
        Verdict::Accepted { order: second, .. },
        Verdict::Replayed(second_again),
        Verdict::Replayed(first_again),
        Verdict::KeyReused,
    ] = &verdicts[..]
    else {
        panic!("{verdicts:?}")
    };
    assert_eq!((first, second), (first_again, second_again));

    let third = counter.take("ann", "1", 1).await;
    let before = counter.snapshot().await;
    assert_eq!((before.available, before.accepted), (7, 3));
    for order in [first, second, &third] {
        let request = order.request.as_str();
        let again = counter.buy("ann", request, 1).await;
        assert_eq!(again, Verdict::Replayed(order.clone()));
        let other = counter.buy("ann", request, 2).await;
        assert_eq!(other, Verdict::KeyReused);
        let lookup = Lookup::Request(order.buyer.clone(), order.request.clone());
        let found = counter.store().find(counter.id(), &lookup).await.unwrap();
        assert_eq!(found.as_ref(), Some(order));
    }
    assert_eq!(counter.snapshot().await, before);
    let lookup = Lookup::Request(third.buyer, "r2".parse().unwrap());
    let found = counter.store().find(counter.id(), &lookup).await.unwrap();
    assert_eq!(found, None);
}

/// Each item sees what the items before it did: the buyer limit and the stock included.
pub async fn a_batch_is_answered_in_the_order_of_its_items(subject: &Subject) {
    let counter = Counter::open(subject, 4, 2).await;
    let batch = [
        ("ann", "r1", 2),
        ("ann", "r2", 1),
        ("bob", "r1", 2),
        ("cid", "r1", 1),
        ("ann", "r1", 2),
    ]
    .map(|(buyer, request, quantity)| counter.purchase(buyer, request, quantity));
    let verdicts = counter.buy_many(batch.to_vec()).await;
    assert!(
        matches!(verdicts[0], Verdict::Accepted { remaining: 2, .. }),
        "{verdicts:?}"
    );
    assert_eq!(verdicts[1], Verdict::BuyerLimit { held: 2, limit: 2 });
    assert!(
        matches!(verdicts[2], Verdict::Accepted { remaining: 0, .. }),
        "{verdicts:?}"
    );
    assert!(
        matches!(
            verdicts[3],
            Verdict::SoldOut {
                remaining: 0,
                accepted: 2,
                ..
            }
        ),
        "{verdicts:?}"
    );
    assert!(
        matches!(&verdicts[4], Verdict::Replayed(order) if order.order == batch[0].order),
        "{verdicts:?}"
    );
}

/// From nothing to more than any store takes in one step.
pub async fn a_batch_of_any_size_is_answered_whole(subject: &Subject) {
    let counter = Counter::open(subject, 10_000, 1).await;
    assert_eq!(counter.buy_many(Vec::new()).await, []);
    let batch: Vec<_> = (0..2_500)
        .map(|buyer| counter.purchase(&format!("b{buyer}"), "r1", 1))
        .collect();
    let ids: Vec<_> = batch.iter().map(|purchase| purchase.order).collect();
    let verdicts = counter.buy_many(batch).await;
    for (verdict, id) in verdicts.iter().zip(&ids) {
        assert!(
            matches!(verdict, Verdict::Accepted { order, .. } if order.order == *id),
            "{verdict:?}"
        );
    }
    let released = counter
        .store()
        .release_many(counter.id(), &ids)
        .await
        .expect("a store releases");
    assert_eq!(released.len(), 2_500);
    assert_eq!(counter.snapshot().await.available, 10_000);
}

/// A retry must learn of its order whatever happened to the sale in the meantime.
pub async fn a_replay_is_answered_even_when_nobody_can_buy(subject: &Subject) {
    let counter = Counter::open(subject, 1, 1).await;
    let order = counter.take("ann", "r1", 1).await;
    for gate in [Gate::Open, Gate::Paused, Gate::Closed, Gate::Frozen] {
        counter.set_gate(gate).await;
        assert_eq!(
            counter.buy("ann", "r1", 1).await,
            Verdict::Replayed(order.clone()),
            "{gate:?}"
        );
        let old = counter
            .store()
            .buy_many(counter.id(), 0, vec![counter.purchase("ann", "r1", 1)])
            .await;
        assert_eq!(
            old.expect("a store decides"),
            [Verdict::Replayed(order.clone())],
            "old epoch, {gate:?}"
        );
    }
    counter.set_gate(Gate::Open).await;
    let over = SegmentSpec {
        ends_at_ms: counter.spec.starts_at_ms + 1,
        ..counter.spec.clone()
    };
    counter
        .store()
        .open(&over)
        .await
        .expect("a store takes over changed rules");
    assert_eq!(counter.buy("ann", "r1", 1).await, Verdict::Replayed(order));
}
