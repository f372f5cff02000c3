//! Redis that dies, forgets or stops in the middle of a sale. The judge is the clients' own history, not the store's counters.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use stock::{
    Durability, Gate, Lookup, Moves, OrderQueue, Position, SegmentSpec, Segments, Selling,
    StockError, Verdict,
    ids::{OrderId, RequestId},
    redis::{RedisOptions, RedisStore},
};
use testkit::{
    rebuild::rebuild,
    redis::{Server, connect, insist, purchase, shared, spec, try_cli},
};
use tokio::{sync::watch, time::Instant};

#[tokio::test]
async fn functions_that_were_flushed_are_loaded_again() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let spec = spec(50, 50);
    let epoch = store.open(&spec).await.unwrap().epoch;
    for round in 0..20 {
        server.cli(&["function", "flush"]);
        server.cli(&["script", "flush"]);
        let verdicts = store
            .buy_many(
                &spec.id,
                epoch,
                vec![purchase(&spec.id, "ann", &format!("r{round}"))],
            )
            .await
            .unwrap();
        assert!(
            matches!(verdicts[0], Verdict::Accepted { .. }),
            "{verdicts:?}"
        );
    }
    assert_eq!(store.snapshot(&spec.id).await.unwrap().accepted, 20);
}

#[tokio::test]
async fn a_server_that_comes_back_empty_creates_nothing_by_itself() {
    let mut server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let wish = purchase(&spec.id, "ann", "r1");
    store
        .buy_many(&spec.id, epoch, vec![wish.clone()])
        .await
        .unwrap();
    server.kill();
    server.restart();
    let id = &spec.id;
    let lost = lasting(async || store.snapshot(id).await).await;
    assert!(matches!(lost, Err(StockError::NotOpen(_))), "{lost:?}");
    let position = Position { major: 1, minor: 0 };
    let lookup = Lookup::Order(wish.order);
    let wait = Duration::ZERO;
    let errors = [
        store.buy_many(id, epoch, vec![wish.clone()]).await.err(),
        store.release_many(id, &[wish.order]).await.err(),
        store.confirm_many(id, &[wish.order]).await.err(),
        store.set_gate(id, Gate::Open).await.err(),
        store.restock(id, "pallet", 1).await.err(),
        store.find(id, &lookup).await.err(),
        store.accepted_after(id, position, 10).await.err(),
        store.pull(id, "c1", 10, wait).await.err(),
        store.ack(id, &[position]).await.err(),
        store.depth(id).await.err(),
    ];
    for (call, error) in errors.iter().enumerate() {
        assert!(
            matches!(error, Some(StockError::NotOpen(_))),
            "{call}: {error:?}"
        );
    }
    assert_eq!(server.cli(&["dbsize"]), "0");
}

/// Asks until the server answers.
async fn lasting<T>(call: impl AsyncFn() -> Result<T, StockError>) -> Result<T, StockError> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match call().await {
            Err(StockError::Unavailable(_) | StockError::Unknown(_))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other,
        }
    }
}

#[tokio::test]
async fn a_server_that_stops_answering_leaves_the_outcome_unknown_and_the_ids_settle_it() {
    let server = Server::start(&[]);
    let options = RedisOptions {
        timeout: Duration::from_millis(300),
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&server.url(), options).await.unwrap();
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let wish = purchase(&spec.id, "ann", "r1");

    server.pause();
    let start = Instant::now();
    let result = store.buy_many(&spec.id, epoch, vec![wish.clone()]).await;
    assert!(matches!(result, Err(StockError::Unknown(_))), "{result:?}");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    server.resume();

    let verdicts = insist(async || store.buy_many(&spec.id, epoch, vec![wish.clone()]).await).await;
    let order = match &verdicts[0] {
        Verdict::Accepted { order, .. } | Verdict::Replayed(order) => order,
        other => panic!("{other:?}"),
    };
    assert_eq!(order.order, wish.order);
    assert_eq!(
        store.snapshot(&spec.id).await.unwrap().accepted,
        1,
        "INV-ORDER-1"
    );
}

