//! Disks that are full or fail, and a store that goes on when they recover. No privileges needed: the disk is the journal's own
//! fault layer. `gateway/tests/disk_full.rs` does the same to a whole process with a real limit of the kernel.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use stock::{
    Lookup, StockError, Verdict,
    embedded::{
        EmbeddedStore, Health, Tuning, WriteMode,
        faults::{FaultPoint, Faults},
        remove_store,
    },
};
use stock::{Moves, Rebuild, Segments, Selling};
use testkit::{
    disk::{Disk, EIO, ENOSPC},
    embedded::{buy, close, open, open_tuned, orders, purchase, spec, try_open_tuned},
    redis::wall_clock,
};
use tokio::time::{Instant, sleep};

fn tuned(disk: &Arc<Disk>) -> Tuning {
    Tuning {
        faults: Some(disk.clone()),
        ..Tuning::default()
    }
}

async fn store_on(disk: &Arc<Disk>, folder: &Path) -> EmbeddedStore {
    let store = open_tuned(folder, tuned(disk), wall_clock());
    store.open(&spec("s", 1_000)).await.unwrap();
    buy(&store, &spec("s", 0).id, 0..1).await;
    store
}

async fn try_buy(store: &EmbeddedStore, n: u32) -> Result<Verdict, StockError> {
    let bought = store.buy_many(&spec("s", 0).id, 1, vec![purchase(n)]).await;
    bought.map(|mut verdicts| verdicts.remove(0))
}

/// Repeats the purchase until the store takes calls again.
async fn eventually_buy(store: &EmbeddedStore, n: u32) -> Verdict {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match try_buy(store, n).await {
            Ok(verdict) => return verdict,
            Err(StockError::Unavailable(_)) => assert!(Instant::now() < deadline, "never well"),
            Err(other) => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// What a restart brings back is what the running store says.
async fn assert_same_after_restart(store: EmbeddedStore, folder: &Path, expected: usize) {
    let id = spec("s", 0).id;
    let (counts, before) = (
        store.snapshot(&id).await.unwrap(),
        orders(&store, &id).await,
    );
    assert_eq!(before.len(), expected);
    close(store, folder).await;
    let store = open(folder, WriteMode::Plain);
    assert_eq!(store.snapshot(&id).await.unwrap(), counts);
    assert_eq!(orders(&store, &id).await, before);
}

/// The journal is at the end of its reserved room whenever a batch is larger than what is left of it; so the reservation of a fresh
/// file is what fails here.
#[tokio::test]
async fn a_full_disk_refuses_before_anything_has_happened_and_goes_on_when_there_is_room() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let id = spec("s", 0).id;
    let store = store_on(&disk, folder.path()).await;
    close(store, folder.path()).await;
    disk.fail(FaultPoint::Reserve, ENOSPC);
    let store = open_tuned(folder.path(), tuned(&disk), wall_clock());
    for n in 1..4 {
        let refused = try_buy(&store, n).await.unwrap_err();
        let StockError::Unavailable(reason) = &refused else {
            panic!("{refused:?}")
        };
        assert!(reason.contains("no room for the journal"), "{reason}");
    }
    assert_eq!(store.health(), Health::Full);
    // What changes nothing goes on.
    assert!(matches!(try_buy(&store, 0).await, Ok(Verdict::Replayed(_))));
    let known = Lookup::Order(purchase(0).order);
    assert!(store.find(&id, &known).await.unwrap().is_some());
    let refused = Lookup::Order(purchase(1).order);
    assert_eq!(store.find(&id, &refused).await.unwrap(), None);
    assert_eq!(store.snapshot(&id).await.unwrap().accepted, 1);
    let changes = [
        store
            .release_many(&id, &[purchase(0).order])
            .await
            .map(drop),
        store.restock(&id, "more", 1).await.map(drop),
        store.withdraw(&id, "away", 1).await.map(drop),
        store.freeze(&id, 2).await.map(drop),
    ];
    for (place, change) in changes.into_iter().enumerate() {
        assert!(
            matches!(change, Err(StockError::Unavailable(_))),
            "call {place}: {change:?}"
        );
    }
    disk.heal();
    let accepted = try_buy(&store, 1).await.unwrap();
    assert!(matches!(accepted, Verdict::Accepted { .. }), "{accepted:?}");
    assert_eq!(store.health(), Health::Well);
    assert_same_after_restart(store, folder.path(), 2).await;
}

/// A file system that promises no room: the first frame is torn. The buyer is told "not known yet", and then what happened.
#[tokio::test]
async fn a_frame_torn_by_a_full_disk_is_unknown_and_then_there_once() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = store_on(&disk, folder.path()).await;
    disk.cut_writes(20);
    disk.fail(FaultPoint::CreateJournal, ENOSPC);
    let unknown = try_buy(&store, 1).await;
    assert!(
        matches!(unknown, Err(StockError::Unknown(_))),
        "{unknown:?}"
    );
    assert_eq!(store.health(), Health::Broken);
    for n in [0, 1, 2] {
        let refused = try_buy(&store, n).await;
        assert!(
            matches!(refused, Err(StockError::Unavailable(_))),
            "nothing is answered that may not be on the disk: {refused:?}"
        );
    }
    disk.heal();
    let found = eventually_buy(&store, 1).await;
    assert!(matches!(found, Verdict::Replayed(_)), "{found:?}");
    assert_eq!(store.health(), Health::Well);
    assert_same_after_restart(store, folder.path(), 2).await;
}

