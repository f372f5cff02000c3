//! What only a cluster does: segments on different primaries, and slots that move.

use std::{collections::HashSet, time::Duration};

use stock::{SegmentSpec, Segments, Selling, StockError, Verdict};
use testkit::{
    rebuild::rebuild,
    redis::{Cluster, Server, catch_up, connect, insist, purchase, shared_cluster, spec},
};

#[tokio::test]
async fn segments_spread_over_all_primaries() {
    let cluster = shared_cluster();
    let store = connect(&cluster.url()).await;
    let mut used = HashSet::new();
    for _ in 0..30 {
        let spec = spec(1, 1);
        let epoch = store.open(&spec).await.unwrap().epoch;
        let verdicts = store
            .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r1")])
            .await
            .unwrap();
        assert!(
            matches!(verdicts[0], Verdict::Accepted { .. }),
            "{verdicts:?}"
        );
        let meta = format!("penstock:{{{}}}:meta", spec.id);
        used.extend(
            cluster
                .nodes
                .iter()
                .filter(|node| has_key(node, &meta))
                .map(|node| node.port),
        );
    }
    assert_eq!(used.len(), 3);
}

#[tokio::test]
async fn a_slot_that_moved_is_followed() {
    let cluster = Cluster::start();
    let store = connect(&cluster.url()).await;
    let spec = spec(5, 5);
    let meta = format!("penstock:{{{}}}:meta", spec.id);
    let (slot, from, to) = place_of(&cluster, &meta);
    // The slot is empty, so it moves by word alone. The client still believes in its old place.
    let new_owner = cluster.nodes[to].cli(&["cluster", "myid"]);
    for node in [to, from, 3 - from - to] {
        cluster.nodes[node].cli(&["cluster", "setslot", &slot, "node", &new_owner]);
    }
    let epoch = insist(async || store.open(&spec).await).await.epoch;
    let verdicts = store
        .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r1")])
        .await
        .unwrap();
    assert!(
        matches!(verdicts[0], Verdict::Accepted { .. }),
        "{verdicts:?}"
    );
    assert_eq!(cluster.nodes[to].cli(&["exists", &meta]), "1");
}

