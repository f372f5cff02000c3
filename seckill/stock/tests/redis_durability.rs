//! The durability of a sale in Redis: what an answer waits for, and what a server that cannot give it is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use stock::{
    Durability, Rebuild, SegmentSpec, Segments, Selling, StockError, StockMoves, Verdict,
    redis::{RedisOptions, RedisStore},
};
use testkit::{
    rebuild::rebuild,
    redis::{Server, connect, insist, purchase, shared, spec},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn sale(durability: Durability) -> SegmentSpec {
    SegmentSpec {
        durability: Some(durability),
        ..spec(5, 5)
    }
}

async fn buy(store: &RedisStore, spec: &SegmentSpec, epoch: u64) -> Result<Verdict, StockError> {
    let wish = purchase(&spec.id, "ann", &format!("r{:x}", rand::random::<u64>()));
    let verdicts = store.buy_many(&spec.id, epoch, vec![wish]).await?;
    Ok(verdicts.into_iter().next().expect("one for each"))
}

fn assert_advises<T: std::fmt::Debug>(answer: Result<T, StockError>) {
    let Err(StockError::Unavailable(why)) = answer else {
        panic!("{answer:?}")
    };
    for part in ["durability = \"durable\"", "CONFIG SET appendfsync always"] {
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test]
async fn a_sale_that_asks_for_more_than_the_server_gives_is_refused_when_it_is_opened() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let durable = sale(Durability::Durable);
    assert_advises(store.open(&durable).await);
    let moves = StockMoves::default();
    assert_advises(store.rebuild_begin(&durable, 2, &moves).await);
    assert_eq!(server.cli(&["dbsize"]), "0");
    // Other sales are none the worse for it.
    let fast = spec(5, 5);
    let epoch = store.open(&fast).await.unwrap().epoch;
    buy(&store, &fast, epoch).await.unwrap();

    server.cli(&["config", "set", "appendfsync", "always"]);
    server.cli(&["config", "set", "appendonly", "yes"]);
    let opened = insist(async || store.open(&durable).await).await;
    assert_eq!(opened.spec, durable);
    let bought = buy(&store, &durable, opened.epoch).await.unwrap();
    assert!(matches!(bought, Verdict::Accepted { .. }), "{bought:?}");
}

/// Broke: a server that does not sync while it rewrites its file was taken for one that syncs before it answers.
#[tokio::test]
async fn a_server_that_rests_while_it_rewrites_its_file_is_not_durable() {
    let server = Server::start(&[
        "appendonly",
        "yes",
        "appendfsync",
        "always",
        "no-appendfsync-on-rewrite",
        "yes",
    ]);
    let store = connect(&server.url()).await;
    assert_advises(store.open(&sale(Durability::Durable)).await);
    server.cli(&["config", "set", "no-appendfsync-on-rewrite", "no"]);
    insist(async || store.open(&sale(Durability::Durable)).await).await;
}

#[tokio::test]
async fn a_durable_sale_stops_on_a_server_that_is_durable_no_more_and_others_go_on() {
    let mut server = Server::start(&["appendonly", "yes", "appendfsync", "always"]);
    let store = connect(&server.url()).await;
    let (durable, fast) = (sale(Durability::Durable), sale(Durability::Fast));
    let epoch = store.open(&durable).await.unwrap().epoch;
    store.open(&fast).await.unwrap();
    buy(&store, &durable, epoch).await.unwrap();
    server.kill();
    server.restart_with(&["appendonly", "yes", "appendfsync", "everysec"]);

    let rebuilt = async || rebuild(&store, &fast, epoch + 1, &mut Vec::new()).await;
    insist(rebuilt).await;
    buy(&store, &fast, epoch + 1).await.unwrap();
    assert_advises(buy(&store, &durable, epoch).await);
    assert_advises(store.freeze(&durable.id, epoch + 1).await);
    // What only reads goes on.
    assert_eq!(store.snapshot(&durable.id).await.unwrap().accepted, 1);
}

/// Workers and other gateways call segments that they have not opened themselves.
#[tokio::test]
async fn the_level_of_a_sale_is_kept_by_a_store_that_has_not_opened_it() {
    let options = RedisOptions {
        timeout: Duration::from_millis(300),
        ..RedisOptions::default()
    };
    let url = shared().url();
    let opener = RedisStore::connect(&url, options.clone()).await.unwrap();
    let replicated = sale(Durability::Replicated);
    let promises_nothing = |answer: Result<(), StockError>| {
        assert!(
            matches!(&answer, Err(StockError::Unknown(why)) if why.contains("0 of 1 replicas")),
            "{answer:?}"
        );
    };
    promises_nothing(opener.open(&replicated).await.map(drop));
    let other = RedisStore::connect(&url, options.clone()).await.unwrap();
    promises_nothing(buy(&other, &replicated, 1).await.map(drop));
    // And a sale may ask for less than the store's own level.
    let strict = RedisOptions {
        durability: Durability::Replicated,
        ..options
    };
    let strict = RedisStore::connect(&url, strict).await.unwrap();
    let fast = sale(Durability::Fast);
    let epoch = strict.open(&fast).await.unwrap().epoch;
    buy(&strict, &fast, epoch).await.unwrap();
    promises_nothing(strict.open(&spec(5, 5)).await.map(drop));
}

/// Broke: the wait for a replica that is away held up every call to that server, so that all its sales were down.
#[tokio::test]
async fn a_lost_replica_holds_up_replicated_writes_only() {
    let server = Server::start(&["appendonly", "yes", "appendfsync", "always"]);
    let store = Arc::new(connect(&server.url()).await);
    let (fast, durable) = (sale(Durability::Fast), sale(Durability::Durable));
    let epoch = store.open(&fast).await.unwrap().epoch;
    store.open(&durable).await.unwrap();
    let replicated = sale(Durability::Replicated);
    let no_replica = store.open(&replicated).await;
    assert!(
        matches!(no_replica, Err(StockError::Unknown(_))),
        "{no_replica:?}"
    );

    let waiting = tokio::spawn({
        let store = store.clone();
        async move { buy(&store, &replicated, epoch).await }
    });
    // Sent, and held back by the server for half of the timeout, one second.
    insist(async || {
        match server
            .cli(&["info", "clients"])
            .contains("blocked_clients:1")
        {
            true => Ok(()),
            false => Err(StockError::Unknown("not yet".to_owned())),
        }
    })
    .await;
    for spec in [&fast, &durable] {
        let bought = buy(&store, spec, epoch).await.unwrap();
        assert!(matches!(bought, Verdict::Accepted { .. }), "{bought:?}");
        store.snapshot(&spec.id).await.unwrap();
    }
    assert!(!waiting.is_finished(), "the others were answered behind it");
    let bought = waiting.await.unwrap();
    assert!(matches!(bought, Err(StockError::Unknown(_))), "{bought:?}");
}

/// The first answer was lost for want of a replica; another connection, which has written nothing, must not vouch for it.
#[tokio::test]
async fn a_replay_is_as_durable_as_the_first_answer() {
    let primary = Server::start(&["repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&[]);
    replica.cli(&["replicaof", "127.0.0.1", &primary.port.to_string()]);
    let options = || RedisOptions {
        timeout: Duration::from_millis(400),
        ..RedisOptions::default()
    };
    let one = RedisStore::connect(&primary.url(), options())
        .await
        .unwrap();
    let two = RedisStore::connect(&primary.url(), options())
        .await
        .unwrap();
    let spec = sale(Durability::Replicated);
    let epoch = insist(async || one.open(&spec).await).await.epoch;
    two.snapshot(&spec.id).await.unwrap();
    replica.pause();
    let wish = purchase(&spec.id, "ann", "r1");
    for store in [&one, &two] {
        let bought = store.buy_many(&spec.id, epoch, vec![wish.clone()]).await;
        assert!(matches!(bought, Err(StockError::Unknown(_))), "{bought:?}");
    }
    replica.resume();
    let again = async || two.buy_many(&spec.id, epoch, vec![wish.clone()]).await;
    let replayed = insist(again).await;
    assert!(
        matches!(&replayed[0], Verdict::Replayed(order) if order.order == wish.order),
        "{replayed:?}"
    );
}

/// Stands before a Redis 7.0 and plays one that has `WAITAOF`: it names a later version and answers that command itself.
struct Later {
    address: String,
    waits: Arc<AtomicUsize>,
    is_on_disk: Arc<AtomicBool>,
}

impl Later {
    async fn than(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let later = Self {
            address: format!("redis://{}", listener.local_addr().unwrap()),
            waits: Arc::default(),
            is_on_disk: Arc::new(AtomicBool::new(true)),
        };
        let (port, waits, is_on_disk) = (
            server.port,
            Arc::clone(&later.waits),
            Arc::clone(&later.is_on_disk),
        );
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let redis = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (waits, is_on_disk) = (Arc::clone(&waits), Arc::clone(&is_on_disk));
                let (from_client, to_client) = client.into_split();
                let (from_redis, to_redis) = redis.into_split();
                tokio::spawn(pass(from_client, to_redis, move |text| {
                    let wait = "*4\r\n$7\r\nWAITAOF\r\n$1\r\n1\r\n$1\r\n0\r\n$4\r\n1000\r\n";
                    waits.fetch_add(text.matches(wait).count(), Ordering::SeqCst);
                    let local = usize::from(is_on_disk.load(Ordering::SeqCst));
                    let script = format!("return {{{local},0}}");
                    let answered = format!(
                        "*3\r\n$4\r\nEVAL\r\n${}\r\n{script}\r\n$1\r\n0\r\n",
                        script.len()
                    );
                    text.replace(wait, &answered)
                }));
                tokio::spawn(pass(from_redis, to_client, |text| {
                    text.replace("redis_version:7.0.", "redis_version:7.2.")
                }));
            }
        });
        later
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    change: impl Fn(&str) -> String,
) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // Texts of the protocol are replaced in whole pieces only; what is cut between two reads passes as it is.
        let changed = match std::str::from_utf8(&buffer[..read]) {
            Ok(text) => change(text).into_bytes(),
            Err(_) => buffer[..read].to_vec(),
        };
        if to.write_all(&changed).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_later_redis_that_syncs_once_a_second_is_asked_to_wait_for_its_disk() {
    let server = Server::start(&["appendonly", "yes", "appendfsync", "everysec"]);
    let later = Later::than(&server).await;
    let store = connect(&later.address).await;
    let fast = spec(5, 5);
    let epoch = store.open(&fast).await.unwrap().epoch;
    buy(&store, &fast, epoch).await.unwrap();
    assert_eq!(later.waits.load(Ordering::SeqCst), 0);

    let durable = sale(Durability::Durable);
    let epoch = store.open(&durable).await.unwrap().epoch;
    buy(&store, &durable, epoch).await.unwrap();
    assert_eq!(later.waits.load(Ordering::SeqCst), 2);
    later.is_on_disk.store(false, Ordering::SeqCst);
    let late = buy(&store, &durable, epoch).await;
    assert!(
        matches!(&late, Err(StockError::Unknown(why)) if why.contains("not on the disk in time")),
        "{late:?}"
    );
    // It was bought all the same.
    assert_eq!(store.snapshot(&durable.id).await.unwrap().accepted, 2);
}
