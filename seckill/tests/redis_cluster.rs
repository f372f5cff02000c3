//! What only a cluster does: segments on different primaries, and slots that move.

use std::collections::HashSet;

use seckill::store::{SegmentSpec, StockError, StockStore, Verdict};

use crate::support::redis::{Cluster, connect, insist, purchase, shared_cluster, spec};

#[tokio::test]
async fn segments_spread_over_all_primaries() {
    let cluster = shared_cluster();
    let store = connect(&cluster.url()).await;
    let mut used = HashSet::new();
    for _ in 0..30 {
        let spec = spec(1, 1);
        let epoch = store.open(&spec).await.unwrap().epoch;
        let verdicts = store.buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r1")]).await.unwrap();
        assert!(matches!(verdicts[0], Verdict::Accepted { .. }), "{verdicts:?}");
        let holds = |port: u16| {
            let found = std::process::Command::new("redis-cli")
                .args(["-p", &port.to_string(), "exists", &format!("penstock:{{{}}}:meta", spec.id)])
                .output()
                .unwrap();
            found.stdout.starts_with(b"1")
        };
        used.extend(cluster.nodes.iter().map(|node| node.port).filter(|port| holds(*port)));
    }
    assert_eq!(used.len(), 3);
}

#[tokio::test]
async fn a_slot_that_moved_is_followed() {
    let cluster = Cluster::start();
    let store = connect(&cluster.url()).await;
    let spec = spec(5, 5);
    let meta = format!("penstock:{{{}}}:meta", spec.id);
    let slot = cluster.nodes[0].cli(&["cluster", "keyslot", &meta]);
    let (from, to) = match slot.parse::<u32>().unwrap() {
        0..=5460 => (0, 1),
        5461..=10922 => (1, 2),
        _ => (2, 0),
    };
    // The slot is empty, so it moves by word alone. The client still believes in its old place.
    let new_owner = cluster.nodes[to].cli(&["cluster", "myid"]);
    for node in [to, from, 3 - from - to] {
        cluster.nodes[node].cli(&["cluster", "setslot", &slot, "node", &new_owner]);
    }
    let epoch = insist(async || store.open(&spec).await).await.epoch;
    let verdicts = store.buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r1")]).await.unwrap();
    assert!(matches!(verdicts[0], Verdict::Accepted { .. }), "{verdicts:?}");
    assert_eq!(cluster.nodes[to].cli(&["exists", &meta]), "1");
}

#[tokio::test]
async fn a_dead_primary_takes_only_its_own_segments_with_it() {
    let mut cluster = Cluster::start();
    for node in &cluster.nodes {
        node.cli(&["config", "set", "cluster-require-full-coverage", "no"]);
    }
    let store = connect(&cluster.url()).await;
    let segments: Vec<SegmentSpec> = (0..24).map(|_| spec(5, 5)).collect();
    for spec in &segments {
        store.open(spec).await.unwrap();
    }
    cluster.nodes[2].kill();
    let mut alive = 0;
    for spec in &segments {
        match store.snapshot(&spec.id).await {
            Ok(_) => alive += 1,
            Err(StockError::Unavailable(_) | StockError::Unknown(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    println!("{alive} of 24 segments answer while one of three primaries is dead");
    cluster.nodes[2].restart();
}
