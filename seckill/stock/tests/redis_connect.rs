//! Connecting to Redis: what is refused, and with which words.

use std::{net::TcpListener, time::Duration};

use stock::{
    Durability, Segments, Selling, StockError, Verdict,
    redis::{RedisOptions, RedisStore},
};
use testkit::{
    rebuild::rebuild,
    redis::{Server, connect, free_port, insist, purchase, shared, shared_cluster, spec},
};
use tokio::time::Instant;

async fn refusal(url: &str, options: RedisOptions) -> String {
    match RedisStore::connect(url, options).await {
        Err(StockError::Unavailable(why)) => why,
        Err(error) => panic!("not the right error: {error:?}"),
        Ok(_) => panic!("connected to {url}"),
    }
}

#[tokio::test]
async fn a_server_that_may_evict_stock_is_refused() {
    let server = Server::start(&["maxmemory-policy", "allkeys-lru"]);
    let why = refusal(&server.url(), RedisOptions::default()).await;
    assert!(
        why.contains("CONFIG SET maxmemory-policy noeviction"),
        "{why}"
    );
}

#[tokio::test]
async fn durable_needs_a_server_that_syncs_before_it_answers() {
    let durable = || RedisOptions {
        durability: Durability::Durable,
        ..RedisOptions::default()
    };
    let why = refusal(&shared().url(), durable()).await;
    assert!(why.contains("CONFIG SET appendfsync always"), "{why}");

    let server = Server::start(&["appendonly", "yes", "appendfsync", "always"]);
    let store = RedisStore::connect(&server.url(), durable()).await.unwrap();
    store.open(&spec(1, 1)).await.unwrap();
}

// The settings used to be checked at the first connection only.
#[tokio::test]
async fn a_durable_server_that_comes_back_without_its_settings_sells_nothing() {
    let good = ["appendonly", "yes", "appendfsync", "always"];
    let mut server = Server::start(&good);
    let options = RedisOptions {
        durability: Durability::Durable,
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&server.url(), options).await.unwrap();
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    server.kill();
    server.restart_with(&["appendonly", "yes", "appendfsync", "everysec"]);
    let buy = async |request| {
        let wish = purchase(&spec.id, "ann", request);
        store.buy_many(&spec.id, epoch, vec![wish]).await
    };
    // Whatever was on its way while the connection was lost is unknown at most; no call is answered.
    let why = refusal_of(async || buy("r1").await).await;
    assert!(why.contains("CONFIG SET appendfsync always"), "{why}");
    assert!(why.contains("CONFIG REWRITE"), "{why}");
    let refused = buy("r2").await;
    assert!(
        matches!(refused, Err(StockError::Unavailable(_))),
        "{refused:?}"
    );
    // What the advice says is enough; nobody has to start the gateway again.
    server.cli(&["config", "set", "appendfsync", "always"]);
    let verdicts = insist(async || buy("r2").await).await;
    assert_eq!(verdicts, [Verdict::Frozen], "it was restarted");
    let rebuilt = rebuild(&store, &spec, epoch + 1, &mut Vec::new()).await;
    assert_eq!(
        rebuilt.unwrap().accepted,
        0,
        "refused means that nothing was bought"
    );
}

#[tokio::test]
async fn a_server_that_comes_back_ready_to_evict_sells_nothing() {
    let mut server = Server::start(&[]);
    let store = connect(&server.url()).await;
    server.kill();
    server.restart_with(&["maxmemory-policy", "allkeys-lru"]);
    let spec = spec(5, 5);
    let why = refusal_of(async || store.open(&spec).await).await;
    assert!(why.contains("maxmemory-policy noeviction"), "{why}");
    assert_eq!(server.cli(&["dbsize"]), "0");
}

/// Asks until the settings are the reason of the refusal; any answer is one too many.
async fn refusal_of<T: std::fmt::Debug>(call: impl AsyncFn() -> Result<T, StockError>) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match call().await {
            Err(StockError::Unavailable(why)) if why.contains("CONFIG SET") => return why,
            Err(StockError::Unavailable(_) | StockError::Unknown(_))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_unreachable_server_is_waited_for_and_unavailable_within_the_timeout() {
    let port = free_port();
    // Somebody listens, but never answers.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis-cluster://127.0.0.1:{port}"),
        format!("redis://{}", deaf.local_addr().unwrap()),
    ] {
        let start = Instant::now();
        let store = RedisStore::connect(&url, quick()).await.unwrap();
        let refused = store.open(&spec(1, 1)).await;
        assert!(
            matches!(refused, Err(StockError::Unavailable(_))),
            "{url}: {refused:?}"
        );
        let took = start.elapsed();
        assert!(took < Duration::from_secs(3), "{url}: {took:?}");
    }
}

fn quick() -> RedisOptions {
    RedisOptions {
        timeout: Duration::from_millis(500),
        ..RedisOptions::default()
    }
}

