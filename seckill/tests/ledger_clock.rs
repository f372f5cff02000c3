//! Whose clock it is that a node decides by.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use seckill::clock::WallClock;
use testkit::redis::wall_clock;

use crate::support::ledger::{Engine, TestLedger, on_both_engines};

const HOUR: u64 = 3_600_000;

on_both_engines! {
    a_node_goes_by_the_ledgers_clock_whatever_its_own_says,
}

/// INV-CLOCK-1. The tests' PostgreSQL is on this machine, so its clock is the right one.
async fn a_node_goes_by_the_ledgers_clock_whatever_its_own_says(engine: Engine) {
    let test = TestLedger::new(engine).await;
    let (right, off) = (wall_clock(), Arc::new(AtomicU64::new(HOUR)));
    let own: WallClock = {
        let (right, off) = (right.clone(), off.clone());
        Arc::new(move || right() + off.load(Ordering::SeqCst))
    };
    let clock = test.ledger.clock(own.clone()).await.unwrap().wall();
    for step in [HOUR, 24 * HOUR, 0] {
        off.store(step, Ordering::SeqCst);
        let expected = match engine {
            // It has no other.
            Engine::Sqlite => own(),
            Engine::Postgres => right(),
        };
        let told = clock();
        assert!(
            told.abs_diff(expected) < 1_000,
            "{step}: {told}, not {expected}"
        );
    }
}
