//! Whose clock it is that a node decides by.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use seckill::{
    clock::WallClock,
    ledger::{BOOKS, ClockError},
};
use testkit::redis::wall_clock;

use crate::support::ledger::{Engine, TestLedger, on_both_engines};

const HOUR: u64 = 3_600_000;

on_both_engines! {
    a_node_goes_by_the_ledgers_clock_whatever_its_own_says,
    a_start_goes_by_no_clock_that_cannot_be_right,
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

/// Broke: SQLite goes by this machine's clock, and whatever that said at a start was believed: every unpaid order was returned by a clock
/// chip that said 2099.
async fn a_start_goes_by_no_clock_that_cannot_be_right(engine: Engine) {
    let test = TestLedger::new(engine).await;
    let ledger = &test.ledger;
    let now = wall_clock()();
    let year = 365 * 24 * HOUR;
    ledger.check_clock(now, false).await.unwrap();
    ledger
        .check_clock(now + 30 * 24 * HOUR, false)
        .await
        .unwrap();
    ledger.check_clock(now, true).await.unwrap();
    for wrong in [now + 73 * year, now - 8 * HOUR, 0] {
        let checked = ledger.check_clock(wrong, false).await;
        match engine {
            Engine::Sqlite => assert!(matches!(checked, Err(ClockError::Wrong(_)))),
            // It has a clock of its own.
            Engine::Postgres => checked.unwrap(),
        }
    }
    ledger.check_clock(now, false).await.unwrap();

    // A process that died by a wrong clock holds its leases until that time comes.
    let wrong = now + 8 * HOUR;
    let lease = async |owner, now| ledger.take_lease(BOOKS, owner, now, now + 30_000).await;
    assert!(lease("dead", wrong).await.unwrap().is_some());
    if matches!(engine, Engine::Sqlite) {
        ledger.check_clock(now, false).await.unwrap_err();
        ledger.check_clock(now, true).await.unwrap();
        ledger.check_clock(now, false).await.unwrap();
        assert!(lease("new", now).await.unwrap().is_some());
    }
}
