//! What a node does for a sku in segments without being asked: restocks that a crash left half done, segments that ran empty, units
//! that came back on another node, a segment that was rebuilt, a sale that is over.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use seckill::{
    engine::SaleEngine,
    ids::RequestId,
    ledger::{Restock, Restocked},
    purchase::Outcome,
};
use stock::{Gate, OrderQueue, Rebuild, Selling, StockMoves, Verdict};
use testkit::faulty_store::{Fault, FaultyStore, Verb};

use crate::support::{
    floor::{Cut, FOUR, buyer_at, floor, is_accepted, is_sold_out},
    ledger::eventually,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restock_is_cut_over_the_segments_once() {
    let floor = floor(FOUR).await;
    let restock = Restock {
        sku: floor.sku(),
        id: "pallet-7".to_owned(),
        units: 10,
    };
    for expected in [Restocked::Added, Restocked::Repeated] {
        let restocked = floor.engine.restock(&floor.sale, &restock).await.unwrap();
        assert_eq!(restocked, expected);
        assert_eq!(floor.available().await, [5, 5, 4, 4]);
    }
    let single = Restock {
        id: "pallet-8".to_owned(),
        units: 1,
        ..restock
    };
    floor.engine.restock(&floor.sale, &single).await.unwrap();
    floor.holds(19).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restock_that_reached_half_of_the_segments_is_mended_by_any_node() {
    let floor = floor(FOUR).await;
    let restock = Restock {
        sku: floor.sku(),
        id: "pallet-7".to_owned(),
        units: 8,
    };
    let (lost, refused) = (floor.segment(1), floor.segment(3));
    floor.store.fail_next_of(Verb::Restock, Fault::After, &lost);
    floor
        .store
        .fail_next_of(Verb::Restock, Fault::Before, &refused);
    assert!(floor.engine.restock(&floor.sale, &restock).await.is_err());
    assert_eq!(floor.available().await, [4, 4, 4, 2]);
    let other = floor.another_node().await;
    other.refresh().await.unwrap();
    assert_eq!(floor.available().await, [4, 4, 4, 4]);
    let restocks = floor.store.restocks.load(Ordering::SeqCst);
    floor.engine.refresh().await.unwrap();
    other.refresh().await.unwrap();
    let again = floor.store.restocks.load(Ordering::SeqCst);
    assert_eq!(restocks, again, "what is whole is not repaired");
    floor.holds(16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_segment_is_fed_before_anybody_waits() {
    let floor = floor(Cut {
        segments: 2,
        stock: 8,
        ..FOUR
    })
    .await;
    for n in 0..2 {
        floor.take(&buyer_at(0, 2, n), "r", 2).await;
    }
    assert_eq!(floor.available().await, [0, 4]);
    eventually("the empty segment is fed", async || {
        floor.engine.refresh().await.unwrap();
        floor.available().await == [2, 2]
    })
    .await;
    floor.holds(8).await;
}

/// INV-PAST-1. Broke: each node read every order that the others accepted, twice a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_nodes_sold_is_read_back_once_a_segment_is_empty() {
    let floor = floor(Cut {
        segments: 1,
        stock: 3,
        ..FOUR
    })
    .await;
    let other = floor.another_node().await;
    let read_back = || floor.store.read_back.load(Ordering::SeqCst);
    let first = buyer_at(0, 1, 0);
    floor.take(&first, "r", 1).await;
    other.refresh().await.unwrap();
    assert_eq!(read_back(), 0, "there are units");
    floor.take(&buyer_at(0, 1, 1), "r", 2).await;
    other.refresh().await.unwrap();
    assert!(read_back() > 0);
    let refuses = |buyer| {
        let request = RequestId::try_new("r").unwrap();
        floor.stock_on(&other).refuses(buyer, &request)
    };
    let stranger = buyer_at(0, 1, 5);
    assert!(refuses(&stranger));
    assert!(!refuses(&first), "a retry finds its order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_hears_of_a_unit_that_came_back() {
    let floor = floor(Cut {
        segments: 2,
        stock: 2,
        ..FOUR
    })
    .await;
    let order = floor.take(&buyer_at(0, 2, 0), "r", 1).await;
    floor.take(&buyer_at(1, 2, 0), "r", 1).await;
    let other = floor.another_node().await;
    let stranger = buyer_at(1, 2, 5);
    let refused = floor.buy_on(&other, &stranger, "r", 1).await;
    assert!(is_sold_out(&refused), "{refused:?}");
    let request = RequestId::try_new("r").unwrap();
    assert!(floor.stock_on(&other).refuses(&stranger, &request));
    // A retry of what the first node sold is known to the second.
    let sold = buyer_at(0, 2, 0);
    assert!(!floor.stock_on(&other).refuses(&sold, &request));
    floor
        .store
        .release_many(&floor.segment(0), &[order.order])
        .await
        .unwrap();
    other.refresh().await.unwrap();
    let outcome = floor.buy_on(&other, &stranger, "r", 1).await;
    assert!(is_accepted(&outcome), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_is_over_is_not_read_any_more() {
    let floor = floor(FOUR).await;
    let buyer = buyer_at(0, 4, 0);
    let order = floor.take(&buyer, "r", 1).await;
    floor.advance(2 * 600_000 + 60_000);
    floor.engine.refresh().await.unwrap();
    assert_eq!(
        floor.engine.segments().borrow().len(),
        4,
        "an order is still on its way into the ledger"
    );
    let entries = floor
        .store
        .pull(&floor.segment(0), "c", 10, Duration::ZERO)
        .await
        .unwrap();
    floor
        .store
        .ack(&floor.segment(0), &[entries[0].position])
        .await
        .unwrap();
    floor.engine.refresh().await.unwrap();
    assert!(floor.engine.segments().borrow().is_empty());
    let read = floor.store.snapshots.load(Ordering::SeqCst);
    floor.engine.refresh().await.unwrap();
    assert_eq!(floor.store.snapshots.load(Ordering::SeqCst), read);
    assert!(floor.engine.order(order.order).await.unwrap().is_some());
    let again = floor.buy(&buyer, "r", 1).await;
    assert!(
        matches!(again, Outcome::Decided(Verdict::Replayed(_))),
        "a late retry still finds its order: {again:?}"
    );
    let other = floor.another_node().await;
    assert!(other.segments().borrow().is_empty());
    assert!(other.order(order.order).await.unwrap().is_some());
}

// A memory without the epoch believed the new segment's first versions to be older than the old one's last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_segment_sells_what_the_rebuild_found() {
    let floor = floor(Cut { stock: 4, ..FOUR }).await;
    for home in 0..4 {
        floor.take(&buyer_at(home, 4, 0), "r", 1).await;
    }
    let stranger = buyer_at(0, 4, 5);
    assert!(is_sold_out(&floor.buy(&stranger, "r", 1).await));
    // The store has lost the order of segment 2, and the ledger never had it: its unit is for sale again.
    let lost = floor.segment(2);
    let specs = floor.sale.segment_specs();
    let spec = specs.iter().find(|spec| spec.id == lost).unwrap();
    floor.store.freeze(&lost, 2).await.unwrap();
    floor.engine.refresh().await.unwrap();
    let outcome = floor.buy(&stranger, "r", 1).await;
    assert!(
        matches!(outcome, Outcome::Unavailable),
        "a frozen segment is never counted as empty: {outcome:?}"
    );
    floor
        .store
        .rebuild_begin(spec, 2, &StockMoves::default())
        .await
        .unwrap();
    floor
        .store
        .rebuild_finish(&lost, 2, Gate::Open)
        .await
        .unwrap();
    floor.engine.refresh().await.unwrap();
    floor.take(&stranger, "r", 1).await;
    assert_eq!(floor.counts().await.reserved, 4);
    floor.holds(4).await;
}

/// INV-WINDOW-1. Broke: a node that had read the ledger a moment before set the gate back to open, and the sale sold on for half a
/// second; the operator's own node waited for segments that did not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_not_undone_by_a_node_that_read_the_ledger_before_it() {
    let floor = floor(FOUR).await;
    let slow = FaultyStore::new(floor.store.clone());
    let (store, ledger) = (slow.clone(), floor.ledger.clone());
    let wait = Duration::from_secs(5);
    let other = SaleEngine::start(store, ledger, floor.clock(), wait, Arc::default());
    let other = other.await.unwrap();
    let set = async |gate| floor.engine.set_gate(&floor.sale.id, gate).await.unwrap();
    set(Gate::Paused).await;
    other.refresh().await.unwrap();
    set(Gate::Open).await;
    slow.stall(&floor.segment(0));
    let opening = tokio::spawn({
        let other = other.clone();
        async move { other.refresh().await }
    });
    eventually("the other node is about to open it", async || {
        slow.stalls.load(Ordering::SeqCst) > 0
    })
    .await;
    let gates = async || -> Vec<Gate> {
        let all = floor.snapshots().await;
        all.into_iter().map(|one| one.gate).collect()
    };
    set(Gate::Paused).await;
    assert_eq!(gates().await, [Gate::Paused; 4]);
    slow.resume();
    let _ = opening.await.unwrap();
    assert_eq!(gates().await, [Gate::Paused; 4]);
}

/// INV-PAST-1. Broke: twice a second each node read all sales there ever were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_was_audited_after_its_end_is_not_read_again_and_again() {
    let floor = floor(FOUR).await;
    let mut past = floor.sale.clone();
    past.id = "past".parse().unwrap();
    let create = floor.ledger.create_sale(&past, 1).await;
    create.unwrap();
    floor.ledger.mark_audited(&past.id, 2).await.unwrap();
    let is_known = |engine: &SaleEngine| engine.catalogue().sale(&past.id).is_some();
    floor.engine.refresh().await.unwrap();
    assert!(!is_known(&floor.engine));
    assert!(floor.engine.catalogue().sale(&floor.sale.id).is_some());
    // A node that has started reads all of them, for late readers.
    let other = floor.another_node().await;
    assert!(!is_known(&other));
    other.refresh().await.unwrap();
    assert!(is_known(&other));
    // What it still looks after it goes on reading.
    floor
        .ledger
        .move_gate(&past.id, Gate::Paused)
        .await
        .unwrap();
    other.refresh().await.unwrap();
    let gate = other.catalogue().sale(&past.id).unwrap().sale.gate;
    assert_eq!(gate, Gate::Paused);
}
