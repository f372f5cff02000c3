//! A node at rest: how much its timers ask of the store when nobody buys, and how soon it notices that somebody has.

use std::{sync::atomic::Ordering, time::Duration};

use seckill::{
    lease::RowLease,
    ledger::REBUILD,
    rebuild::Rebuilder,
    reconcile::Violations,
    settlement::{self, Settlement, SettlementConfig},
};
use stock::OrderQueue;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::floor::{Cut, FOUR, Floor, buyer_at, floor};

const SEGMENTS: u16 = 32;

/// All that a node runs over a sale's segments, each on its own timer.
fn run(floor: &Floor, shutdown: &CancellationToken) -> Settlement {
    let parts = settlement::Parts {
        store: floor.store.clone(),
        ledger: floor.ledger.clone(),
        clock: floor.clock(),
        accepted: floor.accepted.clone(),
        violations: Violations::default(),
        config: SettlementConfig::new("node-1"),
    };
    let segments = floor.engine.segments();
    let settlement = Settlement::start(parts, segments.clone(), shutdown.clone());
    let lease = RowLease::new(
        REBUILD,
        floor.ledger.clone(),
        floor.clock(),
        "node-1".to_owned(),
    );
    let rebuilder = Rebuilder::new(
        floor.store.clone(),
        floor.ledger.clone(),
        floor.clock(),
        Box::new(lease),
    );
    tokio::spawn(rebuilder.run(segments, shutdown.clone()));
    tokio::spawn(floor.engine.clone().run(shutdown.clone()));
    settlement
}

// Broke: eight calls a second for each segment, whatever happened in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_at_rest_costs_two_store_calls_a_second_for_each_segment() {
    let floor = floor(Cut {
        segments: SEGMENTS,
        stock: 3_200,
        ..FOUR
    })
    .await;
    let shutdown = CancellationToken::new();
    let settlement = run(&floor, &shutdown);
    // Until it is at rest.
    sleep(Duration::from_secs(12)).await;
    let before = floor.store.calls.load(Ordering::SeqCst);
    sleep(Duration::from_secs(10)).await;
    let calls = floor.store.calls.load(Ordering::SeqCst) - before;
    let each = calls as f64 / 10.0 / f64::from(SEGMENTS);
    println!("{calls} calls in 10 s, {each:.2} a second for each segment");
    shutdown.cancel();
    settlement.stopped().await;
    assert!(each <= 2.0, "{each:.2}");
}

// The other side of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_after_a_long_rest_is_settled_soon_whichever_node_took_it() {
    let floor = floor(FOUR).await;
    let edge = floor.another_node().await;
    let shutdown = CancellationToken::new();
    let settlement = run(&floor, &shutdown);
    sleep(Duration::from_secs(6)).await;
    for (node, home) in [(&floor.engine, 0), (&edge, 2)] {
        let buyer = buyer_at(home, FOUR.segments, 0);
        let began = Instant::now();
        let bought = floor.buy_on(node, &buyer, "late", 1).await;
        assert!(crate::support::floor::is_accepted(&bought), "{bought:?}");
        let depth = async || {
            let depth = floor.store.depth(&floor.segment(home as u16)).await;
            depth.unwrap().entries
        };
        crate::support::ledger::eventually("it is settled", async || depth().await == 0).await;
        let took = began.elapsed();
        println!("settled after {took:?}");
        assert!(took < Duration::from_millis(2_500), "{took:?}");
    }
    shutdown.cancel();
    settlement.stopped().await;
}
