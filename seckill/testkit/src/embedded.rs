//! Embedded stores in folders of their own.

use std::{path::Path, sync::Arc};

use crate::conformance::Subject;
use stock::{
    Metadata, OrderQueue, Purchase, SegmentSpec, Selling, StoredOrder, Verdict,
    clock::WallClock,
    embedded::{EmbeddedStore, Options, RecoverError, SyncPolicy, Tuning, WriteMode},
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
};

use super::redis::wall_clock;

/// The store of a folder.
pub fn open(folder: &Path, write_mode: WriteMode) -> EmbeddedStore {
    try_open(folder, write_mode).unwrap()
}

/// The store of a folder, or why it is refused.
pub fn try_open(folder: &Path, write_mode: WriteMode) -> Result<EmbeddedStore, RecoverError> {
    EmbeddedStore::open(&options(folder, write_mode), wall_clock())
}

/// The store of a folder, kept in its own way.
pub fn open_tuned(folder: &Path, tuning: Tuning, clock: WallClock) -> EmbeddedStore {
    try_open_tuned(folder, tuning, clock).unwrap()
}

/// The same, or why it is refused.
pub fn try_open_tuned(
    folder: &Path,
    tuning: Tuning,
    clock: WallClock,
) -> Result<EmbeddedStore, RecoverError> {
    EmbeddedStore::open_with(&options(folder, WriteMode::Auto), tuning, clock)
}

/// Drops the last handle of a store and waits until its threads are at rest: from then on its files may be touched.
pub async fn close(store: EmbeddedStore, folder: &Path) {
    drop(store);
    let lock = std::fs::File::open(folder.join("journal.lock")).unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while lock.try_lock().is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it never ended");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

fn options(folder: &Path, write_mode: WriteMode) -> Options {
    Options {
        folder: folder.to_owned(),
        sync: SyncPolicy::Durable,
        write_mode,
    }
}

/// A segment of `k` in a sale of this name, always open.
pub fn spec(sale: &str, stock: u64) -> SegmentSpec {
    let id = SegmentId::first(SaleId::try_new(sale).unwrap(), SkuId::try_new("k").unwrap());
    SegmentSpec {
        id,
        stock,
        starts_at_ms: 0,
        ends_at_ms: u64::MAX >> 16,
        buyer_limit: 9,
        pay_within_ms: 1000,
        durability: None,
    }
}

/// The n-th purchase: 1 to 3 units, a buyer of its own, now and then with metadata.
pub fn purchase(n: u32) -> Purchase {
    Purchase {
        order: OrderId::from_u128(u128::from(n) + 1),
        buyer: BuyerId::try_new(&format!("b{n}")).unwrap(),
        request: RequestId::try_new("r").unwrap(),
        fingerprint: u64::from(n),
        quantity: 1 + n % 3,
        metadata: (n % 4 == 3).then(|| metadata(&format!("cart {n}"))),
    }
}

/// Metadata with this as the cart.
pub fn metadata(cart: &str) -> Metadata {
    let entries = [("cart".to_owned(), cart.to_owned())];
    Metadata::try_new(entries).unwrap().unwrap()
}

/// Buys these, all accepted.
pub async fn buy(store: &EmbeddedStore, id: &SegmentId, numbers: std::ops::Range<u32>) {
    let purchases = numbers.map(purchase).collect();
    let verdicts = store.buy_many(id, 1, purchases).await.unwrap();
    let all = verdicts
        .iter()
        .all(|verdict| matches!(verdict, Verdict::Accepted { .. }));
    assert!(all, "{verdicts:?}");
}

/// All orders of a segment as they stand.
pub async fn orders(store: &EmbeddedStore, id: &SegmentId) -> Vec<StoredOrder> {
    let found = store
        .accepted_after(id, Default::default(), usize::MAX)
        .await
        .unwrap();
    found.into_iter().map(|(_, order)| order).collect()
}

/// A new store as a subject of the conformance suite.
pub async fn subject(write_mode: WriteMode) -> Subject {
    let folder = tempfile::tempdir().unwrap();
    Subject::new(Arc::new(open(folder.path(), write_mode)), wall_clock()).keeping(folder)
}