#[tokio::test]
async fn a_dead_primary_takes_only_its_own_segments_with_it() {
    let mut cluster = Cluster::start();
    for node in &cluster.nodes {
        node.cli(&["config", "set", "cluster-require-full-coverage", "no"]);
    }
    let store = connect(&cluster.url()).await;
    let mut segments: Vec<(SegmentSpec, usize)> = Vec::new();
    for _ in 0..24 {
        let spec = spec(5, 5);
        store.open(&spec).await.unwrap();
        let meta = format!("penstock:{{{}}}:meta", spec.id);
        let home = cluster
            .nodes
            .iter()
            .position(|node| has_key(node, &meta))
            .unwrap();
        segments.push((spec, home));
    }
    cluster.nodes[2].kill();
    for round in 0..3 {
        for (spec, home) in &segments {
            match store.snapshot(&spec.id).await {
                Ok(_) => assert_ne!(*home, 2),
                Err(StockError::Unavailable(_) | StockError::Unknown(_)) => {
                    assert_eq!(*home, 2, "round {round}")
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    // Nothing was written to disk, so it comes back with its slots and without its segments: that is said, not sold out.
    cluster.nodes[2].restart();
    let (lost, _) = segments.iter().find(|(_, home)| *home == 2).unwrap();
    let error = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match store.snapshot(&lost.id).await {
                Err(StockError::Unavailable(_) | StockError::Unknown(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => break other,
            }
        }
    });
    assert!(matches!(error.await.unwrap(), Err(StockError::NotOpen(_))));
}

#[tokio::test]
async fn a_cluster_is_used_as_far_as_it_is_there_when_a_node_starts() {
    let mut cluster = Cluster::start();
    for node in &cluster.nodes {
        node.cli(&["config", "set", "cluster-require-full-coverage", "no"]);
    }
    cluster.nodes[2].kill();
    let store = connect(&cluster.url()).await;
    let mut away = Vec::new();
    let mut here = 0;
    for _ in 0..24 {
        let spec = spec(5, 5);
        match store.open(&spec).await {
            Ok(_) => here += 1,
            Err(StockError::Unavailable(_)) => away.push(spec),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(here > 0 && !away.is_empty(), "{here} {}", away.len());
    cluster.nodes[2].restart();
    for spec in &away {
        insist(async || store.open(spec).await).await;
    }

    // None is there at first; then its addresses lead to it.
    for node in &mut cluster.nodes {
        node.kill();
    }
    let store = connect(&cluster.url()).await;
    let refused = store.snapshot(&away[0].id).await;
    assert!(
        matches!(refused, Err(StockError::Unavailable(_))),
        "{refused:?}"
    );
    for node in &mut cluster.nodes {
        node.restart();
    }
    insist(async || store.open(&spec(5, 5)).await).await;
}

#[tokio::test]
async fn a_promoted_replica_is_found_and_sells_after_its_rebuild() {
    let mut cluster = Cluster::start();
    let replica = cluster.join_replica_of(0);
    let store = connect(&cluster.url()).await;
    let mut specs = Vec::new();
    loop {
        let spec = spec(5, 5);
        let epoch = store.open(&spec).await.unwrap().epoch;
        let verdicts = store
            .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r1")])
            .await
            .unwrap();
        assert!(
            matches!(verdicts[0], Verdict::Accepted { .. }),
            "{verdicts:?}"
        );
        let is_on_first = has_key(&cluster.nodes[0], &format!("penstock:{{{}}}:meta", spec.id));
        specs.push((spec, is_on_first));
        if is_on_first {
            break;
        }
    }
    // The replica has everything before its primary dies; what an unlucky failover loses is another matter. (`WAIT` over a
    // redis-cli of its own would not do: it waits for the writes of its own connection, and has none.)
    catch_up(&replica, &cluster.nodes[0]);
    cluster.nodes[0].kill();
    replica.cli(&["cluster", "failover", "takeover"]);
    for (spec, is_on_first) in &specs {
        let counts = insist(async || store.snapshot(&spec.id).await).await;
        assert_eq!((counts.available, counts.accepted), (4, 1));
        assert_eq!(counts.needs_rebuild, *is_on_first);
        let mut epoch = counts.epoch;
        if *is_on_first {
            let wish = purchase(&spec.id, "bob", "r1");
            let verdicts = store.buy_many(&spec.id, epoch, vec![wish]).await;
            assert_eq!(verdicts.unwrap(), [Verdict::Frozen]);
            epoch += 1;
            let rebuilt = rebuild(&store, spec, epoch, &mut Vec::new()).await;
            assert_eq!(rebuilt.unwrap().available, 4);
        }
        let wish = purchase(&spec.id, "bob", "r1");
        let verdicts = store.buy_many(&spec.id, epoch, vec![wish]).await.unwrap();
        assert!(
            matches!(verdicts[0], Verdict::Accepted { .. }),
            "{verdicts:?}"
        );
    }
}

/// The slot of a key, its primary, and another.
fn place_of(cluster: &Cluster, key: &str) -> (String, usize, usize) {
    let slot = cluster.nodes[0].cli(&["cluster", "keyslot", key]);
    let (from, to) = match slot.parse::<u32>().unwrap() {
        0..=5460 => (0, 1),
        5461..=10922 => (1, 2),
        _ => (2, 0),
    };
    (slot, from, to)
}

/// While its keys are in two places no call is executed; where they arrive they are another server's, so the segment waits for its
/// rebuild.
#[tokio::test]
async fn a_slot_that_moves_with_its_segment_executes_nothing_and_freezes_it() {
    let cluster = Cluster::start();
    let store = connect(&cluster.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let buy = async |buyer, epoch| {
        let wish = purchase(&spec.id, buyer, "r1");
        store.buy_many(&spec.id, epoch, vec![wish]).await
    };
    buy("ann", epoch).await.unwrap();
    let key = |part| format!("penstock:{{{}}}:{part}", spec.id);
    let (slot, from, to) = place_of(&cluster, &key("meta"));
    let ids = [from, to].map(|node| cluster.nodes[node].cli(&["cluster", "myid"]));
    let (old, new) = (&cluster.nodes[from], &cluster.nodes[to]);
    new.cli(&["cluster", "setslot", &slot, "importing", &ids[0]]);
    old.cli(&["cluster", "setslot", &slot, "migrating", &ids[1]]);
    let port = new.port.to_string();
    for (moved, part) in ["meta", "buyers", "requests", "orders", "stream"]
        .into_iter()
        .enumerate()
    {
        let refused = buy("bob", epoch).await;
        let Err(StockError::Unavailable(why)) = &refused else {
            panic!("{moved} keys moved: {refused:?}")
        };
        assert!(
            why.starts_with("TRYAGAIN") || why.starts_with("ASK"),
            "{why}"
        );
        old.cli(&["migrate", "127.0.0.1", &port, &key(part), "0", "5000"]);
    }
    let refused = buy("bob", epoch).await;
    assert!(
        matches!(&refused, Err(StockError::Unavailable(why)) if why.starts_with("ASK")),
        "{refused:?}"
    );
    for node in [to, from, 3 - from - to] {
        cluster.nodes[node].cli(&["cluster", "setslot", &slot, "node", &ids[1]]);
    }
    assert_eq!(
        insist(async || buy("bob", epoch).await).await,
        [Verdict::Frozen]
    );
    let counts = store.snapshot(&spec.id).await.unwrap();
    assert_eq!((counts.accepted, counts.needs_rebuild), (1, true));
    rebuild(&store, &spec, epoch + 1, &mut Vec::new())
        .await
        .unwrap();
    let bought = buy("bob", epoch + 1).await.unwrap();
    assert!(matches!(bought[0], Verdict::Accepted { .. }), "{bought:?}");
}

fn has_key(node: &Server, key: &str) -> bool {
    node.cli(&["exists", key]) == "1"
}