/// A script that hangs holds everybody up. Redis then refuses calls; what it refuses was not executed.
#[tokio::test]
async fn a_server_that_is_busy_with_a_script_executes_nothing() {
    let server = Server::start(&["busy-reply-threshold", "50"]);
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let port = server.port;
    let hog = std::thread::spawn(move || try_cli(port, &["eval", "while true do end", "0"]));
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut buyers = 0;
    let why = loop {
        // Another buyer each time: who was answered before the script began has bought.
        let wish = purchase(&spec.id, "ann", &format!("r{buyers}"));
        match store.buy_many(&spec.id, epoch, vec![wish]).await {
            Ok(_) if Instant::now() < deadline => buyers += 1,
            Err(StockError::Unavailable(why)) => break why,
            other => panic!("{other:?}"),
        }
    };
    assert!(why.starts_with("BUSY"), "{why}");
    server.cli(&["script", "kill"]);
    hog.join().unwrap();
    let counts = insist(async || store.snapshot(&spec.id).await).await;
    assert_eq!(counts.accepted, buyers.min(5));
}

#[tokio::test]
async fn a_dead_server_is_unavailable_at_once_and_used_again_when_it_is_back() {
    let mut server = Server::start(&["appendonly", "yes", "appendfsync", "always"]);
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    server.kill();
    // The client may need a moment to see that the connection is gone.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let start = Instant::now();
        match store.snapshot(&spec.id).await {
            Err(StockError::Unavailable(_)) if start.elapsed() < Duration::from_millis(100) => {
                break;
            }
            Err(StockError::Unavailable(_) | StockError::Unknown(_))
                if Instant::now() < deadline => {}
            other => panic!("{other:?}"),
        }
    }
    server.restart();
    let wish = purchase(&spec.id, "ann", "r1");
    let verdicts = insist(async || store.buy_many(&spec.id, epoch, vec![wish.clone()]).await).await;
    assert_eq!(verdicts, [Verdict::Frozen], "it was restarted");
}

/// INV-STOCK-1, INV-ORDER-1, INV-ORDER-3 across `kill -9`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_order_is_lost_when_a_durable_server_is_killed_in_mid_sale() {
    const STOCK: u64 = 4_000;
    let mut server = Server::start(&["appendonly", "yes", "appendfsync", "always"]);
    let options = RedisOptions {
        durability: Durability::Durable,
        timeout: Duration::from_millis(500),
        ..RedisOptions::default()
    };
    let store = Arc::new(RedisStore::connect(&server.url(), options).await.unwrap());
    let spec = SegmentSpec {
        buyer_limit: 1,
        ..spec(STOCK, 1)
    };
    let epoch = store.open(&spec).await.unwrap().epoch;

    let (progress, mut watched) = watch::channel(0usize);
    let progress = Arc::new(progress);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let (store, spec, progress) = (Arc::clone(&store), spec.clone(), Arc::clone(&progress));
        clients.spawn(async move { shop(&store, &spec, epoch, client, &progress).await });
    }
    // Three kills while the sale runs, each after some more orders have been acknowledged. Nothing is settled meanwhile, so all
    // orders are still on the queue, and each rebuild finds them there.
    let mut ledger = Vec::new();
    for kill in 1..=3 {
        watched
            .wait_for(|acknowledged| *acknowledged > kill * 500)
            .await
            .unwrap();
        server.kill();
        server.restart();
        let rebuilt = async || {
            let epoch = store.snapshot(&spec.id).await?.epoch + 1;
            rebuild(store.as_ref(), &spec, epoch, &mut ledger).await
        };
        insist(rebuilt).await;
    }
    let mut acknowledged: HashMap<RequestId, OrderId> = HashMap::new();
    let mut unknown = 0;
    while let Some(history) = clients.join_next().await {
        let history = history.unwrap();
        unknown += history.unknown;
        for (request, order) in history.acknowledged {
            assert!(acknowledged.insert(request, order).is_none());
        }
    }
    println!(
        "{} acknowledged, {unknown} unknown in between",
        acknowledged.len()
    );
    assert!(unknown > 0, "the kills hit calls in flight");

    // Every acknowledged order is there under the id that was told, and there is no other.
    let counts = insist(async || store.snapshot(&spec.id).await).await;
    assert_eq!(acknowledged.len() as u64, STOCK, "sold exactly everything");
    assert_eq!(
        (counts.accepted, counts.available, counts.reserved),
        (STOCK, 0, STOCK)
    );
    for (request, order) in &acknowledged {
        let lookup = Lookup::Request(request.as_str().parse().unwrap(), request.clone());
        let found = store
            .find(&spec.id, &lookup)
            .await
            .unwrap()
            .expect("INV-ORDER-3");
        assert_eq!(found.order, *order);
    }
    // What the last rebuild found on the queue is settled with it.
    let mut queued: HashSet<_> = ledger.iter().map(|order| order.order).collect();
    loop {
        let entries = store
            .pull(&spec.id, "c1", 1_000, Duration::from_secs(60))
            .await
            .unwrap();
        if entries.is_empty() {
            break;
        }
        queued.extend(entries.into_iter().map(|entry| entry.order.unwrap().order));
    }
    assert_eq!(
        queued,
        acknowledged.into_values().collect(),
        "INV-ORDER-2: the queue holds the same orders"
    );
}

