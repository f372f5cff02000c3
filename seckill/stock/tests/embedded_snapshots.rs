//! Snapshots: what they bound, and that a crash or a damage at any point of writing one changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use stock::{
    Moves, OrderQueue, OrderState, SegmentSpec, SegmentStatus, Segments, Selling, StoredOrder,
    Verdict,
    embedded::{EmbeddedStore, RecoverError, Tuning, WriteMode, faults::FaultPoint},
};
use testkit::{
    disk::{Disk, EIO},
    embedded::{buy, close, open, open_tuned, orders, purchase, spec, try_open},
    redis::wall_clock,
};
use tokio::time::{Instant, sleep};

/// Small enough that a few hundred orders fill it.
const EVERY: u64 = 16 << 10;

fn tuned(disk: &Arc<Disk>) -> Tuning {
    Tuning {
        snapshot_every: EVERY,
        faults: Some(disk.clone()),
        ..Tuning::default()
    }
}

fn files(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            // A snapshot that was being written at the end has no name yet.
            name.starts_with(prefix) && !name.ends_with(".lock") && !name.ends_with(".tmp")
        })
        .collect();
    found.sort();
    found
}

type State = Vec<(SegmentStatus, Vec<StoredOrder>, u64)>;

async fn state(store: &EmbeddedStore, specs: &[SegmentSpec]) -> State {
    let mut state = Vec::new();
    for spec in specs {
        state.push((
            store.snapshot(&spec.id).await.unwrap(),
            orders(store, &spec.id).await,
            store.depth(&spec.id).await.unwrap().entries,
        ));
    }
    state
}

fn two_sales() -> [SegmentSpec; 2] {
    [spec("s", 100_000), spec("t", 1_000)]
}

/// Everything that can happen to orders, again and again: `rounds` of 100 orders.
async fn history(store: &EmbeddedStore, rounds: std::ops::Range<u32>) {
    let [spec, other] = two_sales();
    store.open(&spec).await.unwrap();
    store.open(&other).await.unwrap();
    for round in rounds {
        let from = round * 100;
        buy(store, &spec.id, from..from + 100).await;
        let ids: Vec<_> = (from..from + 100).map(|n| purchase(n).order).collect();
        store.release_many(&spec.id, &ids[..20]).await.unwrap();
        store.confirm_many(&spec.id, &ids[20..50]).await.unwrap();
        let pulled = store.pull(&spec.id, "c", 90, Duration::ZERO).await.unwrap();
        let positions: Vec<_> = pulled.iter().map(|entry| entry.position).collect();
        store.ack(&spec.id, &positions[..70]).await.unwrap();
        let id = format!("move-{round}");
        store.restock(&spec.id, &id, 3).await.unwrap();
        store.withdraw(&spec.id, &id, 2).await.unwrap();
        buy(store, &other.id, round..round + 1).await;
    }
}

async fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fact() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A history with at least `snapshots` snapshots.
async fn until_snapshots(store: &EmbeddedStore, folder: &Path, snapshots: usize) {
    for round in 0..40 {
        history(store, round..round + 1).await;
        let newest = || {
            let files = files(folder, "snapshot-");
            let name = files.last()?.file_stem()?.to_str()?.to_owned();
            name.strip_prefix("snapshot-")?.parse::<usize>().ok()
        };
        // Generation n + 1 has the n-th snapshot; wait a little for the one under way.
        for _ in 0..20 {
            if newest().is_some_and(|generation| generation > snapshots) {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
    panic!("only {:?}", files(folder, "snapshot-"));
}

#[tokio::test]
async fn a_restart_from_a_snapshot_brings_the_same_back_and_old_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_tuned(folder.path(), tuned(&Disk::new()), wall_clock());
    until_snapshots(&store, folder.path(), 4).await;
    let before = state(&store, &two_sales()).await;
    close(store, folder.path()).await;
    assert!(files(folder.path(), "snapshot-").len() <= 3);
    assert!(
        !folder.path().join("journal-0000000001.log").exists(),
        "the first journal is in two snapshots"
    );
    for method in [WriteMode::Auto, WriteMode::Plain] {
        let store = open(folder.path(), method);
        assert_eq!(state(&store, &two_sales()).await, before);
    }
    // What had been booked and known is known.
    let store = open(folder.path(), WriteMode::Auto);
    let [spec, _] = two_sales();
    let counts = store.restock(&spec.id, "move-0", 3).await.unwrap();
    assert_eq!(counts.restocked, before[0].0.restocked);
    assert_eq!(store.withdraw(&spec.id, "move-0", 9).await.unwrap(), 2);
    let again = store
        .buy_many(&spec.id, 1, vec![purchase(20)])
        .await
        .unwrap();
    assert!(
        matches!(&again[0], Verdict::Replayed(order) if order.state == OrderState::Sold),
        "{again:?}"
    );
}

/// Buyers that do not stop: what is in a snapshot is one instant, not a mixture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_taken_in_mid_sale_is_one_instant() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_tuned(folder.path(), tuned(&Disk::new()), wall_clock());
    let spec = spec("s", 100_000);
    store.open(&spec).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8u32 {
        let (store, id) = (store.clone(), spec.id.clone());
        tasks.spawn(async move {
            for batch in 0..60 {
                let from = task * 10_000 + batch * 10;
                buy(&store, &id, from..from + 10).await;
                let ids = [purchase(from).order, purchase(from + 1).order];
                store.release_many(&id, &ids).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let before = state(&store, std::slice::from_ref(&spec)).await;
    close(store, folder.path()).await;
    assert!(!files(folder.path(), "snapshot-").is_empty());
    let store = open(folder.path(), WriteMode::Auto);
    assert_eq!(state(&store, &[spec]).await, before);
}

/// The keeper stops at each step as a crash would, once at its first snapshot and once at a later one.
#[tokio::test]
async fn a_crash_at_any_step_of_a_snapshot_changes_nothing() {
    let steps = [
        FaultPoint::CreateJournal,
        FaultPoint::SyncJournalName,
        FaultPoint::WriteSnapshot,
        FaultPoint::SyncSnapshot,
        FaultPoint::RenameSnapshot,
        FaultPoint::SyncSnapshotName,
        FaultPoint::Delete,
    ];
    for step in steps {
        for after in [0, 1, 3] {
            let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
            let store = open_tuned(folder.path(), tuned(&disk), wall_clock());
            disk.fail_after(step, after, EIO);
            let mut rounds = 0;
            while disk.failures() == 0 && rounds < 60 {
                history(&store, rounds..rounds + 1).await;
                sleep(Duration::from_millis(2)).await;
                rounds += 1;
            }
            assert!(disk.failures() > 0, "{step:?} was never reached");
            let before = state(&store, &two_sales()).await;
            close(store, folder.path()).await;
            let store = open(folder.path(), WriteMode::Auto);
            assert_eq!(
                state(&store, &two_sales()).await,
                before,
                "{step:?} after {after}"
            );
            // And it goes on from there.
            history(&store, rounds..rounds + 1).await;
        }
    }
}

/// What a kill in the middle of writing leaves.
#[tokio::test]
async fn a_torn_snapshot_without_its_name_is_ignored_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_tuned(folder.path(), tuned(&Disk::new()), wall_clock());
    until_snapshots(&store, folder.path(), 2).await;
    let before = state(&store, &two_sales()).await;
    close(store, folder.path()).await;
    let newest = files(folder.path(), "snapshot-").pop().unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    let torn = folder.path().join("snapshot-0000000099.tmp");
    std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let store = open(folder.path(), WriteMode::Auto);
    assert_eq!(state(&store, &two_sales()).await, before);
    assert!(!torn.exists());
}

#[tokio::test]
async fn a_damaged_snapshot_falls_back_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_tuned(folder.path(), tuned(&Disk::new()), wall_clock());
    until_snapshots(&store, folder.path(), 3).await;
    let before = state(&store, &two_sales()).await;
    close(store, folder.path()).await;
    let snapshots = files(folder.path(), "snapshot-");
    assert!(snapshots.len() >= 2, "{snapshots:?}");
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip(snapshots.last().unwrap());
    let store = open(folder.path(), WriteMode::Auto);
    assert_eq!(state(&store, &two_sales()).await, before);
    close(store, folder.path()).await;
    let aside = snapshots.last().unwrap().with_extension("bin.damaged");
    assert!(aside.exists() && !snapshots.last().unwrap().exists());
    // With every one of them damaged there is nothing to begin with, and nothing is made up.
    for older in &snapshots[..snapshots.len() - 1] {
        flip(older);
    }
    let refused = try_open(folder.path(), WriteMode::Auto).err().unwrap();
    let RecoverError::Corrupt { path, .. } = &refused else {
        panic!("{refused}")
    };
    let newest = &snapshots[snapshots.len() - 2];
    assert_eq!(path, newest, "the newest is named");
}

/// Broke: the damaged one counted as the one before, so that the next snapshot deleted the only good one, and its journals.
#[tokio::test]
async fn a_damaged_snapshot_does_not_have_the_good_one_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_tuned(folder.path(), tuned(&Disk::new()), wall_clock());
    until_snapshots(&store, folder.path(), 3).await;
    close(store, folder.path()).await;
    let snapshots = files(folder.path(), "snapshot-");
    let (good, damaged) = match snapshots.as_slice() {
        [.., good, damaged] => (good, damaged),
        few => panic!("{few:?}"),
    };
    // What a bad sector gives: an error of the disk, not bytes that are wrong.
    std::fs::remove_file(damaged).unwrap();
    std::fs::create_dir(damaged).unwrap();
    let store = open_tuned(folder.path(), tuned(&Disk::new()), wall_clock());
    let before = state(&store, &two_sales()).await;
    let first_after = |found: &[PathBuf]| found.iter().filter(|path| *path > damaged).count();
    for round in 0.. {
        history(&store, 1_000 + round..1_001 + round).await;
        if first_after(&files(folder.path(), "snapshot-")) > 0 {
            break;
        }
    }
    assert!(good.exists(), "the next snapshot may be bad as well");
    let after = state(&store, &two_sales()).await;
    assert_ne!(before, after);
    close(store, folder.path()).await;
    let store = open(folder.path(), WriteMode::Plain);
    assert_eq!(state(&store, &two_sales()).await, after);
}

/// A snapshot that leaves out what its journal had would be a way to lose orders: the next file says which frames are missing.
#[tokio::test]
async fn a_snapshot_without_the_last_frame_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_tuned(folder.path(), tuned(&Disk::new()), wall_clock());
    until_snapshots(&store, folder.path(), 1).await;
    close(store, folder.path()).await;
    let newest = files(folder.path(), "snapshot-").pop().unwrap();
    for other in files(folder.path(), "snapshot-") {
        if other != newest {
            std::fs::remove_file(other).unwrap();
        }
    }
    // The number of the first frame behind it stands at byte 12, under the header's checksum.
    let mut bytes = std::fs::read(&newest).unwrap();
    let next = u64::from_le_bytes(bytes[12..20].try_into().unwrap());
    bytes[12..20].copy_from_slice(&(next - 1).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&newest, bytes).unwrap();
    std::fs::remove_file(folder.path().join("journal-0000000001.log")).unwrap();
    let refused = try_open(folder.path(), WriteMode::Auto).err().unwrap();
    assert!(
        refused
            .to_string()
            .contains("were on the disk and are gone"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_missing_journal_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_tuned(folder.path(), tuned(&Disk::new()), wall_clock());
    until_snapshots(&store, folder.path(), 2).await;
    close(store, folder.path()).await;
    let newest = files(folder.path(), "journal-").pop().unwrap();
    std::fs::remove_file(&newest).unwrap();
    let refused = try_open(folder.path(), WriteMode::Auto).err().unwrap();
    assert!(refused.to_string().contains("is missing"), "{refused}");
}

async fn until_dropped(store: &EmbeddedStore, sale: &SegmentSpec) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !orders(store, &sale.id).await.is_empty() {
        assert!(Instant::now() < deadline, "never dropped");
        sleep(Duration::from_millis(20)).await;
    }
}

/// An ended sale whose orders are all settled leaves memory, snapshot and start; a late buyer hears "ended".
#[tokio::test]
async fn a_sale_that_is_long_over_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let tuning = Tuning {
        retain_ended: Duration::ZERO,
        ..Tuning::default()
    };
    let store = open_tuned(folder.path(), tuning.clone(), wall_clock());
    let sale = SegmentSpec {
        ends_at_ms: wall_clock()() + 600_000,
        pay_within_ms: 1,
        ..spec("s", 1_000)
    };
    // The same without anything open: when this one is dropped, the store has looked at the other as well.
    let quiet = SegmentSpec {
        id: spec("quiet", 0).id,
        ..sale.clone()
    };
    store.open(&quiet).await.unwrap();
    store.open(&sale).await.unwrap();
    buy(&store, &quiet.id, 200..201).await;
    let settled = store.pull(&quiet.id, "c", 9, Duration::ZERO).await.unwrap();
    store
        .confirm_many(&quiet.id, &[purchase(200).order])
        .await
        .unwrap();
    store.ack(&quiet.id, &[settled[0].position]).await.unwrap();
    buy(&store, &sale.id, 0..100).await;
    let ids: Vec<_> = (0..100).map(|n| purchase(n).order).collect();
    store.release_many(&sale.id, &ids[..50]).await.unwrap();
    store.confirm_many(&sale.id, &ids[50..]).await.unwrap();
    let pulled = store.pull(&sale.id, "c", 99, Duration::ZERO).await.unwrap();
    let positions: Vec<_> = pulled.iter().map(|entry| entry.position).collect();
    store.ack(&sale.id, &positions).await.unwrap();
    // However long that took, both windows were open. Now they have been over for a while.
    for open in [&sale, &quiet] {
        let over = SegmentSpec {
            ends_at_ms: wall_clock()() - 1_000,
            ..open.clone()
        };
        store.open(&over).await.unwrap();
    }
    until_dropped(&store, &quiet).await;
    assert_eq!(
        orders(&store, &sale.id).await.len(),
        100,
        "one order is not in the ledger yet"
    );
    let last = store.pull(&sale.id, "c", 99, Duration::ZERO).await.unwrap();
    store.ack(&sale.id, &[last[0].position]).await.unwrap();
    let counts = store.snapshot(&sale.id).await.unwrap();
    until_dropped(&store, &sale).await;
    close(store, folder.path()).await;
    let store = open_tuned(folder.path(), tuning, wall_clock());
    assert_eq!(orders(&store, &sale.id).await, []);
    let late = store
        .buy_many(&sale.id, 1, vec![purchase(0)])
        .await
        .unwrap();
    assert_eq!(late, [Verdict::Ended]);
    let after = store.snapshot(&sale.id).await.unwrap();
    assert_eq!(
        (after.accepted, after.sold, after.available),
        (counts.accepted, counts.sold, counts.available)
    );
}

/// The keeper fails for a while, and catches up.
#[tokio::test]
async fn a_snapshot_that_failed_is_written_later() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = open_tuned(folder.path(), tuned(&disk), wall_clock());
    disk.fail(FaultPoint::WriteSnapshot, EIO);
    let mut rounds = 0;
    while disk.failures() < 2 {
        history(&store, rounds..rounds + 1).await;
        rounds += 1;
    }
    assert_eq!(files(folder.path(), "snapshot-").len(), 0);
    disk.heal();
    for _ in 0..4 {
        history(&store, rounds..rounds + 1).await;
        rounds += 1;
        sleep(Duration::from_millis(10)).await;
    }
    eventually("a snapshot", || {
        !files(folder.path(), "snapshot-").is_empty()
    })
    .await;
}
