//! The embedded store beyond the conformance suite: what a restart brings back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use stock::{
    CartLine, CartVerdict, Durability, Gate, Moves, OrderQueue, OrderState, Position, Rebuild,
    SegmentSpec, Segments, Selling, StockError, StockMoves, Verdict,
    embedded::{EmbeddedStore, RecoverError, Tuning, WriteMode, faults::FaultPoint},
    ids::{SaleId, SegmentId, SkuId},
};
use testkit::{
    disk::{Disk, EIO},
    embedded::{buy, close, open, open_tuned, orders, purchase, spec, try_open},
    redis::wall_clock,
};

#[tokio::test]
async fn a_restart_brings_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec("s", 1000);
    let store = open(folder.path(), WriteMode::Auto);
    store.open(&spec).await.unwrap();
    let verdicts = store
        .buy_many(&spec.id, 1, (0..100).map(purchase).collect())
        .await
        .unwrap();
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Accepted { .. }))
    );
    let order = |n: u32| purchase(n).order;
    store
        .release_many(&spec.id, &[order(1), order(2)])
        .await
        .unwrap();
    store.confirm_many(&spec.id, &[order(3)]).await.unwrap();
    store.restock(&spec.id, "more", 7).await.unwrap();
    let pulled = store
        .pull(&spec.id, "c", 40, Duration::from_secs(60))
        .await
        .unwrap();
    let acked: Vec<Position> = pulled[..30].iter().map(|entry| entry.position).collect();
    store.ack(&spec.id, &acked).await.unwrap();
    store.set_gate(&spec.id, Gate::Paused).await.unwrap();
    let before = store.snapshot(&spec.id).await.unwrap();
    close(store, folder.path()).await;

    let store = open(folder.path(), WriteMode::Plain);
    assert_eq!(store.snapshot(&spec.id).await.unwrap(), before);
    let replay = store
        .buy_many(&spec.id, 1, vec![purchase(1), purchase(3)])
        .await
        .unwrap();
    let state = |verdict: &Verdict| match verdict {
        Verdict::Replayed(order) => order.state,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (state(&replay[0]), state(&replay[1])),
        (OrderState::Released, OrderState::Sold)
    );
    let again = store
        .pull(&spec.id, "c", 1000, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(
        again.len(),
        70,
        "what was not acknowledged is handed out again, at once"
    );
    assert_eq!(
        store.restock(&spec.id, "more", 7).await.unwrap().restocked,
        7,
        "booked once, over a restart"
    );
}

/// The bytes of a journal that holds one order of this segment.
async fn journal_of_one_order(folder: &Path, spec: &SegmentSpec) -> (PathBuf, Vec<u8>) {
    let store = open(folder, WriteMode::Auto);
    store.open(spec).await.unwrap();
    store
        .buy_many(&spec.id, 1, vec![purchase(0)])
        .await
        .unwrap();
    close(store, folder).await;
    let journal = folder.join("journal-0000000001.log");
    let bytes = std::fs::read(&journal).unwrap();
    (journal, bytes)
}

#[tokio::test]
async fn a_torn_tail_loses_only_what_was_never_answered() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec("s", 1000));
    let (journal, mut bytes) = journal_of_one_order(folder.path(), &spec).await;
    bytes.extend_from_slice(b"PSF2\x10\x00");
    std::fs::write(&journal, &bytes).unwrap();

    let store = open(folder.path(), WriteMode::Auto);
    assert_eq!(store.snapshot(&spec.id).await.unwrap().accepted, 1);
    store
        .buy_many(&spec.id, 1, vec![purchase(1)])
        .await
        .unwrap();
    close(store, folder.path()).await;
    let again = open(folder.path(), WriteMode::Auto);
    assert_eq!(again.snapshot(&spec.id).await.unwrap().accepted, 2);
}

#[tokio::test]
async fn a_damaged_middle_is_refused_with_its_place() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec("s", 1000));
    let (journal, mut bytes) = journal_of_one_order(folder.path(), &spec).await;
    bytes[70] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let refused = try_open(folder.path(), WriteMode::Auto);
    assert!(matches!(
        refused,
        Err(RecoverError::Corrupt { offset: 32, .. })
    ));
}

