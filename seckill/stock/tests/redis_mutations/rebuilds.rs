//! The same for the steps of a rebuild: late ones, half ones, and those on another server.

use std::{sync::Arc, time::Duration};

use stock::{Gate, OrderQueue, Rebuild, Segments, StockError, StockMoves, StoredOrder};
use testkit::{
    rebuild::{rebuild, unsettled},
    redis::{now_ms, purchase},
};

use super::{
    Bed,
    proofs::{DIES, LAST_WRITE, key},
};

fn is_stale<T>(answer: Result<T, StockError>, epoch: u64) -> bool {
    matches!(answer, Err(StockError::StaleEpoch { current, .. }) if current == epoch)
}

/// A page of orders that died is not the half of a page.
pub async fn a_load_that_dies_half_way_is_not_continued(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let order = bed.take(&spec, epoch, "ann").await;
    let (store, id, epoch) = (bed.store.as_ref(), &spec.id, epoch + 1);
    store.freeze(id, epoch).await.unwrap();
    let moves = StockMoves::default();
    store.rebuild_begin(&spec, epoch, &moves).await.unwrap();
    bed.patch(LAST_WRITE, DIES);
    bed.server.cli(&["set", "die", "1"]);
    let died = store
        .rebuild_load(id, epoch, std::slice::from_ref(&order))
        .await;
    assert!(died.is_err());
    bed.server.cli(&["del", "die"]);
    let ended = store.rebuild_finish(id, epoch, Gate::Open).await;
    assert!(
        matches!(ended, Err(StockError::AwaitsRebuild(_))),
        "{ended:?}"
    );
    let counts = rebuild(store, &spec, epoch, &mut vec![order]).await;
    assert_eq!(counts.unwrap().available, 4);
}

/// Neither is what another server life has loaded.
pub async fn a_rebuild_of_another_server_life_is_not_continued(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let (store, epoch) = (bed.store.as_ref(), epoch + 1);
    store.freeze(&spec.id, epoch).await.unwrap();
    let moves = StockMoves::default();
    store.rebuild_begin(&spec, epoch, &moves).await.unwrap();
    bed.set(&spec, "server", "somebody:-1:0");
    let loaded = store.rebuild_load(&spec.id, epoch, &[]).await;
    let ended = store
        .rebuild_finish(&spec.id, epoch, Gate::Open)
        .await
        .map(drop);
    for answer in [loaded, ended] {
        assert!(
            matches!(answer, Err(StockError::AwaitsRebuild(_))),
            "{answer:?}"
        );
    }
}

/// A step that was long on its way finds the segment selling again.
pub async fn a_step_that_comes_after_the_end_of_its_rebuild_is_refused(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let (store, epoch) = (bed.store.as_ref(), epoch + 1);
    rebuild(store, &spec, epoch, &mut Vec::new()).await.unwrap();
    bed.take(&spec, epoch, "ann").await;
    let moves = StockMoves::default();
    assert!(is_stale(store.freeze(&spec.id, epoch).await, epoch));
    assert!(is_stale(
        store.rebuild_begin(&spec, epoch, &moves).await,
        epoch
    ));
    assert!(is_stale(
        store.rebuild_load(&spec.id, epoch, &[]).await,
        epoch
    ));
    // The last step is told what it was told before, and does nothing.
    store.set_gate(&spec.id, Gate::Paused).await.unwrap();
    let ended = store
        .rebuild_finish(&spec.id, epoch, Gate::Open)
        .await
        .unwrap();
    assert_eq!((ended.gate, ended.accepted), (Gate::Paused, 1));
}

/// Its queue was not read into the ledger yet.
pub async fn a_segment_that_was_not_frozen_is_not_wiped(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.take(&spec, epoch, "ann").await;
    let begun = bed
        .store
        .rebuild_begin(&spec, epoch + 1, &StockMoves::default())
        .await;
    assert!(
        matches!(begun, Err(StockError::Unavailable(_))),
        "{begun:?}"
    );
    assert_eq!(bed.store.snapshot(&spec.id).await.unwrap().accepted, 1);
}

/// A frozen segment still has its old orders: it is not opened without being built anew.
pub async fn a_rebuild_cannot_end_before_it_has_begun(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let (store, epoch) = (bed.store.as_ref(), epoch + 1);
    store.freeze(&spec.id, epoch).await.unwrap();
    let ended = store.rebuild_finish(&spec.id, epoch, Gate::Open).await;
    assert!(
        matches!(ended, Err(StockError::AwaitsRebuild(_))),
        "{ended:?}"
    );
    assert!(bed.is_held(&spec).await);
}

/// Even where the clock went back: acknowledgements and readers that hold old positions meet no new entry.
pub async fn positions_grow_over_a_rebuild(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let far = format!("{}-7", now_ms() + 3_600_000);
    bed.server.cli(&["xsetid", &key(&spec, "stream"), &far]);
    bed.take(&spec, epoch, "ann").await;
    let (store, id) = (bed.store.as_ref(), &spec.id);
    let old = store.pull(id, "c1", 9, Duration::ZERO).await.unwrap()[0].position;
    rebuild(store, &spec, epoch + 1, &mut Vec::new())
        .await
        .unwrap();
    let order = bed.take(&spec, epoch + 1, "bob").await;
    store.ack(id, &[old]).await.unwrap();
    assert_eq!(
        unsettled(store, &spec).await.unwrap(),
        std::slice::from_ref(&order)
    );
    let after = store.accepted_after(id, old, 9).await.unwrap();
    assert_eq!(after.last().unwrap().1, order);
}

/// A replica that was behind has a lower version than the nodes have seen.
pub async fn versions_grow_over_a_rebuild_of_an_older_copy(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(50, 50).await;
    for buyer in 0..9 {
        bed.take(&spec, epoch, &format!("b{buyer}")).await;
    }
    let seen = bed.store.snapshot(&spec.id).await.unwrap().version;
    bed.set(&spec, "version", "1");
    let counts = rebuild(bed.store.as_ref(), &spec, epoch + 1, &mut Vec::new()).await;
    assert!(counts.unwrap().version > seen + 1_000);
}

/// The ledger says that one request has one order.
pub async fn two_orders_of_one_request_are_not_loaded(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let order = bed.take(&spec, epoch, "ann").await;
    let other = StoredOrder {
        order: purchase(&spec.id, "ann", "r1").order,
        ..order.clone()
    };
    let loaded = rebuild(
        bed.store.as_ref(),
        &spec,
        epoch + 1,
        &mut vec![order, other],
    )
    .await;
    assert!(matches!(loaded, Err(StockError::Corrupt(_))), "{loaded:?}");
}

/// What is gone cannot have been more than there was.
pub async fn more_withdrawn_than_there_was_is_corrupt(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.store.freeze(&spec.id, epoch + 1).await.unwrap();
    let moves = StockMoves {
        restocks: Vec::new(),
        withdrawals: vec![("t1".to_owned(), 6)],
    };
    let begun = bed.store.rebuild_begin(&spec, epoch + 1, &moves).await;
    assert!(matches!(begun, Err(StockError::Corrupt(_))), "{begun:?}");
}
