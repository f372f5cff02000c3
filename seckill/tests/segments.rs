//! A sku in segments as its buyers see it: homes, units that come to them, "sold out", a segment that hangs.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use seckill::{ids::RequestId, purchase::Outcome};
use stock::{Gate, Lookup, Rebuild, Selling, StockMoves, Verdict};
use testkit::faulty_store::{Fault, Verb};

use crate::support::{
    floor::{Cut, FOUR, buyer_at, floor, is_accepted, is_sold_out},
    ledger::eventually,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_of_a_buyer_lives_at_home() {
    let floor = floor(FOUR).await;
    let buyer = buyer_at(2, 4, 0);
    // More than its home has: the units come to the buyer, never the buyer to the units.
    floor.take(&buyer, "r1", 1).await;
    floor.take(&buyer, "r2", 2).await;
    let reserved: Vec<_> = floor
        .snapshots()
        .await
        .iter()
        .map(|one| one.reserved)
        .collect();
    assert_eq!(reserved, [0, 0, 3, 0]);
    let refused = floor.buy(&buyer, "r3", 1).await;
    assert!(
        matches!(
            refused,
            Outcome::Decided(Verdict::BuyerLimit { held: 3, limit: 3 })
        ),
        "the limit is one for all segments: {refused:?}"
    );
    let replayed = floor.buy(&buyer, "r2", 2).await;
    assert!(
        matches!(replayed, Outcome::Decided(Verdict::Replayed(_))),
        "{replayed:?}"
    );
    floor.holds(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_move_to_the_buyer_until_all_are_sold() {
    let floor = floor(FOUR).await;
    // All buyers are at home in one segment; three quarters of the stock are not.
    for n in 0..8 {
        floor.take(&buyer_at(1, 4, n), "r", 1).await;
    }
    assert_eq!(floor.available().await, [0, 0, 0, 0]);
    let refused = floor.buy(&buyer_at(1, 4, 8), "r", 1).await;
    assert!(is_sold_out(&refused), "{refused:?}");
    floor.holds(8).await;
    let mark = floor
        .ledger
        .transfer_mark(&floor.sale.id, &floor.sku())
        .await
        .unwrap();
    assert!(mark.open.is_none() && mark.begun <= 6, "{mark:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_for_more_than_any_segment_has_is_gathered_from_several() {
    let floor = floor(Cut { stock: 4, ..FOUR }).await;
    floor.take(&buyer_at(0, 4, 0), "r", 3).await;
    let refused = floor.buy(&buyer_at(3, 4, 0), "r", 2).await;
    assert!(
        matches!(
            refused,
            Outcome::Decided(Verdict::SoldOut { remaining: 1, .. })
        ),
        "what is left in all segments is told: {refused:?}"
    );
    floor.take(&buyer_at(3, 4, 0), "r2", 1).await;
    floor.holds(4).await;
}

// Otherwise one buyer with a large wish would draw all units into one segment, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_for_more_than_there_is_moves_nothing() {
    let floor = floor(Cut {
        buyer_limit: 100,
        ..FOUR
    })
    .await;
    let refused = floor.buy(&buyer_at(0, 4, 0), "r", 9).await;
    assert!(
        matches!(
            refused,
            Outcome::Decided(Verdict::SoldOut { remaining: 8, .. })
        ),
        "{refused:?}"
    );
    assert_eq!(floor.available().await, [2, 2, 2, 2]);
    floor.take(&buyer_at(0, 4, 0), "r2", 8).await;
    floor.holds(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_units_than_segments_are_all_sold() {
    let floor = floor(Cut {
        segments: 64,
        stock: 3,
        ..FOUR
    })
    .await;
    let buyers = (0..20).map(|n| buyer_at(n * 3, 64, 0));
    let outcomes = join_all(buyers.map(|buyer| {
        let floor = &floor;
        async move { floor.buy(&buyer, "r", 1).await }
    }))
    .await;
    let accepted = outcomes.iter().filter(|one| is_accepted(one)).count();
    assert_eq!(accepted, 3, "{outcomes:?}");
    assert!(
        outcomes
            .iter()
            .all(|one| is_accepted(one) || is_sold_out(one)),
        "{outcomes:?}"
    );
    floor.holds(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_says_sold_out_only_when_all_segments_are_empty() {
    let floor = floor(Cut { stock: 4, ..FOUR }).await;
    let stranger = buyer_at(0, 4, 7);
    let request = RequestId::try_new("new").unwrap();
    let refuses = || floor.stock().refuses(&stranger, &request);
    let mut orders = Vec::new();
    for home in 0..4 {
        assert!(!refuses());
        orders.push(floor.take(&buyer_at(home, 4, 0), "r", 1).await);
    }
    let refused = floor.buy(&buyer_at(2, 4, 1), "r", 1).await;
    assert!(matches!(
        refused,
        Outcome::Decided(Verdict::SoldOut { remaining: 0, .. })
    ));
    assert!(refuses(), "one look at all segments is enough");
    let bought = buyer_at(3, 4, 0);
    let again = floor.buy(&bought, "r", 1).await;
    assert!(
        matches!(again, Outcome::Decided(Verdict::Replayed(_))),
        "a retry reaches its home: {again:?}"
    );
    floor
        .store
        .release_many(&floor.segment(3), &[orders[3].order])
        .await
        .unwrap();
    floor.engine.released(&floor.segment(3)).await;
    assert!(!refuses(), "a unit is back, wherever it is");
    floor.take(&stranger, "new", 1).await;
    floor.holds(4).await;
}

// A memory without the ledger's word told buyers "sold out" while the last unit was on its way from one segment to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_sold_out_while_a_unit_is_on_its_way() {
    let floor = floor(Cut {
        segments: 2,
        stock: 1,
        ..FOUR
    })
    .await;
    // The unit has left segment 0 and does not arrive: its node is gone.
    let begun = floor.transfers().begin(&floor.segment(0), 1, 1).await;
    let transfer = begun.unwrap().unwrap();
    floor.store.stall(&floor.segment(1));
    let lost = tokio::spawn({
        let transfers = floor.transfers();
        async move { transfers.finish(transfer).await }
    });
    eventually("the unit is on its way", async || {
        let moving = floor
            .ledger
            .units_in_transfer(&floor.sale.id)
            .await
            .unwrap();
        moving.values().sum::<u64>() == 1
    })
    .await;
    lost.abort();
    let _ = lost.await;
    floor.store.fail_next(Verb::Restock, Fault::Before);
    floor.store.resume();
    assert_eq!(floor.available().await, [0, 0], "all segments are empty");
    let outcome = floor.buy(&buyer_at(1, 2, 0), "r", 1).await;
    assert!(
        is_accepted(&outcome) || matches!(outcome, Outcome::Unavailable),
        "never sold out: {outcome:?}"
    );
    floor.transfers().sweep().await.unwrap();
    floor.advance(5_000);
    floor.transfers().sweep().await.unwrap();
    if !is_accepted(&outcome) {
        floor.take(&buyer_at(1, 2, 0), "r", 1).await;
    }
    floor.holds(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_cannot_finish_is_answered_honestly() {
    let floor = floor(Cut {
        segments: 2,
        stock: 2,
        ..FOUR
    })
    .await;
    floor.take(&buyer_at(0, 2, 0), "r", 1).await;
    floor.store.fail_next(Verb::Withdraw, Fault::After);
    floor.store.fail_next(Verb::Withdraw, Fault::Before);
    floor.store.fail_next(Verb::Withdraw, Fault::Before);
    let outcome = floor.buy(&buyer_at(0, 2, 1), "r", 1).await;
    assert!(
        is_accepted(&outcome) || matches!(outcome, Outcome::Unavailable),
        "{outcome:?}"
    );
    // The next one brings what the first has taken; the row in the ledger says what and where.
    eventually("the unit is sold", async || {
        is_accepted(&floor.buy(&buyer_at(0, 2, 1), "r", 1).await)
            || floor.available().await == [0, 0]
    })
    .await;
    assert_eq!(floor.counts().await.reserved, 2);
    floor.holds(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_purchase_leaves_the_units_that_came_for_it_on_sale() {
    let floor = floor(Cut {
        segments: 2,
        stock: 2,
        ..FOUR
    })
    .await;
    floor.take(&buyer_at(0, 2, 0), "r", 1).await;
    let (engine, stock, gone) = (floor.engine.clone(), floor.stock(), buyer_at(0, 2, 1));
    // The look at the other segment hangs until the buyer has gone away.
    floor.store.stall(&floor.segment(1));
    let request = RequestId::try_new("r").unwrap();
    let caller = tokio::spawn({
        let gone = gone.clone();
        async move { engine.purchase(&stock, gone, request, 1, None).await }
    });
    eventually("the look hangs", async || {
        floor.store.stalls.load(Ordering::SeqCst) > 0
    })
    .await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    floor.store.resume();
    floor.take(&buyer_at(0, 2, 2), "r", 1).await;
    let lookup = Lookup::Request(gone, RequestId::try_new("r").unwrap());
    let found = floor.store.find(&floor.segment(0), &lookup).await.unwrap();
    assert_eq!(found, None, "nothing was bought for the one who left");
    floor.holds(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_segment_that_hangs_delays_no_other() {
    let floor = floor(FOUR).await;
    floor.store.stall(&floor.segment(1));
    let (engine, stock) = (floor.engine.clone(), floor.stock());
    let request = RequestId::try_new("r").unwrap();
    let hangs = tokio::spawn(async move {
        engine
            .purchase(&stock, buyer_at(1, 4, 0), request, 1, None)
            .await
    });
    let others = [0, 2, 3].map(|home| {
        let floor = &floor;
        async move { floor.take(&buyer_at(home, 4, 0), "r", 1).await }
    });
    let quick = tokio::time::timeout(Duration::from_secs(2), join_all(others)).await;
    assert_eq!(quick.expect("they wait for nobody").len(), 3);
    assert!(!hangs.is_finished());
    floor.store.resume();
    assert!(is_accepted(&hangs.await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_hangs_is_never_counted_as_empty() {
    let floor = floor(Cut {
        segments: 2,
        stock: 2,
        ..FOUR
    })
    .await;
    floor.take(&buyer_at(0, 2, 0), "r", 1).await;
    floor.store.stall(&floor.segment(1));
    let outcome = floor.buy(&buyer_at(0, 2, 1), "r", 1).await;
    assert!(matches!(outcome, Outcome::Unavailable), "{outcome:?}");
    floor.store.resume();
    floor.take(&buyer_at(0, 2, 1), "r", 1).await;
}

// One open transfer used to keep all segments of its sku from feeding one another, for as long as its source was away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_dies_in_mid_transfer_holds_up_no_other_segments() {
    let floor = floor(Cut {
        stock: 16,
        buyer_limit: 16,
        ..FOUR
    })
    .await;
    let dead = floor.segment(0);
    let begun = floor.transfers().begin(&dead, 1, 2).await.unwrap().unwrap();
    floor.store.stall(&dead);
    // More than its home has: what is missing comes from the other two that answer.
    floor.take(&buyer_at(2, 4, 0), "r", 10).await;
    floor.take(&buyer_at(1, 4, 0), "r", 2).await;
    let refused = floor.buy(&buyer_at(3, 4, 0), "r", 1).await;
    assert!(
        matches!(refused, Outcome::Unavailable),
        "four units may be anywhere: {refused:?}"
    );
    let sku = floor.sku();
    let mark = floor.ledger.transfer_mark(&floor.sale.id, &sku);
    assert!(mark.await.unwrap().is_stuck(0, 1));
    floor.store.resume();
    // It answers again: the next purchase brings what was on its way, and sold out is what is.
    floor.take(&buyer_at(0, 4, 0), "r", 2).await;
    floor.take(&buyer_at(3, 4, 0), "r", 1).await;
    let arrived = floor.ledger.transfer(&begun.id).await.unwrap().unwrap();
    assert_eq!((arrived.state.is_open(), arrived.units), (false, 2));
    floor.take(&buyer_at(3, 4, 0), "r2", 1).await;
    assert!(is_sold_out(&floor.buy(&buyer_at(3, 4, 1), "r", 1).await));
    floor.holds(16).await;
}

// Broke: the late answer of an older call took a lane back to an epoch that the segment had left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_never_goes_back_to_an_older_epoch() {
    let one = Cut {
        segments: 1,
        ..FOUR
    };
    let floor = floor(one).await;
    let (spec, id) = (floor.sale.segment_specs().swap_remove(0), floor.segment(0));
    let store = &floor.store;
    store.freeze(&id, 2).await.unwrap();
    let moves = StockMoves::default();
    store.rebuild_begin(&spec, 2, &moves).await.unwrap();
    store.rebuild_finish(&id, 2, Gate::Open).await.unwrap();
    let segment = floor.stock().segments[0].clone();
    assert_eq!(segment.epoch(), 1);
    // While the answer "you are at epoch 1, I am at 2" is under way, somebody reads that the segment is at 9.
    let learns = segment.clone();
    *store.meanwhile.lock().unwrap() = Some(Box::new(move || {
        learns.epoch.store(9, Ordering::SeqCst);
    }));
    assert!(is_accepted(&floor.buy(&buyer_at(0, 1, 0), "r", 1).await));
    assert_eq!(segment.epoch(), 9);
}
