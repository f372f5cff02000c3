//! What each durability level loses under each fault of Redis, counted: acknowledged orders that nobody has any more, in a sale of which
//! nothing was settled yet, the worst case. `docs/durability.md` has the numbers;
//! `cargo test -p stock --test main redis_losses -- --nocapture` prints them.

use stock::{
    Durability, Lookup, SegmentSpec, Segments, Selling, StockError, Verdict, redis::RedisStore,
};
use testkit::redis::{Server, catch_up, connect, insist, purchase, spec};

/// Orders before the fault begins, and after a replica stopped following.
const BEFORE: usize = 200;
const BEHIND: usize = 100;

/// What became of a sale.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    /// Orders that their buyers were told are theirs (201).
    acknowledged: usize,
    /// Of these, orders that the store does not have after the fault.
    lost: usize,
    /// Orders whose buyers were told to ask again (202).
    unknown: usize,
}

/// A sale and what its buyers were told.
struct Sale {
    spec: SegmentSpec,
    epoch: u64,
    acknowledged: Vec<Lookup>,
    unknown: usize,
}

impl Sale {
    async fn open(store: &RedisStore, level: Durability) -> Self {
        let spec = SegmentSpec {
            durability: Some(level),
            ..spec(10_000, 1)
        };
        let epoch = store.open(&spec).await.unwrap().epoch;
        Self {
            spec,
            epoch,
            acknowledged: Vec::new(),
            unknown: 0,
        }
    }

    async fn sell(&mut self, store: &RedisStore, orders: usize) {
        for _ in 0..orders {
            let buyer = format!("buyer-{}", self.acknowledged.len() + self.unknown);
            let wish = purchase(&self.spec.id, &buyer, "r1");
            let order = Lookup::Order(wish.order);
            match store.buy_many(&self.spec.id, self.epoch, vec![wish]).await {
                Ok(verdicts) => {
                    assert!(
                        matches!(verdicts[0], Verdict::Accepted { .. }),
                        "{verdicts:?}"
                    );
                    self.acknowledged.push(order);
                }
                Err(StockError::Unknown(_)) => self.unknown += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Looks for every acknowledged order in what came back.
    async fn count(self, store: &RedisStore, level: &str, fault: &str) -> Count {
        let mut lost = 0;
        for order in &self.acknowledged {
            let found = insist(async || match store.find(&self.spec.id, order).await {
                Err(StockError::NotOpen(_)) => Ok(None),
                answer => answer,
            })
            .await;
            lost += usize::from(found.is_none());
        }
        let count = Count {
            acknowledged: self.acknowledged.len(),
            lost,
            unknown: self.unknown,
        };
        println!("{level:<12} {fault:<62} {count:?}");
        count
    }
}

async fn killed_and_restarted(level: Durability, settings: &[&str], fault: &str) -> Count {
    let mut server = Server::start(settings);
    let store = connect(&server.url()).await;
    let mut sale = Sale::open(&store, level).await;
    sale.sell(&store, BEFORE).await;
    server.kill();
    server.restart();
    sale.count(&store, level.as_str(), fault).await
}

/// The replica stops following while the primary goes on, as behind a cut link; then the primary is killed and the replica promoted.
/// (A replica that is only paused would find what was sent to it in its socket.)
async fn failed_over_to_a_replica_that_is_behind(level: Durability) -> Count {
    let mut primary = Server::start(&["repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&["replicaof", &format!("127.0.0.1 {}", primary.port)]);
    let store = connect(&primary.url()).await;
    let mut sale = Sale::open(&store, level).await;
    testkit::redis::wait_for_link(&replica);
    sale.sell(&store, BEFORE).await;
    catch_up(&replica, &primary);
    replica.cli(&["replicaof", "no", "one"]);
    // A level that waits for the replica waits in vain now: few are enough.
    let behind = match level {
        Durability::Replicated => 3,
        Durability::Fast | Durability::Durable => BEHIND,
    };
    sale.sell(&store, behind).await;
    primary.kill();
    let promoted = connect(&replica.url()).await;
    let fault = "failover to a replica that is behind";
    sale.count(&promoted, level.as_str(), fault).await
}

#[tokio::test]
async fn a_process_that_dies_loses_what_its_settings_did_not_write() {
    let lost = |lost| Count {
        acknowledged: BEFORE,
        lost,
        unknown: 0,
    };
    let fast = Durability::Fast;
    let none = killed_and_restarted(fast, &["appendonly", "no"], "kill -9, no append-only file");
    assert_eq!(none.await, lost(BEFORE));
    let everysec = ["appendonly", "yes", "appendfsync", "everysec"];
    let second = killed_and_restarted(fast, &everysec, "kill -9, appendfsync everysec");
    assert_eq!(second.await, lost(0), "the kernel has what was written");
    let always = ["appendonly", "yes", "appendfsync", "always"];
    let durable = killed_and_restarted(Durability::Durable, &always, "kill -9, appendfsync always");
    assert_eq!(durable.await, lost(0));
}

#[tokio::test]
async fn a_failover_loses_what_the_replica_had_not_seen_unless_answers_waited_for_it() {
    let fast = failed_over_to_a_replica_that_is_behind(Durability::Fast).await;
    assert_eq!(
        fast,
        Count {
            acknowledged: BEFORE + BEHIND,
            lost: BEHIND,
            unknown: 0
        }
    );
    let replicated = failed_over_to_a_replica_that_is_behind(Durability::Replicated).await;
    assert_eq!(
        replicated,
        Count {
            acknowledged: BEFORE,
            lost: 0,
            unknown: 3
        },
        "nobody was told of an order that only the primary had"
    );
}
