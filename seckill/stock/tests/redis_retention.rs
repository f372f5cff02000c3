//! How long Redis keeps the orders of a sale that is over.

use std::time::Duration;

use stock::{Gate, KEPT, Moves, OrderQueue, Position, SegmentSpec, Segments, Selling, Verdict};
use testkit::{
    rebuild::unsettled,
    redis::{Server, connect, now_ms, purchase, spec, take},
};

/// The store's own number is in its library; `KEPT` must say the same.
const WEEK_MS: u64 = KEPT.as_millis() as u64;

/// Request ids find their orders for a week after the last moment to pay; then the memory goes back and the counts stay.
#[tokio::test]
async fn a_sale_that_is_long_over_and_settled_gives_its_memory_back() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let sold = take(&store, &spec, epoch).await;
    let id = &spec.id;
    // The requests have a key of their own only where a buyer came twice.
    let second = purchase(id, "ann", "r2");
    let orders = [sold.order, second.order];
    store.buy_many(id, epoch, vec![second]).await.unwrap();
    let keys = async || {
        let pulled = store.pull(id, "c1", 10, Duration::ZERO).await.unwrap();
        assert_eq!(pulled, []);
        server.cli(&["dbsize"])
    };
    let ended_before = async |ms: u64| {
        let ends_at_ms = now_ms() - ms - spec.pay_within_ms;
        let over = SegmentSpec {
            ends_at_ms,
            starts_at_ms: ends_at_ms - 1,
            ..spec.clone()
        };
        store.open(&over).await.unwrap();
    };
    ended_before(WEEK_MS + 60_000).await;
    // On the queue, then with a consumer, then unpaid: never before all is settled.
    let pulled = store
        .pull(id, "c1", 10, Duration::from_secs(60))
        .await
        .unwrap();
    let idle = store.pull(id, "c1", 10, Duration::from_secs(60)).await;
    assert_eq!(idle.unwrap(), []);
    assert_eq!(server.cli(&["dbsize"]), "5");
    let positions: Vec<_> = pulled.iter().map(|entry| entry.position).collect();
    store.ack(id, &positions).await.unwrap();
    assert_eq!(keys().await, "5");
    store.confirm_many(id, &orders).await.unwrap();
    // Not a minute too early either.
    ended_before(WEEK_MS - 60_000).await;
    assert_eq!(keys().await, "5");
    ended_before(WEEK_MS + 60_000).await;
    assert_eq!(keys().await, "1", "the counters are left");

    let counts = store.snapshot(id).await.unwrap();
    assert_eq!((counts.available, counts.sold, counts.accepted), (3, 2, 2));
    assert!(!counts.needs_rebuild);
    // It never sells again, whatever its rules become: nobody remembers who bought.
    let reopened = store.open(&spec).await.unwrap();
    assert!(reopened.spec.ends_at_ms < now_ms());
    store.set_gate(id, Gate::Open).await.unwrap();
    let again = purchase(id, "ann", "r1");
    assert_eq!(
        store.buy_many(id, epoch, vec![again]).await.unwrap(),
        [Verdict::Ended]
    );
    // What workers and nodes ask of any segment is answered, not an error.
    assert_eq!(store.depth(id).await.unwrap().entries, 0);
    assert_eq!(keys().await, "1");
    store.ack(id, &positions).await.unwrap();
    let start = Position::default();
    assert_eq!(store.accepted_after(id, start, 9).await.unwrap(), []);
    assert_eq!(unsettled(&store, &spec).await.unwrap(), []);
    store.restock(id, "pallet", 1).await.unwrap();
    let counts = store.restock(id, "pallet", 1).await.unwrap();
    assert_eq!(counts.available, 4);
}
