//! Transfers step by step, on SQLite and PostgreSQL: a crash after any step leaves a row that any node finishes, and no unit is lost
//! or made.

use futures_util::future::join_all;
use seckill::{
    lease::RowLease,
    ledger::{OrderLedger, REBUILD, TransferState},
    rebuild::Rebuilder,
};
use stock::{Gate, Moves, Segments};
use testkit::faulty_store::{Fault, Verb};

use crate::support::{
    floor::{Cut, Floor, On, buyer_at},
    ledger::{Engine, on_both_engines},
};

on_both_engines! {
    a_transfer_moves_its_units_once,
    a_crash_after_any_step_is_finished_by_another_node,
    a_transfer_that_the_ledger_lost_under_way_arrives_all_the_same,
    what_left_while_the_ledger_was_away_arrives_though_it_lost_the_row,
    a_young_transfer_is_left_to_its_node,
    a_transfer_of_nothing_is_cancelled,
    a_rebuild_keeps_the_moves_that_the_ledger_lost,
    a_rebuild_takes_no_called_off_move_for_one_that_was_lost,
    a_transfer_that_a_rebuild_called_off_moves_nothing,
    nodes_that_finish_together_move_once,
    one_transfer_of_a_sku_at_a_time_over_all_nodes,
    a_mark_tells_of_every_transfer,
    a_stuck_transfer_holds_up_its_own_pair_only,
}

const THREE: Cut = Cut {
    segments: 3,
    stock: 30,
    buyer_limit: 3,
    carts: false,
};

async fn floor(engine: Engine) -> Floor {
    Floor::open(On::Embedded, engine, THREE).await
}

async fn state(ledger: &OrderLedger, id: &str) -> TransferState {
    ledger.transfer(id).await.unwrap().unwrap().state
}

// Broke: the units had left their segment, the row was gone with a ledger that went back, and nobody ever brought them.
async fn a_transfer_that_the_ledger_lost_under_way_arrives_all_the_same(engine: Engine) {
    for state_before in ["pending", "moving"] {
        let floor = floor(engine).await;
        let transfers = floor.transfers();
        let begun = transfers.begin(&floor.segment(0), 2, 4).await;
        let mut transfer = begun.unwrap().unwrap();
        if state_before == "moving" {
            let (store, id) = (&floor.store, &transfer.id);
            store.withdraw(&floor.segment(0), id, 4).await.unwrap();
            assert!(floor.ledger.transfer_taken(id, 4).await.unwrap());
            transfer.state = TransferState::Moving;
        }
        let lose = sqlx::query("DELETE FROM sale_transfers");
        lose.execute(floor.ledger.pool()).await.unwrap();
        let arrived = transfers.finish(transfer.clone()).await.unwrap();
        assert_eq!(arrived.units, Some(4), "{state_before}");
        assert_eq!(floor.available().await, [6, 10, 14]);
        // A rebuild of either segment goes by the row.
        let written = floor.ledger.transfer(&transfer.id).await.unwrap().unwrap();
        assert_eq!((written.state, written.units), (TransferState::Done, 4));
        floor.holds(30).await;
    }
}

// Broke (chaos seed 2070): the ledger went away while the units were under way, came back without the row, and nobody knew of them.
async fn what_left_while_the_ledger_was_away_arrives_though_it_lost_the_row(engine: Engine) {
    let floor = floor(engine).await;
    let transfers = floor.transfers();
    let begun = transfers.begin(&floor.segment(0), 2, 4).await;
    let transfer = begun.unwrap().unwrap();
    let say = async |statement: &'static str| {
        let said = sqlx::query(statement).execute(floor.ledger.pool()).await;
        said.unwrap();
    };
    say("ALTER TABLE sale_transfers RENAME TO away").await;
    assert!(transfers.finish(transfer.clone()).await.is_err());
    assert_eq!(floor.available().await, [6, 10, 10], "they have left");
    say("ALTER TABLE away RENAME TO sale_transfers").await;
    say("DELETE FROM sale_transfers").await;
    assert_eq!(transfers.sweep().await.unwrap(), 1);
    assert_eq!(floor.available().await, [6, 10, 14]);
    let written = floor.ledger.transfer(&transfer.id).await.unwrap().unwrap();
    assert_eq!((written.state, written.units), (TransferState::Done, 4));
    assert_eq!(transfers.sweep().await.unwrap(), 0);
    floor.holds(30).await;
}

fn rebuilder(floor: &Floor) -> Rebuilder {
    let lease = RowLease::new(
        REBUILD,
        floor.ledger.clone(),
        floor.clock(),
        "tests".to_owned(),
    );
    let (store, ledger) = (floor.store.clone(), floor.ledger.clone());
    Rebuilder::new(store, ledger, floor.clock(), Box::new(lease))
}