/// A cart of one unit of each.
fn cart(segments: &[&SegmentSpec], n: u32) -> Vec<CartLine> {
    let line = |(at, spec): (usize, &&SegmentSpec)| {
        let mut purchase = purchase(n);
        purchase.order = stock::ids::OrderId::from_u128(u128::from(n) << 8 | at as u128);
        purchase.quantity = 1;
        CartLine {
            segment: spec.id.clone(),
            epoch: 1,
            purchase,
        }
    };
    segments.iter().enumerate().map(line).collect()
}

fn of_cart(sku: &str, stock: u64) -> SegmentSpec {
    let id = SegmentId::of_cart(SaleId::try_new("s").unwrap(), SkuId::try_new(sku).unwrap());
    SegmentSpec {
        id,
        ..spec("s", stock)
    }
}

#[tokio::test]
async fn a_torn_tail_never_leaves_half_a_cart() {
    let folder = tempfile::tempdir().unwrap();
    let (shoe, lace) = (of_cart("shoe", 9), of_cart("lace", 9));
    let journal = folder.path().join("journal-0000000001.log");
    let store = open(folder.path(), WriteMode::Plain);
    store.open(&shoe).await.unwrap();
    store.open(&lace).await.unwrap();
    close(store, folder.path()).await;
    let before = std::fs::read(&journal).unwrap().len();
    let store = open(folder.path(), WriteMode::Plain);
    let bought = store.buy_cart(cart(&[&shoe, &lace], 1)).await.unwrap();
    assert!(matches!(bought, CartVerdict::Accepted(_)), "{bought:?}");
    close(store, folder.path()).await;
    let whole = std::fs::read(&journal).unwrap();
    for cut in before..=whole.len() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal-0000000001.log");
        std::fs::write(&journal, &whole[..cut]).unwrap();
        let store = open(folder.path(), WriteMode::Plain);
        let units = async |spec: &SegmentSpec| store.snapshot(&spec.id).await.unwrap().reserved;
        let found = (units(&shoe).await, units(&lace).await);
        let expected = if cut == whole.len() { (1, 1) } else { (0, 0) };
        assert_eq!(found, expected, "cut at {cut} of {}", whole.len());
    }
}

#[tokio::test]
async fn a_rebuild_goes_on_after_a_restart_at_any_step() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec("s", 10);
    let reopened = async |store: EmbeddedStore| {
        close(store, folder.path()).await;
        open(folder.path(), WriteMode::Auto)
    };
    let store = open(folder.path(), WriteMode::Auto);
    store.open(&spec).await.unwrap();
    buy(&store, &spec.id, 0..2).await;
    let known = orders(&store, &spec.id).await;
    store.withdraw(&spec.id, "t1", 2).await.unwrap();
    store.freeze(&spec.id, 5).await.unwrap();
    let store = reopened(store).await;
    let frozen = store.snapshot(&spec.id).await.unwrap();
    assert_eq!((frozen.gate, frozen.epoch), (Gate::Frozen, 5));
    let left = store.unsettled(&spec.id, Position::default(), 9).await;
    assert_eq!(left.unwrap().len(), 2);
    let moves = StockMoves {
        restocks: Vec::new(),
        withdrawals: vec![("t1".to_owned(), 2)],
    };
    store.rebuild_begin(&spec, 5, &moves).await.unwrap();
    let store = reopened(store).await;
    store.rebuild_load(&spec.id, 5, &known).await.unwrap();
    let store = reopened(store).await;
    store.rebuild_finish(&spec.id, 5, Gate::Open).await.unwrap();
    let store = reopened(store).await;
    let counts = store.snapshot(&spec.id).await.unwrap();
    let units: u64 = known.iter().map(|order| u64::from(order.quantity)).sum();
    assert_eq!((counts.gate, counts.epoch), (Gate::Open, 5));
    assert_eq!((counts.reserved, counts.withdrawn), (units, 2));
    assert_eq!(counts.available, 10 - 2 - units);
    let again = store
        .buy_many(&spec.id, 5, vec![purchase(0)])
        .await
        .unwrap();
    assert_eq!(again, [Verdict::Replayed(known[0].clone())]);
}

fn tuned(disk: &std::sync::Arc<Disk>) -> Tuning {
    Tuning {
        faults: Some(disk.clone()),
        ..Tuning::default()
    }
}

