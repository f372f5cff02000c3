//! Cases about the metadata of orders: whatever tells of an order tells it too, and nothing is lost of it.

use std::time::Duration;

use super::{Counter, Subject, rebuild::rebuild};
use stock::{
    CartLine, CartVerdict, Lookup, Metadata, OrderState, Position, Purchase, StockMoves,
    StoredOrder, Verdict,
    ids::SaleId,
    metadata::{MAX_BYTES, MAX_VALUE_CHARS},
};

/// Metadata with what a store could take for something of its own: spaces, ends of lines in escapes, words of its answers.
fn odd() -> Metadata {
    let entries = [
        ("campaign", "R 1 10 20 00ff ann r1"),
        ("path\\", "a\\ b \" ' {} % \u{2028} \\u0020 \\n"),
        ("ключ", "  два  "),
        ("empty", ""),
    ];
    let owned = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let checked = Metadata::try_new(owned).expect("it is within the bounds");
    checked.expect("it is not empty")
}

/// As long as metadata may be, all of it spaces.
fn longest() -> Metadata {
    let rest = MAX_BYTES - 4 * (7 + MAX_VALUE_CHARS) - 8;
    let entry = |key: &str| {
        let length = if key == "e" { rest } else { MAX_VALUE_CHARS };
        (key.to_owned(), " ".repeat(length))
    };
    let checked = Metadata::try_new(["a", "b", "c", "d", "e"].map(entry));
    let longest = checked.expect("it is within the bounds");
    let longest = longest.expect("it is not empty");
    assert_eq!(longest.as_str().len(), MAX_BYTES);
    longest
}

fn with(metadata: Option<Metadata>, purchase: Purchase) -> Purchase {
    Purchase {
        metadata,
        ..purchase
    }
}

fn accepted(verdict: &Verdict) -> StoredOrder {
    match verdict {
        Verdict::Accepted { order, .. } => order.clone(),
        refused => panic!("not accepted: {refused:?}"),
    }
}

/// Orders with and without metadata in one batch, two of one buyer among them.
async fn some_orders(counter: &Counter<'_>) -> Vec<StoredOrder> {
    let purchases = vec![
        with(None, counter.purchase("ann", "r1", 1)),
        with(Some(odd()), counter.purchase("ann", "r2", 1)),
        with(Some(longest()), counter.purchase("bob", "r1", 1)),
        with(None, counter.purchase("cat", "r1", 1)),
        with(Some(odd()), counter.purchase("ann", "r3", 1)),
    ];
    let expected: Vec<_> = purchases.iter().map(|one| one.metadata.clone()).collect();
    let orders: Vec<_> = counter.buy_many(purchases).await;
    let orders: Vec<_> = orders.iter().map(accepted).collect();
    let held: Vec<_> = orders.iter().map(|one| one.metadata.clone()).collect();
    assert_eq!(held, expected);
    orders
}

async fn found(counter: &Counter<'_>, order: &StoredOrder) -> [Option<StoredOrder>; 2] {
    let (store, id) = (counter.store(), counter.id());
    let by_request = Lookup::Request(order.buyer.clone(), order.request.clone());
    let by_id = store.find(id, &Lookup::Order(order.order)).await;
    let by_request = store.find(id, &by_request).await;
    [by_id, by_request].map(|found| found.expect("a store finds"))
}

/// Both ways to find an order, both ways to page through orders, a replay, and every state.
pub async fn metadata_comes_back_with_its_order(subject: &Subject) {
    let counter = Counter::open(subject, 9, 4).await;
    let orders = some_orders(&counter).await;
    let (store, id) = (counter.store(), counter.id());
    for order in &orders {
        assert_eq!(
            found(&counter, order).await,
            [Some(order.clone()), Some(order.clone())]
        );
        // What a replay brings is not looked at: its fingerprint stands for it.
        let again = counter.purchase(order.buyer.as_str(), order.request.as_str(), 1);
        let verdicts = counter.buy_many(vec![again]).await;
        assert_eq!(verdicts, [Verdict::Replayed(order.clone())]);
    }
    let pulled = store.pull(id, "c1", 9, Duration::ZERO).await;
    let pulled = pulled.expect("a store hands out").into_iter();
    let pulled: Vec<_> = pulled.map(|entry| entry.order.expect("readable")).collect();
    assert_eq!(pulled, orders);
    let paged = store.accepted_after(id, Position::default(), 9).await;
    let paged = paged.expect("a store pages").into_iter();
    let paged: Vec<_> = paged.map(|(_, order)| order).collect();
    assert_eq!(paged, orders);

    store.release_many(id, &[orders[1].order]).await.unwrap();
    store.confirm_many(id, &[orders[2].order]).await.unwrap();
    for (order, state) in [(1, OrderState::Released), (2, OrderState::Sold)] {
        let moved = StoredOrder {
            state,
            ..orders[order].clone()
        };
        assert_eq!(
            found(&counter, &orders[order]).await,
            [Some(moved.clone()), Some(moved)]
        );
    }
}

