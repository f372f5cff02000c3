//! Carts through the engine: callers that go away, deadlines, many at once, on a real store.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use seckill::{
    ids::{BuyerId, RequestId, SegmentId},
    purchase::Outcome,
};
use stock::{CartVerdict, Segments, Verdict};

use crate::support::{
    floor::{Cut, Floor, On},
    ledger::{Engine, eventually},
};

fn set(stock: u64) -> Cut {
    Cut {
        segments: 1,
        stock,
        buyer_limit: 9,
        carts: true,
    }
}

fn buyer(n: usize) -> BuyerId {
    BuyerId::try_new(&format!("buyer-{n}")).unwrap()
}

fn key() -> RequestId {
    RequestId::try_new("r").unwrap()
}

/// A shoe and its lace, or two laces for one shoe.
async fn buy(floor: &Floor, buyer: BuyerId, shoes: u32, laces: u32) -> Outcome<CartVerdict> {
    let open = floor.engine.catalogue().sale(&floor.sale.id).unwrap();
    let line = |sku: &str, units| (open.stock(&sku.parse().unwrap()).unwrap().clone(), units);
    let lines = vec![line("shoe", shoes), line("lace", laces)];
    floor
        .engine
        .buy_cart(&open, lines, buyer, key(), None)
        .await
}

fn is_accepted(outcome: &Outcome<CartVerdict>) -> bool {
    matches!(outcome, Outcome::Decided(CartVerdict::Accepted(_)))
}

fn segment(floor: &Floor, sku: &str) -> SegmentId {
    SegmentId::of_cart(floor.sale.id.clone(), sku.parse().unwrap())
}

async fn reserved(floor: &Floor) -> (u64, u64) {
    let of = async |sku| {
        let snapshot = floor.store.snapshot(&segment(floor, sku)).await;
        snapshot.unwrap().reserved
    };
    (of("shoe").await, of("lace").await)
}

async fn many_carts_sell_pairs_to_the_last(on: On) {
    let floor = Floor::open(on, Engine::Sqlite, set(30)).await;
    let outcomes = join_all((0..40).map(|n| buy(&floor, buyer(n), 1, 2))).await;
    let accepted = outcomes.iter().filter(|one| is_accepted(one)).count();
    assert_eq!(accepted, 15, "thirty laces are fifteen pairs");
    assert_eq!(reserved(&floor).await, (15, 30));
    let refused = outcomes.iter().filter(|one| {
        matches!(
            one,
            Outcome::Decided(CartVerdict::Refused {
                line: 1,
                verdict: Verdict::SoldOut { .. }
            })
        )
    });
    assert_eq!(refused.count(), 25, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carts_sell_pairs_to_the_last_on_the_embedded_store() {
    many_carts_sell_pairs_to_the_last(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carts_sell_pairs_to_the_last_on_redis() {
    many_carts_sell_pairs_to_the_last(On::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carts_sell_pairs_to_the_last_on_a_redis_cluster() {
    many_carts_sell_pairs_to_the_last(On::Cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_whose_caller_left_during_the_decision_is_found_later() {
    let floor = Floor::open(On::Embedded, Engine::Sqlite, set(3)).await;
    floor.store.stall(&segment(&floor, "lace"));
    let open = floor.engine.catalogue().sale(&floor.sale.id).unwrap();
    let gone = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        buy(&floor, buyer(1), 1, 1),
    );
    assert!(gone.await.is_err());
    assert!(open.carts.in_flight.is_deciding(&buyer(1), &key()));
    floor.store.resume();
    eventually("the cart is bought", async || {
        let found = floor.engine.cart(&open, &buyer(1), &key()).await.unwrap();
        found.len() == 2
    })
    .await;
    assert!(!open.carts.in_flight.is_deciding(&buyer(1), &key()));
    assert_eq!(reserved(&floor).await, (1, 1));
    let again = buy(&floor, buyer(1), 1, 1).await;
    assert!(
        matches!(again, Outcome::Decided(CartVerdict::Replayed(_))),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_whose_caller_left_the_queue_is_never_decided() {
    let floor = Floor::open(On::Embedded, Engine::Sqlite, set(500)).await;
    floor.store.stall(&segment(&floor, "lace"));
    let open = floor.engine.catalogue().sale(&floor.sale.id).unwrap();
    {
        let mut first = Box::pin(join_all((0..128).map(|n| buy(&floor, buyer(n), 1, 1))));
        let all_are_deciding = eventually("the store is full", async || {
            floor.store.stalls.load(Ordering::SeqCst) == 128
        });
        tokio::select! {
            _ = &mut first => panic!("the store hangs"),
            () = all_are_deciding => {}
        }
        let waits = buy(&floor, buyer(999), 1, 1);
        let left = tokio::time::timeout(std::time::Duration::from_millis(50), waits);
        assert!(left.await.is_err());
        floor.store.resume();
        assert!(first.await.iter().all(is_accepted));
    }
    buy(&floor, buyer(1000), 1, 1).await;
    assert_eq!(reserved(&floor).await, (129, 129), "one of 130 had left");
    let found = floor.engine.cart(&open, &buyer(999), &key()).await.unwrap();
    assert!(found.is_empty());
}