// Broke: a ledger that went back had lost a move that had ended. The segment that had got the units had more orders than the rebuild
// gave it units for, and was never whole again; the one that had given them got them back, and sold them twice.
async fn a_rebuild_keeps_the_moves_that_the_ledger_lost(engine: Engine) {
    let floor = floor(engine).await;
    let transfers = floor.transfers();
    let begun = transfers.begin(&floor.segment(0), 2, 4).await;
    transfers.finish(begun.unwrap().unwrap()).await.unwrap();
    for n in 0..4 {
        floor.take(&buyer_at(2, 3, n), "r", 3).await;
    }
    assert_eq!(floor.available().await, [6, 10, 2]);
    let lose = sqlx::query("DELETE FROM sale_transfers");
    lose.execute(floor.ledger.pool()).await.unwrap();
    let all = [0, 1, 2].map(|at| floor.segment(at));
    let mut rebuilder = rebuilder(&floor);
    // The second time it is the ledger that knows.
    for _ in 0..2 {
        for segment in [&all[0], &all[2]] {
            floor.store.set_gate(segment, Gate::Frozen).await.unwrap();
        }
        assert_eq!(rebuilder.look(&all).await.unwrap(), 2);
        assert_eq!(floor.available().await, [6, 10, 2]);
    }
    floor.holds(30).await;
}

async fn a_rebuild_takes_no_called_off_move_for_one_that_was_lost(engine: Engine) {
    let floor = floor(engine).await;
    let begun = floor.transfers().begin(&floor.segment(0), 2, 4).await;
    let id = begun.unwrap().unwrap().id;
    let source = floor.segment(0);
    floor.store.withdraw(&source, &id, 4).await.unwrap();
    floor.store.set_gate(&source, Gate::Frozen).await.unwrap();
    assert_eq!(rebuilder(&floor).look(&[source]).await.unwrap(), 1);
    assert_eq!(floor.available().await, [10, 10, 10]);
    floor.holds(30).await;
}

async fn a_transfer_moves_its_units_once(engine: Engine) {
    let floor = floor(engine).await;
    let transfers = floor.transfers();
    let begun = transfers.begin(&floor.segment(0), 2, 4).await;
    let transfer = begun.unwrap().unwrap();
    for expected in [Some(4), Some(4)] {
        // The second node has read the row before the first was done.
        let arrived = transfers.finish(transfer.clone()).await.unwrap();
        if floor.ledger.open_transfers().await.unwrap().is_empty() && arrived.units.is_none() {
            continue;
        }
        assert_eq!(arrived.units, expected);
    }
    assert_eq!(floor.available().await, [6, 10, 14]);
    assert_eq!(
        state(&floor.ledger, &transfer.id).await,
        TransferState::Done
    );
    floor.holds(30).await;
}

async fn a_crash_after_any_step_is_finished_by_another_node(engine: Engine) {
    let floor = floor(engine).await;
    let crashes = [
        // After the row was written.
        (Verb::Withdraw, Fault::Before, TransferState::Pending),
        // After the units were taken, before the ledger knows.
        (Verb::Withdraw, Fault::After, TransferState::Pending),
        // After the ledger knows that they were taken.
        (Verb::Restock, Fault::Before, TransferState::Moving),
        // After they arrived, before the ledger knows.
        (Verb::Restock, Fault::After, TransferState::Moving),
    ];
    for (step, (verb, fault, left)) in (1_u64..).zip(crashes) {
        let first = floor.transfers();
        let transfer = first.begin(&floor.segment(0), 1, 2).await.unwrap().unwrap();
        floor.store.fail_next(verb, fault);
        assert!(first.finish(transfer.clone()).await.is_err());
        assert_eq!(state(&floor.ledger, &transfer.id).await, left);
        let second = floor.transfers();
        floor.advance(5_000);
        assert_eq!(second.sweep().await.unwrap(), 1, "{verb:?} {fault:?}");
        assert_eq!(second.sweep().await.unwrap(), 0);
        assert_eq!(
            state(&floor.ledger, &transfer.id).await,
            TransferState::Done
        );
        assert_eq!(floor.available().await, [10 - 2 * step, 10 + 2 * step, 10]);
        floor.holds(30).await;
        // The first node wakes up again and goes on from where it stood.
        first.finish(transfer).await.unwrap();
        floor.holds(30).await;
    }
}

async fn a_young_transfer_is_left_to_its_node(engine: Engine) {
    let floor = floor(engine).await;
    let transfers = floor.transfers();
    let begun = transfers.begin(&floor.segment(0), 1, 2).await.unwrap();
    assert_eq!(transfers.sweep().await.unwrap(), 0);
    assert_eq!(
        state(&floor.ledger, &begun.unwrap().id).await,
        TransferState::Pending
    );
}

async fn a_transfer_of_nothing_is_cancelled(engine: Engine) {
    let floor = floor(engine).await;
    let transfers = floor.transfers();
    for n in 0..5 {
        floor.take(&buyer_at(0, 3, n), "r", 2).await;
    }
    let begun = transfers.begin(&floor.segment(0), 1, 2).await;
    let transfer = begun.unwrap().unwrap();
    let arrived = transfers.finish(transfer.clone()).await.unwrap();
    assert_eq!((arrived.units, arrived.destination), (Some(0), None));
    assert_eq!(
        state(&floor.ledger, &transfer.id).await,
        TransferState::Cancelled
    );
    // The next one may begin.
    let next = transfers.begin(&floor.segment(1), 0, 2).await.unwrap();
    transfers.finish(next.unwrap()).await.unwrap();
    floor.holds(30).await;
}