/// The fingerprint stands for the metadata too: with another one, the request is another.
pub async fn metadata_does_not_hide_a_reused_request(subject: &Subject) {
    let counter = Counter::open(subject, 9, 4).await;
    some_orders(&counter).await;
    let mut other = with(Some(odd()), counter.purchase("bob", "r1", 1));
    other.fingerprint -= 1;
    assert_eq!(counter.buy_many(vec![other]).await, [Verdict::KeyReused]);
    // A request whose id looks like what stands at the end of another's record.
    let id = r#"{"empty":""}"#;
    let fresh = with(Some(odd()), counter.purchase("bob", id, 1));
    accepted(&counter.buy_many(vec![fresh]).await[0]);
}

/// Also what was never settled is told whole, while the segment is frozen.
pub async fn metadata_survives_a_rebuild(subject: &Subject) {
    let mut counter = Counter::open(subject, 9, 4).await;
    let mut orders = some_orders(&counter).await;
    orders[1].state = OrderState::Released;
    orders[2].state = OrderState::Sold;
    rebuild(&mut counter, &orders, &StockMoves::default()).await;
    for order in &orders {
        assert_eq!(
            found(&counter, order).await,
            [Some(order.clone()), Some(order.clone())]
        );
        let again = counter.purchase(order.buyer.as_str(), order.request.as_str(), 1);
        let verdicts = counter.buy_many(vec![again]).await;
        assert_eq!(verdicts, [Verdict::Replayed(order.clone())]);
    }
    let id = counter.id().clone();
    let late = with(Some(longest()), counter.purchase("dan", "r1", 1));
    let late = accepted(&counter.buy_many(vec![late]).await[0]);
    counter
        .store()
        .freeze(&id, counter.epoch + 1)
        .await
        .unwrap();
    let unsettled = counter.store().unsettled(&id, Position::default(), 9);
    let unsettled = unsettled.await.expect("a store tells").into_iter();
    let unsettled: Vec<_> = unsettled.map(|(_, order)| order).collect();
    assert_eq!(unsettled, [late]);
}

/// Each order of a cart has it, now and when the cart is sent again.
pub async fn each_order_of_a_cart_has_its_metadata(subject: &Subject) {
    let name = format!("conformance-{:016x}", rand::random::<u64>());
    let sale = SaleId::try_new(&name).expect("hex digits are allowed");
    let shoe = Counter::open_of_cart(subject, &sale, "shoe", 5).await;
    let lace = Counter::open_of_cart(subject, &sale, "lace", 5).await;
    let cart = |request: &str, metadata: Option<Metadata>| -> Vec<CartLine> {
        let line = |counter: &&Counter<'_>| CartLine {
            segment: counter.id().clone(),
            epoch: counter.epoch,
            purchase: with(metadata.clone(), counter.purchase("ann", request, 1)),
        };
        [&shoe, &lace].iter().map(line).collect()
    };
    for (request, metadata) in [("r1", Some(odd())), ("r2", None), ("r3", Some(longest()))] {
        let bought = subject
            .store
            .buy_cart(cart(request, metadata.clone()))
            .await;
        let CartVerdict::Accepted(bought) = bought.expect("a store decides") else {
            panic!("not accepted")
        };
        let bought: Vec<_> = bought.iter().map(accepted).collect();
        assert!(bought.iter().all(|order| order.metadata == metadata));
        let again = subject.store.buy_cart(cart(request, metadata)).await;
        assert_eq!(
            again.expect("a store decides"),
            CartVerdict::Replayed(bought.clone())
        );
        for (counter, order) in [&shoe, &lace].into_iter().zip(&bought) {
            let known = [Some(order.clone()), Some(order.clone())];
            assert_eq!(found(counter, order).await, known);
        }
    }
}
