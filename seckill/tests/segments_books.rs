//! The books of a sku in segments: store and ledger agree while units move, and units out of nothing are found.

use futures_util::future::join_all;
use seckill::{
    ledger::Restock,
    reconcile::{Invariant, Reconciler, Violations},
};
use stock::Moves;

use crate::support::{
    floor::{Cut, Floor, On, buyer_at},
    ledger::{Engine, on_both_engines},
};

on_both_engines! {
    units_that_move_while_the_books_are_read_are_no_finding,
    a_restock_that_a_segment_has_twice_is_found,
    the_report_of_transfers_tells_what_is_on_its_way,
}

const THREE: Cut = Cut {
    segments: 3,
    stock: 30,
    buyer_limit: 3,
    carts: false,
};

fn reconciler(floor: &Floor) -> Reconciler {
    Reconciler::new(
        floor.store.clone(),
        floor.ledger.clone(),
        Violations::default(),
    )
}

async fn units_that_move_while_the_books_are_read_are_no_finding(engine: Engine) {
    let floor = Floor::open(On::Embedded, engine, THREE).await;
    let reconciler = reconciler(&floor);
    let moves = async {
        let transfers = floor.transfers();
        for round in 0..60 {
            let (source, destination) = (round % 3, (round + 1) % 3);
            let begun = transfers
                .begin(&floor.segment(source), destination, 3)
                .await;
            transfers.finish(begun.unwrap().unwrap()).await.unwrap();
        }
    };
    let reads = async {
        for _ in 0..60 {
            assert_eq!(reconciler.run(&floor.sale).await.unwrap(), []);
        }
    };
    tokio::join!(moves, reads);
    assert_eq!(reconciler.run(&floor.sale).await.unwrap(), []);
    floor.holds(30).await;
}

async fn a_restock_that_a_segment_has_twice_is_found(engine: Engine) {
    let floor = Floor::open(On::Embedded, engine, THREE).await;
    let reconciler = reconciler(&floor);
    let restock = Restock {
        sku: floor.sku(),
        id: "pallet-7".to_owned(),
        units: 5,
    };
    floor.engine.restock(&floor.sale, &restock).await.unwrap();
    assert_eq!(reconciler.run(&floor.sale).await.unwrap(), []);
    floor
        .store
        .restock(&floor.segment(1), "pallet-7-again", 2)
        .await
        .unwrap();
    let findings = reconciler.run(&floor.sale).await.unwrap();
    let invariants: Vec<_> = findings.iter().map(|one| one.invariant).collect();
    assert_eq!(invariants, [Invariant::Stock2], "{findings:?}");
}

async fn the_report_of_transfers_tells_what_is_on_its_way(engine: Engine) {
    let floor = Floor::open(On::Embedded, engine, THREE).await;
    let buyers = (0..3).map(|home| buyer_at(home, 3, 0));
    join_all(buyers.map(async |buyer| floor.take(&buyer, "r", 2).await)).await;
    let transfers = floor.transfers();
    let begun = transfers.begin(&floor.segment(0), 1, 4).await;
    let transfer = begun.unwrap().unwrap();
    let moving = async || {
        let moving = floor.ledger.units_in_transfer(&floor.sale.id).await;
        moving.unwrap().get(&floor.sku()).copied()
    };
    assert_eq!(moving().await, None);
    let taken = floor
        .store
        .withdraw(&floor.segment(0), &transfer.id, 4)
        .await;
    let taken = taken.unwrap();
    assert!(
        floor
            .ledger
            .transfer_taken(&transfer.id, taken)
            .await
            .unwrap()
    );
    assert_eq!(moving().await, Some(4));
    assert_eq!(floor.counts().await.capacity, 26);
    transfers.finish(transfer).await.unwrap();
    assert_eq!(moving().await, None);
    floor.holds(30).await;
}
