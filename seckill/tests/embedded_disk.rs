//! Disks that are full or fail, and a store that goes on when they recover. No privileges needed: the disk is the journal's own
//! fault layer. `gateway/tests/disk_full.rs` does the same to a whole process with a real limit of the kernel.

use std::{path::Path, sync::Arc, time::Duration};

use seckill::store::{
    Lookup, StockError, StockStore, Verdict,
    embedded::{EmbeddedStore, Health, Method, Point, Tuning},
};
use tokio::time::{Instant, sleep};

use crate::support::{
    disk::{Disk, EIO, ENOSPC},
    embedded::{buy, close, open, open_tuned, orders, purchase, spec},
    redis::wall_clock,
};

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
    let store = open(folder, Method::Plain);
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
    disk.fail(Point::Reserve, ENOSPC);
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

/// A file system that promises no room: the first frame is torn. Whoever bought is told "not known yet", and then what happened.
#[tokio::test]
async fn a_frame_torn_by_a_full_disk_is_unknown_and_then_there_once() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = store_on(&disk, folder.path()).await;
    disk.cut_writes(20);
    disk.fail(Point::CreateJournal, ENOSPC);
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
        disk.fail(Point::Sync, EIO);
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
    disk.fail(Point::Sync, EIO);
    disk.fail(Point::CreateJournal, EIO);
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
        disk.fail(Point::CreateJournal, EIO);
        match cut {
            None => disk.fail(Point::Sync, EIO),
            Some(bytes) => disk.cut_writes(bytes),
        }
        assert!(try_buy(&store, 1).await.is_err());
        close(store, folder.path()).await;
        let store = open(folder.path(), Method::Auto);
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
    disk.fail(Point::Sync, EIO);
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
