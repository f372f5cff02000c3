//! A segment on another server life than the one it was sold from: held until it is rebuilt, and whole afterwards (INV-EPOCH-1).

use std::time::Duration;

use stock::{
    Gate, Moves, OrderQueue, OrderState, Position, Purchase, Rebuild, SegmentSpec, Segments,
    Selling, StockError, StoredOrder, Transition, Verdict, ids::SegmentId, redis::RedisStore,
};
use testkit::{
    rebuild::{rebuild, unsettled},
    redis::{Server, catch_up, connect, insist, purchase, spec, wait_for_link},
};

async fn buy(store: &RedisStore, spec: &SegmentSpec, epoch: u64, wish: &Purchase) -> Verdict {
    let bought = store.buy_many(&spec.id, epoch, vec![wish.clone()]).await;
    bought.expect("a store decides").remove(0)
}

async fn take(store: &RedisStore, spec: &SegmentSpec, epoch: u64, buyer: &str) -> StoredOrder {
    match buy(store, spec, epoch, &purchase(&spec.id, buyer, "r1")).await {
        Verdict::Accepted { order, .. } => order,
        other => panic!("{buyer}: {other:?}"),
    }
}

/// Everything but a look at it is refused, and a buyer is never told "sold out".
async fn assert_is_held(store: &RedisStore, spec: &SegmentSpec, known: &StoredOrder) {
    let id = &spec.id;
    let counts = store.snapshot(id).await.unwrap();
    assert_eq!((counts.gate, counts.needs_rebuild), (Gate::Frozen, true));
    let new = purchase(id, "zoe", "r1");
    let mut again = purchase(id, known.buyer.as_str(), known.request.as_str());
    again.fingerprint = known.fingerprint;
    assert_eq!(buy(store, spec, counts.epoch, &new).await, Verdict::Frozen);
    let replayed = buy(store, spec, counts.epoch, &again).await;
    assert!(
        matches!(&replayed, Verdict::Replayed(order) if order.order == known.order),
        "{replayed:?}"
    );
    let position = Position { major: 1, minor: 0 };
    let refusals = [
        store.release_many(id, &[known.order]).await.map(drop),
        store.confirm_many(id, &[known.order]).await.map(drop),
        store.set_gate(id, Gate::Open).await.map(drop),
        store.restock(id, "pallet", 1).await.map(drop),
        store.withdraw(id, "transfer", 1).await.map(drop),
        store.pull(id, "c1", 9, Duration::ZERO).await.map(drop),
        store.ack(id, &[position]).await,
    ];
    for (call, refusal) in refusals.into_iter().enumerate() {
        assert!(
            matches!(refusal, Err(StockError::AwaitsRebuild(_))),
            "{call}: {refusal:?}"
        );
    }
    // A gateway that starts changes nothing of it.
    let opened = store.open(spec).await.unwrap();
    assert_eq!((opened.gate, opened.needs_rebuild), (Gate::Frozen, true));
}

fn replica_of(primary: &Server) -> Server {
    let replica = Server::start(&[]);
    replica.cli(&["replicaof", "127.0.0.1", &primary.port.to_string()]);
    wait_for_link(&replica);
    replica
}

fn primary() -> Server {
    Server::start(&["repl-diskless-sync-delay", "0"])
}

/// The promoted one has not seen the last order. It was acknowledged, settled, and must not be sold a second time.
#[tokio::test]
async fn a_promoted_replica_that_is_behind_sells_nothing_before_its_rebuild() {
    let mut old = primary();
    let store = connect(&old.url()).await;
    let spec = spec(2, 1);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let replica = replica_of(&old);
    let seen = take(&store, &spec, epoch, "ann").await;
    catch_up(&replica, &old);
    replica.cli(&["replicaof", "no", "one"]);
    let lost = take(&store, &spec, epoch, "bob").await;
    old.kill();

    let store = connect(&replica.url()).await;
    assert_is_held(&store, &spec, &seen).await;
    // Settlement had the last order already; of the first only the queue knows.
    let mut ledger = vec![lost.clone()];
    let counts = rebuild(&store, &spec, epoch + 1, &mut ledger)
        .await
        .unwrap();
    assert_eq!(
        (counts.available, counts.reserved, counts.needs_rebuild),
        (0, 2, false)
    );
    assert_eq!(ledger, [lost.clone(), seen]);
    let mut again = purchase(&spec.id, "bob", "r1");
    again.fingerprint = lost.fingerprint;
    let replayed = buy(&store, &spec, epoch + 1, &again).await;
    assert_eq!(replayed, Verdict::Replayed(lost));
    let new = purchase(&spec.id, "zoe", "r1");
    let sold_out = buy(&store, &spec, epoch + 1, &new).await;
    assert!(matches!(sold_out, Verdict::SoldOut { .. }), "{sold_out:?}");
    let stale = buy(&store, &spec, epoch, &new).await;
    assert_eq!(stale, Verdict::StaleEpoch { current: epoch + 1 });
}