#[derive(Default)]
struct History {
    acknowledged: Vec<(RequestId, OrderId)>,
    unknown: usize,
}

/// Buys in batches until nothing is left. Whatever gave no answer is asked again with the same ids.
async fn shop(
    store: &RedisStore,
    spec: &SegmentSpec,
    mut epoch: u64,
    client: usize,
    progress: &watch::Sender<usize>,
) -> History {
    let mut history = History::default();
    for batch in 0.. {
        // Each buyer buys once, and the buyer's name is the request id too.
        let wishes: Vec<_> = (0..8)
            .map(|item| format!("c{client}-{batch}-{item}"))
            .map(|name| purchase(&spec.id, &name, &name))
            .collect();
        let verdicts = loop {
            match store.buy_many(&spec.id, epoch, wishes.clone()).await {
                Ok(verdicts) => match verdicts.iter().find_map(hindrance) {
                    None => break verdicts,
                    Some(current) => epoch = current.unwrap_or(epoch),
                },
                Err(StockError::Unavailable(_) | StockError::AwaitsRebuild(_)) => {}
                Err(StockError::Unknown(_)) => history.unknown += 1,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        for verdict in verdicts {
            match verdict {
                Verdict::Accepted { order, .. } | Verdict::Replayed(order) => {
                    history.acknowledged.push((order.request, order.order));
                }
                Verdict::SoldOut { .. } => return history,
                other => panic!("{other:?}"),
            }
        }
        progress.send_modify(|acknowledged| *acknowledged += 8);
    }
    history
}

/// Whether a batch must come again: under the epoch that is told, or the same.
fn hindrance(verdict: &Verdict) -> Option<Option<u64>> {
    match verdict {
        Verdict::Frozen => Some(None),
        Verdict::StaleEpoch { current } => Some(Some(*current)),
        _ => None,
    }
}

#[tokio::test]
async fn a_store_that_is_dropped_closes_its_connection() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let connections = || {
        server
            .cli(&["client", "list", "type", "normal"])
            .lines()
            .count()
    };
    assert!(connections() >= 2, "ours and that of redis-cli");
    drop(store);
    let deadline = Instant::now() + Duration::from_secs(5);
    while connections() > 1 {
        assert!(Instant::now() < deadline, "the connection is still open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn stores_share_a_server_without_a_word_to_each_other() {
    let (one, two) = (
        connect(&shared().url()).await,
        connect(&shared().url()).await,
    );
    let spec = spec(1, 1);
    let epoch = one.open(&spec).await.unwrap().epoch;
    let wish = purchase(&spec.id, "ann", "r1");
    one.buy_many(&spec.id, epoch, vec![wish.clone()])
        .await
        .unwrap();
    let verdicts = two
        .buy_many(
            &spec.id,
            epoch,
            vec![wish.clone(), purchase(&spec.id, "bob", "r1")],
        )
        .await
        .unwrap();
    assert!(
        matches!(&verdicts[0], Verdict::Replayed(order) if order.order == wish.order),
        "{verdicts:?}"
    );
    assert!(
        matches!(verdicts[1], Verdict::SoldOut { remaining: 0, .. }),
        "{verdicts:?}"
    );
}