/// A disk that takes writes, but no sync, and no new file either.
fn break_syncs(disk: &Disk) {
    disk.fail(FaultPoint::Sync, EIO);
    disk.fail(FaultPoint::CreateJournal, EIO);
}

/// INV-ORDER-3 at `durable`: the order of answer and sync, for purchases and carts.
#[tokio::test]
async fn nothing_durable_is_answered_before_its_sync() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = open_tuned(folder.path(), tuned(&disk), wall_clock());
    let spec = spec("s", 10);
    store.open(&spec).await.unwrap();
    break_syncs(&disk);
    let answer = store.buy_many(&spec.id, 1, vec![purchase(0)]).await;
    assert!(matches!(answer, Err(StockError::Unknown(_))), "{answer:?}");
}

// Chaos runs found them waiting for the next purchase of their segment.
#[tokio::test]
async fn what_a_fast_sale_had_accepted_is_settled_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), WriteMode::Auto);
    let fast = SegmentSpec {
        durability: Some(Durability::Fast),
        ..spec("fast", 10)
    };
    store.open(&fast).await.unwrap();
    buy(&store, &fast.id, 0..2).await;
    close(store, folder.path()).await;
    let store = open(folder.path(), WriteMode::Auto);
    let pulled = store.pull(&fast.id, "c", 9, Duration::ZERO).await.unwrap();
    assert_eq!(pulled.len(), 2);
}

/// What `fast` means, beside a durable sale in the same journal: the fast answer does not wait, the durable one does, and whatever a
/// durable answer came after is on the disk with it.
#[tokio::test]
async fn a_fast_sale_is_answered_before_the_sync_and_a_durable_one_after() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = open_tuned(folder.path(), tuned(&disk), wall_clock());
    let fast = SegmentSpec {
        durability: Some(Durability::Fast),
        ..spec("fast", 10)
    };
    let durable = spec("durable", 10);
    store.open(&fast).await.unwrap();
    store.open(&durable).await.unwrap();
    break_syncs(&disk);
    buy(&store, &fast.id, 0..1).await;
    let pulled = store
        .pull(&fast.id, "c", 9, Duration::ZERO)
        .await
        .unwrap_or_default();
    assert_eq!(
        pulled,
        [],
        "the ledger must not hold an order that the journal can still lose"
    );
    let answer = store.buy_many(&durable.id, 1, vec![purchase(1)]).await;
    assert!(
        matches!(
            answer,
            Err(StockError::Unknown(_) | StockError::Unavailable(_))
        ),
        "{answer:?}"
    );
    disk.heal();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let answer = loop {
        assert!(tokio::time::Instant::now() < deadline, "never well");
        match store.buy_many(&durable.id, 1, vec![purchase(1)]).await {
            Err(StockError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            answered => break answered.unwrap(),
        }
    };
    assert!(
        matches!(
            answer[..],
            [Verdict::Replayed(_) | Verdict::Accepted { .. }]
        ),
        "{answer:?}"
    );
    let pulled = store.pull(&fast.id, "c", 9, Duration::ZERO).await.unwrap();
    assert_eq!(pulled.len(), 1, "now it is on the disk");
    close(store, folder.path()).await;
    let store = open(folder.path(), WriteMode::Auto);
    assert_eq!(orders(&store, &fast.id).await.len(), 1);
    assert_eq!(orders(&store, &durable.id).await.len(), 1);
}

/// Nobody has to ask for it.
#[tokio::test]
async fn a_fast_order_is_on_the_disk_a_moment_later() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let store = open_tuned(folder.path(), tuned(&disk), wall_clock());
    let fast = SegmentSpec {
        durability: Some(Durability::Fast),
        ..spec("fast", 10)
    };
    store.open(&fast).await.unwrap();
    let before = disk.reached(FaultPoint::Sync);
    buy(&store, &fast.id, 0..1).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while disk.reached(FaultPoint::Sync) == before {
        assert!(tokio::time::Instant::now() < deadline, "never synced");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_level_that_one_node_cannot_give_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), WriteMode::Auto);
    let replicated = SegmentSpec {
        durability: Some(Durability::Replicated),
        ..spec("s", 10)
    };
    let refused = store.open(&replicated).await.unwrap_err();
    assert!(
        refused.to_string().contains("needs a Redis store"),
        "{refused}"
    );
}