/// A sync that fails once: the frame goes into a new file, and nobody notices.
#[tokio::test]
async fn a_sync_that_fails_once_costs_no_answer() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = store_on(&disk, folder.path()).await;
    for n in 1..6 {
        disk.fail(FaultPoint::Sync, EIO);
        let accepted = try_buy(&store, n).await.unwrap();
        assert!(matches!(accepted, Verdict::Accepted { .. }), "{accepted:?}");
        disk.heal();
    }
    assert_eq!(disk.failures(), 5);
    assert!(folder.path().join("journal-0000000006.log").exists());
    assert_same_after_restart(store, folder.path(), 6).await;
}

#[tokio::test]
async fn a_disk_that_fails_for_a_while_leaves_nothing_half_done() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = store_on(&disk, folder.path()).await;
    disk.fail(FaultPoint::Sync, EIO);
    disk.fail(FaultPoint::CreateJournal, EIO);
    let unknown = try_buy(&store, 1).await;
    assert!(
        matches!(unknown, Err(StockError::Unknown(_))),
        "{unknown:?}"
    );
    for _ in 0..3 {
        let refused = try_buy(&store, 2).await;
        assert!(
            matches!(refused, Err(StockError::Unavailable(_))),
            "{refused:?}"
        );
    }
    disk.heal();
    assert!(matches!(
        eventually_buy(&store, 1).await,
        Verdict::Replayed(_)
    ));
    assert!(matches!(
        eventually_buy(&store, 2).await,
        Verdict::Accepted { .. }
    ));
    assert_same_after_restart(store, folder.path(), 3).await;
}

/// Killed while the disk was failing: the unanswered order is there whole or not at all, the answered ones are.
#[tokio::test]
async fn a_restart_on_a_failing_disk_keeps_what_was_answered() {
    for cut in [None, Some(0), Some(40), Some(10_000)] {
        let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
        let store = store_on(&disk, folder.path()).await;
        disk.fail(FaultPoint::CreateJournal, EIO);
        match cut {
            None => disk.fail(FaultPoint::Sync, EIO),
            Some(bytes) => disk.cut_writes(bytes),
        }
        assert!(try_buy(&store, 1).await.is_err());
        close(store, folder.path()).await;
        let store = open(folder.path(), WriteMode::Auto);
        let found = orders(&store, &spec("s", 0).id).await;
        assert_eq!(found[0].order, purchase(0).order);
        let again = try_buy(&store, 1).await.unwrap();
        match found.len() {
            1 => assert!(matches!(again, Verdict::Accepted { .. }), "{again:?}"),
            2 => assert!(matches!(again, Verdict::Replayed(_)), "{again:?}"),
            other => panic!("{other} orders"),
        }
    }
}

