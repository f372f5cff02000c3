//! Backups while a sale runs and settles as fast as it can: whatever the moment, the two copies fit together.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use seckill::{
    backup::{BackupError, Progress, restore, restore_on, take},
    ids::OrderId,
    ledger::{LedgerError, OrderLedger, connect},
    rebuild::{RebuildElsewhere, claim},
    sale::{NewSale, Sale},
};
use serde_json::json;
use stock::{
    Moves, OrderQueue, Position, Purchase, Rebuild, Segments, Selling, StoredOrder, Verdict,
    embedded::{EmbeddedStore, WriteMode, faults::FaultPoint, holds_a_store},
};
use testkit::{
    disk::{Disk, EIO},
    embedded::{close, open, purchase},
    redis::{now_ms, wall_clock},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

fn sale() -> Sale {
    let now_ms = now_ms();
    let sale = json!({
        "id": "spring", "starts_at_ms": now_ms - 1000, "ends_at_ms": now_ms + 3_600_000, "pay_within": "1h", "buyer_limit": 9,
        "currency": "usd", "skus": [{"sku": "shoe", "stock": 1_u64 << 50, "price_minor": 500}]
    });
    let sale = serde_json::from_value::<NewSale>(sale).unwrap();
    sale.check().unwrap()
}

struct Node {
    store: EmbeddedStore,
    ledger: OrderLedger,
    url: String,
}

impl Node {
    async fn start(folder: &Path) -> Self {
        let url = format!("sqlite:{}", folder.join("penstock.db").display());
        let ledger = OrderLedger::new(connect(&url).await.unwrap());
        let store = open(&folder.join("store"), WriteMode::Auto);
        Self { store, ledger, url }
    }

    async fn with_sale(folder: &Path) -> Self {
        let node = Self::start(folder).await;
        node.ledger.create_sale(&sale(), now_ms()).await.unwrap();
        for spec in sale().segment_specs() {
            node.store.open(&spec).await.unwrap();
            node.ledger.mark_opened(&spec.id, now_ms()).await.unwrap();
        }
        node
    }

    /// Moves what waits into the ledger.
    async fn settle(&self) {
        let segment = &sale().segment_specs()[0].id;
        let pulled = self
            .store
            .pull(segment, "c", 64, Duration::from_secs(60))
            .await
            .unwrap();
        let orders: Vec<_> = pulled
            .iter()
            .map(|entry| entry.order.clone().unwrap())
            .collect();
        self.ledger
            .settle(segment, 1, &orders, now_ms())
            .await
            .unwrap();
        let positions: Vec<_> = pulled.iter().map(|entry| entry.position).collect();
        self.store.ack(segment, &positions).await.unwrap();
    }
}

async fn all(store: &EmbeddedStore) -> (Vec<StoredOrder>, HashSet<OrderId>) {
    let segment = &sale().segment_specs()[0].id;
    let start = Position::default();
    let orders = store.accepted_after(segment, start, usize::MAX).await;
    let waiting = store.unsettled(segment, start, usize::MAX).await;
    let ids = waiting.unwrap().into_iter().map(|(_, order)| order.order);
    let orders = orders.unwrap().into_iter().map(|(_, order)| order);
    (orders.collect(), ids.collect())
}

async fn in_ledger(ledger: &OrderLedger) -> HashSet<OrderId> {
    let (mut after, mut ids) = (None, HashSet::new());
    loop {
        let page = ledger.orders_page(&sale(), after, 10_000).await.unwrap();
        ids.extend(page.rows.iter().map(|order| order.order));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

/// Buyers and a settler that do not stop, until they are told to.
struct Churn {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Churn {
    /// Purchases have numbers from `first` on; 100 more are settled when this returns.
    async fn start(node: &Arc<Node>, first: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for buyer in 0..BUYERS {
            let (node, stopped) = (node.clone(), stopped.clone());
            tasks.spawn(async move {
                let segment = sale().segment_specs()[0].id.clone();
                let mut number = first + buyer * NUMBERS;
                while !*stopped.borrow() {
                    let timed = |n| Purchase {
                        order: OrderId::new(now_ms(), segment.tag(), u64::from(n)),
                        ..purchase(n)
                    };
                    let purchases = (number..number + 3).map(timed).collect();
                    let verdicts = node.store.buy_many(&segment, 1, purchases).await.unwrap();
                    let is_accepted = matches!(verdicts[0], Verdict::Accepted { .. });
                    assert!(is_accepted, "{verdicts:?}");
                    number += 3;
                }
            });
        }
        let (settler, settling) = (node.clone(), stopped);
        tasks.spawn(async move {
            while !*settling.borrow() {
                settler.settle().await;
            }
        });
        let segment = &sale().segment_specs()[0].id;
        let settled = async || {
            let accepted = node.store.snapshot(segment).await.unwrap().accepted;
            // What was accepted between the two looks counts as waiting: less is settled than there is, never more.
            let waiting = node.store.depth(segment).await.unwrap().entries;
            accepted.saturating_sub(waiting)
        };
        let enough = settled().await + 100;
        let underway = async {
            while settled().await < enough {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let underway = timeout(Duration::from_secs(60), underway).await;
        assert!(underway.is_ok(), "neither bought nor settled");
        Self { stop, tasks }
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(done) = self.tasks.join_next().await {
            done.unwrap();
        }
    }
}

const BUYERS: u32 = 4;
/// Of one buyer in one round: more than anybody can buy while a backup is taken.
const NUMBERS: u32 = 50_000_000;

/// INV-STOCK-1 and INV-ORDER-3 over a backup: which copy is taken first, and what waits between them. It goes on only while a backup
/// is taken: what it sells, and so each backup and each check, grows with the time that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_copies_are_of_one_instant_whatever_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let node = Arc::new(Node::with_sale(folder.path()).await);
    for round in 0..12 {
        let churn = Churn::start(&node, round * BUYERS * NUMBERS).await;
        let copy = folder.path().join(format!("copy-{round}"));
        let began = Instant::now();
        let manifest = take(
            &node.store,
            &node.url,
            &copy,
            now_ms(),
            &Progress::default(),
        )
        .await
        .unwrap();
        churn.stop().await;
        assert!(manifest.accepted >= 100, "{manifest:?}");
        assert!(began.elapsed() < Duration::from_secs(60));
        let target = folder.path().join(format!("target-{round}"));
        let ledger = target.join("penstock.db");
        let restored = restore(&copy, &target.join("store"), &ledger, wall_clock())
            .await
            .unwrap();
        assert_eq!(restored.sales[0].1, [], "round {round}");
        let again = Node::start(&target).await;
        let (orders, waiting) = all(&again.store).await;
        let in_ledger = in_ledger(&again.ledger).await;
        assert!(in_ledger.len() >= 100, "the run is of no use");
        let in_store: HashSet<OrderId> = orders.iter().map(|order| order.order).collect();
        assert!(
            in_ledger.is_subset(&in_store),
            "round {round}: the store would sell {} units again",
            in_ledger.difference(&in_store).count()
        );
        let lost = in_store
            .iter()
            .filter(|id| !waiting.contains(id) && !in_ledger.contains(id));
        assert_eq!(
            lost.count(),
            0,
            "round {round}: acknowledged, and in no ledger"
        );
        // Every epoch is above what the backup's node had.
        let segment = &sale().segment_specs()[0].id;
        assert_eq!(again.store.snapshot(segment).await.unwrap().epoch, 2);
        close(again.store, &target.join("store")).await;
    }
}

/// A draft has no segment in the store: a ledger with one in it could not be restored.
#[tokio::test]
async fn a_draft_does_not_keep_a_backup_from_being_restored() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::with_sale(folder.path()).await;
    let draft = Sale {
        id: "draft".parse().unwrap(),
        ..sale()
    };
    node.ledger.create_sale(&draft, now_ms()).await.unwrap();
    let (copy, target) = (folder.path().join("copy"), folder.path().join("new"));
    let progress = Progress::default();
    take(&node.store, &node.url, &copy, now_ms(), &progress)
        .await
        .unwrap();
    let restored = restore(&copy, &target, &target.join("l.db"), wall_clock())
        .await
        .unwrap();
    assert_eq!(restored.sales.len(), 2);
    assert!(
        restored
            .sales
            .iter()
            .all(|(_, findings)| findings.is_empty())
    );
}

/// The name of the installation stays where it was: the restored node, on another host, has one of its own and is let in.
#[tokio::test]
async fn a_restored_backup_is_an_installation_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::with_sale(folder.path()).await;
    let store = folder.path().join("store");
    claim(&node.ledger, &store, "old", RebuildElsewhere::Refused, 1)
        .await
        .unwrap();
    let (copy, target) = (folder.path().join("copy"), folder.path().join("new"));
    let progress = Progress::default();
    take(&node.store, &node.url, &copy, now_ms(), &progress)
        .await
        .unwrap();
    let file = target.join("l.db");
    restore(&copy, &target, &file, wall_clock()).await.unwrap();
    let url = format!("sqlite:{}", file.display());
    let ledger = OrderLedger::new(connect(&url).await.unwrap());
    let _store = open(&target, WriteMode::Plain);
    claim(&ledger, &target, "new", RebuildElsewhere::Refused, 2)
        .await
        .unwrap();
    // The old store with the new ledger is a mistake.
    assert!(
        claim(&ledger, &store, "old", RebuildElsewhere::Refused, 3)
            .await
            .is_err()
    );
    claim(&node.ledger, &store, "old", RebuildElsewhere::Refused, 4)
        .await
        .unwrap();
}

/// What the ledger causes waits while a backup takes its instants; buyers do not.
#[tokio::test]
async fn a_backup_holds_up_the_ledgers_calls_and_no_purchase() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::with_sale(folder.path()).await;
    let segment = &sale().segment_specs()[0].id;
    let held = node.store.hold_ledger_calls().await;
    let bought = node.store.buy_many(segment, 1, vec![purchase(0)]).await;
    assert!(matches!(bought.unwrap()[0], Verdict::Accepted { .. }));
    let short = Duration::from_millis(100);
    let order = [purchase(0).order];
    assert!(timeout(short, node.store.ack(segment, &[])).await.is_err());
    let released = timeout(short, node.store.release_many(segment, &order)).await;
    assert!(released.is_err());
    let confirmed = timeout(short, node.store.confirm_many(segment, &order)).await;
    assert!(confirmed.is_err());
    let restocked = timeout(short, node.store.restock(segment, "more", 1)).await;
    assert!(restocked.is_err());
    drop(held);
    node.store.restock(segment, "more", 1).await.unwrap();
    node.store.release_many(segment, &order).await.unwrap();
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_is_copied_that_is_not_here() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::with_sale(folder.path()).await;
    let progress = Progress::default();
    let copy = folder.path().join("copy");
    take(&node.store, &node.url, &copy, 0, &progress)
        .await
        .unwrap();
    let (done, total) = progress.bytes();
    assert!(done > 0 && done == total, "{done} of {total}");
    let twice = take(&node.store, &node.url, &copy, 0, &progress).await;
    assert!(matches!(twice, Err(BackupError::Exists(_))), "{twice:?}");
    let elsewhere = folder.path().join("elsewhere");
    for url in ["postgres://h/d", "sqlite::memory:"] {
        let refused = take(&node.store, url, &elsewhere, 0, &progress).await;
        assert!(
            matches!(refused, Err(BackupError::NotHere(_))),
            "{refused:?}"
        );
    }
    let ledger = folder.path().join("penstock.db");
    let over = restore(&copy, &folder.path().join("new"), &ledger, wall_clock()).await;
    assert!(matches!(over, Err(BackupError::Exists(_))), "{over:?}");
    let other = folder.path().join("other.db");
    let over = restore(&copy, &folder.path().join("store"), &other, wall_clock()).await;
    assert!(matches!(over, Err(BackupError::Exists(_))), "{over:?}");
    assert!(!other.exists(), "nothing was written");
}

#[tokio::test]
async fn a_damaged_copy_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::with_sale(folder.path()).await;
    let (copy, target) = (folder.path().join("copy"), folder.path().join("target"));
    take(&node.store, &node.url, &copy, 0, &Progress::default())
        .await
        .unwrap();
    for name in ["ledger.db", "store.snapshot"] {
        let file = copy.join(name);
        let whole = std::fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&file, damaged).unwrap();
        let refused = restore(&copy, &target, &target.join("l.db"), wall_clock()).await;
        assert!(
            matches!(&refused, Err(BackupError::Damaged { path, .. }) if *path == file),
            "{refused:?}"
        );
        assert!(!target.exists(), "nothing was written");
        std::fs::write(&file, whole).unwrap();
    }
}