// Broke: one server that was away while a node started kept the whole node, a shop's proxy among the rest, from starting.
#[tokio::test]
async fn a_server_that_comes_later_is_used_from_then_on() {
    let mut server = Server::start(&[]);
    server.kill();
    let store = RedisStore::connect(&server.url(), quick()).await.unwrap();
    let spec = spec(1, 1);
    let refused = store.open(&spec).await;
    assert!(
        matches!(refused, Err(StockError::Unavailable(_))),
        "{refused:?}"
    );
    server.restart();
    insist(async || store.open(&spec).await).await;
}

#[tokio::test]
async fn what_comes_later_is_checked_too() {
    let mut server = Server::start(&[]);
    server.kill();
    let store = RedisStore::connect(&server.url(), quick()).await.unwrap();
    server.restart_with(&["maxmemory-policy", "allkeys-lru"]);
    for _ in 0..20 {
        let refused = store.open(&spec(1, 1)).await;
        assert!(
            matches!(refused, Err(StockError::Unavailable(_))),
            "{refused:?}"
        );
    }
    assert_eq!(server.cli(&["dbsize"]), "0");
    server.cli(&["config", "set", "maxmemory-policy", "noeviction"]);
    insist(async || store.open(&spec(1, 1)).await).await;
}

#[tokio::test]
async fn a_bad_address_is_explained_without_its_password() {
    for url in [
        "rediss://user:hush@h:1",
        "redis://:hush@127.0.0.1:1,127.0.0.1:2",
        "nonsense",
    ] {
        let why = refusal(url, RedisOptions::default()).await;
        assert!(!why.contains("hush"), "{why}");
    }
}

#[tokio::test]
async fn a_password_is_given_beside_the_address_or_in_it() {
    let server = Server::start(&[]);
    server.cli(&["config", "set", "requirepass", "hush"]);
    let why = refusal(&server.url(), RedisOptions::default()).await;
    assert!(why.contains("NOAUTH"), "{why}");
    let wrong = server.url().replace("redis://", "redis://:hash@");
    let why = refusal(&wrong, RedisOptions::default()).await;
    assert!(!why.contains("hash"), "{why}");
    let options = RedisOptions {
        password: Some("hush".to_owned()),
        ..RedisOptions::default()
    };
    RedisStore::connect(&server.url(), options).await.unwrap();
    connect(&server.url().replace("redis://", "redis://:hush@")).await;
}

#[tokio::test]
async fn one_address_of_a_cluster_is_enough() {
    let store = connect(&format!(
        "redis-cluster://127.0.0.1:{}",
        shared_cluster().nodes[1].port
    ))
    .await;
    for _ in 0..8 {
        store.open(&spec(1, 1)).await.unwrap();
    }
}

#[tokio::test]
async fn replicated_without_a_replica_promises_nothing() {
    let options = RedisOptions {
        durability: Durability::Replicated,
        timeout: Duration::from_millis(300),
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&shared().url(), options).await.unwrap();
    let error = store.open(&spec(1, 1)).await.unwrap_err();
    assert!(
        matches!(&error, StockError::Unknown(why) if why.contains("0 of 1 replicas")),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_error_of_wait_leaves_the_outcome_unknown() {
    let server = Server::start(&[]);
    let options = RedisOptions {
        durability: Durability::Replicated,
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&server.url(), options).await.unwrap();
    server.cli(&["acl", "setuser", "default", "-wait"]);
    let spec = spec(5, 5);
    // NOPERM for WAIT: the call before it was executed all the same.
    let opened = store.open(&spec).await;
    assert!(
        matches!(&opened, Err(StockError::Unknown(why)) if why.contains("NOPERM")),
        "{opened:?}"
    );
    assert_eq!(store.snapshot(&spec.id).await.unwrap().available, 5);
}

#[tokio::test]
async fn replicated_answers_once_a_replica_has_it() {
    let primary = Server::start(&["repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&[]);
    replica.cli(&["replicaof", "127.0.0.1", &primary.port.to_string()]);
    let options = RedisOptions {
        durability: Durability::Replicated,
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&primary.url(), options).await.unwrap();
    let spec = spec(5, 5);
    // Until the replica has caught up the answer is "unknown"; the same ids make asking again harmless.
    let epoch = testkit::redis::insist(async || store.open(&spec).await)
        .await
        .epoch;
    let purchase = testkit::redis::purchase(&spec.id, "ann", "r1");
    store
        .buy_many(&spec.id, epoch, vec![purchase.clone()])
        .await
        .unwrap();
    store
        .buy_many(&spec.id, epoch, vec![purchase])
        .await
        .unwrap();
    let stream = format!("penstock:{{{}}}:stream", spec.id);
    assert_eq!(replica.cli(&["xlen", &stream]), "1");
}