async fn a_transfer_that_a_rebuild_called_off_moves_nothing(engine: Engine) {
    let floor = floor(engine).await;
    let transfers = floor.transfers();
    let begun = transfers.begin(&floor.segment(0), 1, 2).await;
    let transfer = begun.unwrap().unwrap();
    assert!(floor.ledger.cancel_transfer(&transfer.id).await.unwrap());
    // What the source gave is in nobody's books any more: the rebuild that called it off has counted it as never taken.
    let arrived = transfers.finish(transfer.clone()).await.unwrap();
    assert_eq!(arrived.units, None);
    assert_eq!(
        floor
            .store
            .snapshot(&floor.segment(1))
            .await
            .unwrap()
            .available,
        10
    );
    assert!(!floor.ledger.transfer_taken(&transfer.id, 2).await.unwrap());
}

async fn nodes_that_finish_together_move_once(engine: Engine) {
    let floor = floor(engine).await;
    let begun = floor.transfers().begin(&floor.segment(0), 1, 5).await;
    let transfer = begun.unwrap().unwrap();
    let nodes = (0..8).map(|_| {
        let (transfers, transfer) = (floor.transfers(), transfer.clone());
        async move { transfers.finish(transfer).await.unwrap() }
    });
    join_all(nodes).await;
    assert_eq!(floor.available().await, [5, 15, 10]);
    floor.holds(30).await;
}

// The single flight of a node is a convenience; this is what makes it safe.
async fn one_transfer_of_a_sku_at_a_time_over_all_nodes(engine: Engine) {
    let floor = floor(engine).await;
    let nodes = (0..8).map(|n| {
        let (transfers, source) = (floor.transfers(), floor.segment(n % 3));
        async move { transfers.begin(&source, (n + 1) % 3, 1).await.unwrap() }
    });
    let begun: Vec<_> = join_all(nodes).await.into_iter().flatten().collect();
    assert_eq!(begun.len(), 1);
    let open = floor.ledger.open_transfers().await.unwrap();
    assert_eq!(open, begun);
}

async fn a_mark_tells_of_every_transfer(engine: Engine) {
    let floor = floor(engine).await;
    let (sale, sku) = (floor.sale.id.clone(), floor.sku());
    let mark = async || floor.ledger.transfer_mark(&sale, &sku).await.unwrap();
    let before = mark().await;
    assert_eq!((before.begun, before.is_open()), (0, false));
    let transfers = floor.transfers();
    let begun = transfers.begin(&floor.segment(0), 1, 5).await;
    let transfer = begun.unwrap().unwrap();
    assert_eq!(mark().await.open, Some(transfer.clone()));
    transfers.finish(transfer).await.unwrap();
    let after = mark().await;
    assert_eq!((after.begun, after.is_open()), (1, false));
    assert_ne!(before, after);
}

async fn a_stuck_transfer_holds_up_its_own_pair_only(engine: Engine) {
    let floor = floor(engine).await;
    let (sale, sku) = (floor.sale.id.clone(), floor.sku());
    let (first, second) = (floor.transfers(), floor.transfers());
    let (giver, other) = (floor.segment(0), floor.segment(2));
    let transfer = first.begin(&giver, 1, 4).await.unwrap().unwrap();
    assert_eq!(
        second.begin(&other, 1, 1).await.unwrap(),
        None,
        "one at a time"
    );
    floor.store.fail_next(Verb::Withdraw, Fault::After);
    floor.advance(5_000);
    assert_eq!(second.sweep().await.unwrap(), 0);
    let mark = floor.ledger.transfer_mark(&sale, &sku).await.unwrap();
    assert!(
        mark.is_open() && mark.open.is_none() && mark.is_stuck(0, 1),
        "{mark:?}"
    );
    assert_eq!(
        first.begin(&giver, 1, 1).await.unwrap(),
        None,
        "the pair waits"
    );
    for (source, destination) in [(2, 1), (1, 0), (0, 2)] {
        let begun = second.begin(&floor.segment(source), destination, 1).await;
        let moved = second.finish(begun.unwrap().unwrap()).await.unwrap();
        assert_eq!(moved.units, Some(1), "{source} to {destination}");
    }
    // Its units are with nobody; nothing was lost or made.
    assert_eq!(floor.available().await, [6, 10, 10]);
    assert_eq!(second.sweep().await.unwrap(), 1);
    assert_eq!(
        state(&floor.ledger, &transfer.id).await,
        TransferState::Done
    );
    assert_eq!(floor.available().await, [6, 14, 10]);
    let mark = floor.ledger.transfer_mark(&sale, &sku).await.unwrap();
    assert!(!mark.is_open() && mark.begun == 4, "{mark:?}");
    let again = first.begin(&giver, 1, 1).await.unwrap().unwrap();
    first.finish(again).await.unwrap();
    floor.holds(30).await;
}
