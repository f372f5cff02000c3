//! The embedded store beyond the conformance suite: what a restart brings back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use seckill::{
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    store::{
        Gate, OrderState, Position, Purchase, SegmentSpec, StockStore, Verdict,
        embedded::{Method, RecoverError},
    },
};

use crate::support::embedded::{open, try_open};

fn spec(stock: u64) -> SegmentSpec {
    let id = SegmentId::first(SaleId::try_new("s").unwrap(), SkuId::try_new("k").unwrap());
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

fn purchase(n: u32) -> Purchase {
    Purchase {
        order: OrderId::from_u128(u128::from(n) + 1),
        buyer: BuyerId::try_new(&format!("b{n}")).unwrap(),
        request: RequestId::try_new("r").unwrap(),
        fingerprint: u64::from(n),
        quantity: 1 + n % 3,
    }
}

#[tokio::test]
async fn a_restart_brings_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(1000);
    let store = open(folder.path(), Method::Auto);
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
    drop(store);

    let store = open(folder.path(), Method::Plain);
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
    let store = open(folder, Method::Auto);
    store.open(spec).await.unwrap();
    store
        .buy_many(&spec.id, 1, vec![purchase(0)])
        .await
        .unwrap();
    drop(store);
    let journal = folder.join("journal.log");
    let bytes = std::fs::read(&journal).unwrap();
    (journal, bytes)
}

#[tokio::test]
async fn a_torn_tail_loses_only_what_was_never_answered() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec(1000));
    let (journal, mut bytes) = journal_of_one_order(folder.path(), &spec).await;
    bytes.extend_from_slice(b"PSJ2\x10\x00");
    std::fs::write(&journal, &bytes).unwrap();

    let store = open(folder.path(), Method::Auto);
    assert_eq!(store.snapshot(&spec.id).await.unwrap().accepted, 1);
    store
        .buy_many(&spec.id, 1, vec![purchase(1)])
        .await
        .unwrap();
    drop(store);
    let again = open(folder.path(), Method::Auto);
    assert_eq!(again.snapshot(&spec.id).await.unwrap().accepted, 2);
}

#[tokio::test]
async fn a_damaged_middle_is_refused_with_its_place() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec(1000));
    let (journal, mut bytes) = journal_of_one_order(folder.path(), &spec).await;
    bytes[30] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let refused = try_open(folder.path(), Method::Auto);
    assert!(matches!(
        refused,
        Err(RecoverError::Corrupt { offset: 0, .. })
    ));
}