/// Every step of a restore, in their order.
const STEPS: [FaultPoint; 10] = [
    FaultPoint::MarkRestore,
    FaultPoint::CopyLedger,
    FaultPoint::RenameLedger,
    FaultPoint::CreateJournal,
    FaultPoint::WriteSnapshot,
    FaultPoint::SyncSnapshot,
    FaultPoint::RenameSnapshot,
    FaultPoint::SyncSnapshotName,
    FaultPoint::OpenRestored,
    FaultPoint::UnmarkRestore,
];

// Half a restore used to look like a node whose store was lost: it was rebuilt from the ledger alone, without what was accepted and
// not settled, and sold those units again.
#[tokio::test]
async fn a_restore_that_dies_at_any_step_leaves_nothing_a_node_would_open() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::with_sale(folder.path()).await;
    let segment = sale().segment_specs()[0].id.clone();
    let wishes = vec![purchase(1), purchase(3)];
    node.store.buy_many(&segment, 1, wishes).await.unwrap();
    let copy = folder.path().join("copy");
    take(&node.store, &node.url, &copy, 0, &Progress::default())
        .await
        .unwrap();
    for (number, step) in STEPS.into_iter().enumerate() {
        let target = folder.path().join(format!("target-{number}"));
        let (store, ledger) = (target.join("store"), target.join("penstock.db"));
        let url = format!("sqlite:{}", ledger.display());
        let disk = Disk::new();
        disk.fail(step, EIO);
        let died = restore_on(&copy, &store, &ledger, wall_clock(), Some(disk.clone())).await;
        assert!(died.is_err(), "{step:?}");
        assert_eq!(disk.failures(), 1, "{step:?} is a step of it");
        // Either there is nothing yet, or what is there says what to do.
        let is_there = ledger.exists() || holds_a_store(&store);
        let opened = if is_there {
            connect(&url).await.map(drop)
        } else {
            Ok(())
        };
        match opened {
            Ok(()) => assert!(!is_there, "{step:?}: a node opens half a restore"),
            Err(LedgerError::Unrestored(of)) => assert_eq!(of, ledger, "{step:?}"),
            Err(error) => panic!("{step:?}: {error}"),
        }
        // Nor does another restore mix its own with it.
        let elsewhere = target.join("elsewhere");
        if step != FaultPoint::MarkRestore {
            let mixed = restore(&copy, &elsewhere, &ledger, wall_clock()).await;
            let refused = matches!(mixed, Err(BackupError::Unfinished { .. }));
            assert!(refused, "{step:?}: {mixed:?}");
        }
        let again = restore(&copy, &store, &ledger, wall_clock()).await.unwrap();
        assert!(
            again.sales.iter().all(|(_, findings)| findings.is_empty()),
            "{step:?}"
        );
        let restored = Node::start(&target).await;
        let (orders, waiting) = all(&restored.store).await;
        assert_eq!((orders.len(), waiting.len()), (2, 2), "{step:?}");
        let counts = restored.store.snapshot(&segment).await.unwrap();
        let epochs = restored.ledger.epochs_of(&[&segment.sale]).await.unwrap();
        assert_eq!(
            (counts.epoch, counts.reserved),
            (epochs[&segment], 3),
            "{step:?}"
        );
        let over = restore(&copy, &store, &ledger, wall_clock()).await;
        assert!(
            matches!(over, Err(BackupError::Exists(_))),
            "{step:?}: {over:?}"
        );
        close(restored.store, &store).await;
    }
}