/// Its process never ended and its connections never broke, but what it holds now is a copy of the other's.
#[tokio::test]
async fn a_primary_that_was_a_replica_in_between_is_not_trusted() {
    let (first, second) = (primary(), primary());
    let store = connect(&first.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let seen = take(&store, &spec, epoch, "ann").await;
    second.cli(&["replicaof", "127.0.0.1", &first.port.to_string()]);
    wait_for_link(&second);
    catch_up(&second, &first);
    second.cli(&["replicaof", "no", "one"]);
    take(&store, &spec, epoch, "bob").await;
    first.cli(&["replicaof", "127.0.0.1", &second.port.to_string()]);
    wait_for_link(&first);
    first.cli(&["replicaof", "no", "one"]);

    let counts = store.snapshot(&spec.id).await.unwrap();
    assert_eq!(counts.accepted, 1, "the last order is lost");
    assert_is_held(&store, &spec, &seen).await;
}

/// Nothing that only concerns replication makes a server another one: a sale is not stopped by a new replica.
#[tokio::test]
async fn a_replica_that_joins_stops_no_sale() {
    let server = primary();
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let _replica = replica_of(&server);
    server.cli(&["function", "flush"]);
    take(&store, &spec, epoch, "ann").await;
}

#[tokio::test]
async fn a_gateway_that_starts_again_goes_on_with_the_same_server() {
    let server = Server::start(&[]);
    let spec = spec(5, 5);
    let epoch = {
        let store = connect(&server.url()).await;
        let epoch = store.open(&spec).await.unwrap().epoch;
        take(&store, &spec, epoch, "ann").await;
        epoch
    };
    for buyer in ["bob", "cid"] {
        let store = connect(&server.url()).await;
        let counts = store.open(&spec).await.unwrap();
        assert_eq!((counts.gate, counts.epoch), (Gate::Open, epoch));
        take(&store, &spec, epoch, buyer).await;
        // The next one finds another text under the library's name, and loads its own.
        server.cli(&[
            "function",
            "load",
            "replace",
            "#!lua name=penstock_v3\nredis.register_function('penstock_v3_open', function() return 'nonsense' end)",
        ]);
    }
}

/// INV-ORDER-3 at `durable`: the disk has every order, and the rebuild finds them on the queue.
#[tokio::test]
async fn a_durable_server_that_was_restarted_is_rebuilt_from_its_own_queue() {
    let mut server = Server::start(&["appendonly", "yes", "appendfsync", "always"]);
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let mut orders = Vec::new();
    for buyer in ["ann", "bob", "cid"] {
        orders.push(take(&store, &spec, epoch, buyer).await);
    }
    let confirmed = store.confirm_many(&spec.id, &[orders[1].order]).await;
    assert_eq!(confirmed.unwrap(), [Transition::Done]);
    orders[1].state = OrderState::Sold;
    server.kill();
    server.restart();

    insist(async || store.snapshot(&spec.id).await).await;
    assert_is_held(&store, &spec, &orders[0]).await;
    let mut ledger = Vec::new();
    let counts = rebuild(&store, &spec, epoch + 1, &mut ledger)
        .await
        .unwrap();
    assert_eq!((counts.available, counts.reserved, counts.sold), (2, 2, 1));
    assert_eq!(ledger, orders);
    take(&store, &spec, epoch + 1, "dan").await;
}

/// What the ledger has comes back; what it does not have is lost, and its units are sold again.
#[tokio::test]
async fn a_server_that_came_back_empty_is_rebuilt_from_the_ledger() {
    let mut server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let spec = spec(3, 3);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let settled = take(&store, &spec, epoch, "ann").await;
    take(&store, &spec, epoch, "bob").await;
    server.kill();
    server.restart();
    let gone = async || match store.snapshot(&spec.id).await {
        Err(StockError::NotOpen(_)) => Ok(()),
        Err(error) => Err(error),
        Ok(counts) => panic!("{counts:?}"),
    };
    insist(gone).await;
    assert_eq!(unsettled(&store, &spec).await.unwrap(), []);
    assert_eq!(store.freeze(&spec.id, epoch + 1).await.unwrap(), None);

    let mut ledger = vec![settled.clone()];
    let counts = rebuild(&store, &spec, epoch + 1, &mut ledger)
        .await
        .unwrap();
    assert_eq!((counts.available, counts.accepted), (2, 1));
    let again = purchase(&spec.id, "ann", "r1");
    let replayed = buy(&store, &spec, epoch + 1, &again).await;
    assert_eq!(replayed, Verdict::Replayed(settled));
    let stale = buy(&store, &spec, epoch, &purchase(&spec.id, "bob", "r1")).await;
    assert_eq!(stale, Verdict::StaleEpoch { current: epoch + 1 });
    take(&store, &spec, epoch + 1, "bob").await;
}

/// Half of a rebuild is not continued by another server.
#[tokio::test]
async fn a_rebuild_that_was_cut_by_a_failover_begins_anew() {
    let old = primary();
    let store = connect(&old.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch + 1;
    let orders = [
        take(&store, &spec, epoch - 1, "ann").await,
        take(&store, &spec, epoch - 1, "bob").await,
    ];
    store.freeze(&spec.id, epoch).await.unwrap();
    store
        .rebuild_begin(&spec, epoch, &Default::default())
        .await
        .unwrap();
    store
        .rebuild_load(&spec.id, epoch, &orders[..1])
        .await
        .unwrap();
    let replica = replica_of(&old);
    replica.cli(&["replicaof", "no", "one"]);

    let store = connect(&replica.url()).await;
    let refusals = [
        store.rebuild_load(&spec.id, epoch, &orders[1..]).await,
        store
            .rebuild_finish(&spec.id, epoch, Gate::Open)
            .await
            .map(drop),
    ];
    for refusal in refusals {
        assert!(
            matches!(refusal, Err(StockError::AwaitsRebuild(_))),
            "{refusal:?}"
        );
    }
    let counts = rebuild(&store, &spec, epoch + 1, &mut orders.to_vec())
        .await
        .unwrap();
    assert_eq!((counts.available, counts.accepted), (3, 2));
}

#[tokio::test]
async fn a_rebuild_of_many_orders_comes_in_pages() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let spec = spec(5_000, 1);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let wishes: Vec<_> = (0..3_000)
        .map(|buyer| purchase(&spec.id, &format!("b{buyer}"), "r1"))
        .collect();
    store.buy_many(&spec.id, epoch, wishes).await.unwrap();
    let pulled = store
        .pull(&spec.id, "c1", 1_000, Duration::from_secs(60))
        .await
        .unwrap();
    let positions: Vec<_> = pulled.iter().map(|entry| entry.position).collect();
    store.ack(&spec.id, &positions[..500]).await.unwrap();
    assert_eq!(unsettled(&store, &spec).await.unwrap().len(), 2_500);
    let mut ledger: Vec<_> = pulled
        .into_iter()
        .take(500)
        .map(|entry| entry.order.unwrap())
        .collect();
    let counts = rebuild(&store, &spec, epoch + 1, &mut ledger)
        .await
        .unwrap();
    assert_eq!((counts.available, counts.accepted), (2_000, 3_000));
    let all = store
        .accepted_after(&spec.id, Position::default(), 5_000)
        .await
        .unwrap();
    assert_eq!(all.len(), 3_000);
    assert_eq!(store.depth(&spec.id).await.unwrap().entries, 0);
}

/// The group is what knows what was acknowledged: without it everything may be unsettled, and the ledger sorts it out.
#[tokio::test]
async fn a_queue_without_its_group_is_unsettled_from_its_beginning() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let order = take(&store, &spec, epoch, "ann").await;
    let stream = key(&spec.id, "stream");
    server.cli(&["xadd", &stream, "*", "something", "else"]);
    let other = take(&store, &spec, epoch, "bob").await;
    server.cli(&["xgroup", "destroy", &stream, "settlement"]);
    let mut left = Vec::new();
    // Pages of one: the poison entry between the two must not look like the end.
    let mut after = Position::default();
    while let Some((position, order)) = store.unsettled(&spec.id, after, 1).await.unwrap().pop() {
        after = position;
        left.push(order);
    }
    assert_eq!(left, [order, other]);
    // The meta may be gone as well.
    server.cli(&["del", &key(&spec.id, "meta")]);
    assert_eq!(unsettled(&store, &spec).await.unwrap().len(), 2);
    let counts = rebuild(&store, &spec, epoch + 1, &mut Vec::new())
        .await
        .unwrap();
    assert_eq!(counts.available, 3);
}

/// Counters that nobody can trust stop a sale; they do not stop its rebuild.
#[tokio::test]
async fn a_segment_with_broken_counters_is_rebuilt() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    for (field, value) in [("available", "77"), ("reserved", "many")] {
        let spec = spec(5, 5);
        let epoch = store.open(&spec).await.unwrap().epoch;
        take(&store, &spec, epoch, "ann").await;
        server.cli(&["hset", &key(&spec.id, "meta"), field, value]);
        let read = store.snapshot(&spec.id).await;
        assert!(matches!(read, Err(StockError::Corrupt(_))), "{read:?}");
        let counts = rebuild(&store, &spec, epoch + 1, &mut Vec::new())
            .await
            .unwrap();
        assert_eq!((counts.available, counts.reserved), (4, 1));
    }
}

fn key(segment: &SegmentId, part: &str) -> String {
    format!("penstock:{{{segment}}}:{part}")
}