/// The device gave back other bytes than it had promised to keep: selling on would sell units twice after the next restart.
#[tokio::test]
async fn a_disk_that_lost_what_it_promised_stops_the_store() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = store_on(&disk, folder.path()).await;
    let journal = folder.path().join("journal-0000000001.log");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[80] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    disk.fail(FaultPoint::Sync, EIO);
    let unknown = try_buy(&store, 1).await;
    assert!(
        matches!(unknown, Err(StockError::Unknown(_))),
        "{unknown:?}"
    );
    disk.heal();
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.health() != Health::Lost {
        assert!(Instant::now() < deadline, "the damage was never found");
        sleep(Duration::from_millis(20)).await;
    }
    let refused = try_buy(&store, 1).await;
    assert!(
        matches!(refused, Err(StockError::Unavailable(_))),
        "{refused:?}"
    );
}

/// Looks, when a journal is about to be replayed, whether its first bytes would come from memory.
struct ColdReads {
    file: PathBuf,
    cached: Mutex<Vec<bool>>,
}

impl ColdReads {
    fn is_cached(&self) -> bool {
        let (file, mut byte) = (File::open(&self.file).unwrap(), [0]);
        let read = preadv2(
            &file,
            &mut [IoSliceMut::new(&mut byte)],
            0,
            ReadWriteFlags::NOWAIT,
        );
        match read {
            Ok(_) => true,
            Err(Errno::AGAIN) => false,
            Err(error) => panic!("a read that does not wait: {error}"),
        }
    }
}

impl Faults for ColdReads {
    fn at(&self, point: FaultPoint) -> io::Result<()> {
        if point == FaultPoint::Replay {
            self.cached.lock().unwrap().push(self.is_cached());
        }
        Ok(())
    }

    fn cut_write(&self, _: usize) -> Option<(usize, io::Error)> {
        None
    }
}

// Broke: after a sync that failed, a restarted process replayed frames that were in memory only, and took them for synced.
#[tokio::test]
async fn a_journal_is_replayed_from_the_disk_and_not_from_memory() {
    // The build's own folder is on a disk; the one for temporary files may be memory, of which nothing can be forgotten.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.path();
    let store = store_on(&Disk::new(), folder).await;
    close(store, folder).await;
    let faults = Arc::new(ColdReads {
        file: folder.join("journal-0000000001.log"),
        cached: Mutex::default(),
    });
    // The room that was reserved was cut off after the last sync. Only what is clean can be forgotten.
    File::open(&faults.file).unwrap().sync_all().unwrap();
    // Somebody has looked at it: it is all in memory.
    std::fs::read(&faults.file).unwrap();
    assert!(faults.is_cached());
    let tuning = Tuning {
        faults: Some(faults.clone()),
        ..Tuning::default()
    };
    let store = open_tuned(folder, tuning, wall_clock());
    assert_eq!(orders(&store, &spec("s", 0).id).await.len(), 1);
    assert_eq!(*faults.cached.lock().unwrap(), [false]);
}

// Broke: a power cut took the name of a new folder, with all that was in it.
#[tokio::test]
async fn a_new_folder_whose_name_is_not_on_the_disk_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new");
    let disk = Disk::new();
    disk.fail(FaultPoint::SyncFolderName, EIO);
    assert!(try_open_tuned(&new, tuned(&disk), wall_clock()).is_err());
    std::fs::remove_dir(&new).unwrap();
    disk.heal();
    try_open_tuned(&new, tuned(&disk), wall_clock()).unwrap();
}

// Broke: who removed a store deleted the lock that they held, and another process took a new one of the same name.
#[tokio::test]
async fn removing_a_store_leaves_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_on(&Disk::new(), folder.path()).await;
    close(store, folder.path()).await;
    remove_store(folder.path()).unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["journal.lock"]);
}
