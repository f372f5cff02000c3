//! Random histories of one sale: settlements with repetitions, holds, payments, cancellations, expiries, restocks, in any order.
//! After each step the ledger's counter is the sum of its live orders and within the stock (INV-STOCK-1); at the end store and
//! ledger agree. A failure prints its seed.

use std::sync::Arc;

use rand::{Rng, SeedableRng, rngs::StdRng};
use seckill::{
    ledger::{Restock, Restocked},
    reconcile::{Reconciler, Violations},
    store_sync::StoreSync,
};
use stock::{Moves, OrderQueue, Position, Segments};

use crate::support::{
    ledger::{
        Engine, PAY_WITHIN_MS, TestLedger, on_both_engines, order, order_id, sale, sale_id, segment,
    },
    memory_store::MemoryStore,
};

on_both_engines! {
    random_histories_keep_the_invariants,
}

const STOCK: u64 = 12;
const STEPS: u64 = 60;

async fn random_histories_keep_the_invariants(engine: Engine) {
    for seed in 0..6 {
        println!("seed {seed}");
        history(engine, seed).await;
    }
}

async fn history(engine: Engine, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let test = TestLedger::with_sale(engine, STOCK).await;
    let store = MemoryStore::new(test.clock());
    for spec in sale(STOCK).segment_specs() {
        store.open(&spec).await.unwrap();
    }
    let ledger = &test.ledger;
    let effects = StoreSync::new(
        store.clone(),
        ledger.clone(),
        Violations::default(),
        Arc::new(|_| Box::pin(async {})),
    );
    let mut accepted = 0u64;
    for step in 0..STEPS {
        let n = rng.random_range(0..accepted.max(1));
        let intent = format!("pi_{}", rng.random_range(0..2));
        match rng.random_range(0..8) {
            0 | 1 => {
                // New orders beside repeated ones, now and then more than there is stock for.
                let new = rng.random_range(0..4);
                let first = accepted.saturating_sub(rng.random_range(0..3));
                for n in accepted..accepted + new {
                    store.accept(&segment(), order(n, quantity(n)));
                }
                accepted += new;
                let batch: Vec<_> = (first..accepted).map(|n| order(n, quantity(n))).collect();
                ledger
                    .settle(&segment(), 1, &batch, test.now_ms())
                    .await
                    .unwrap();
            }
            2 => {
                let mut tx = ledger.pool().begin().await.unwrap();
                ledger
                    .hold(&mut tx, order_id(n), &intent, test.now_ms())
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            }
            3 => {
                let mut tx = ledger.pool().begin().await.unwrap();
                ledger
                    .drop_hold(&mut tx, order_id(n), &intent)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            }
            4 => {
                let mut tx = ledger.pool().begin().await.unwrap();
                ledger
                    .mark_paid(&mut tx, order_id(n), &intent, test.now_ms())
                    .await
                    .unwrap();
                if rng.random_bool(0.3) {
                    tx.rollback().await.unwrap();
                } else {
                    tx.commit().await.unwrap();
                }
            }
            5 => {
                ledger
                    .cancel(order_id(n), &order(n, 1).buyer, test.now_ms())
                    .await
                    .unwrap();
            }
            6 => {
                test.advance(rng.random_range(0..PAY_WITHIN_MS / 2));
                ledger.expire_due(test.now_ms(), 3).await.unwrap();
            }
            _ => {
                if rng.random_bool(0.5) {
                    effects.apply_pending().await.unwrap();
                } else {
                    let restock = Restock {
                        sku: segment().sku,
                        id: format!("r{}", step / 20),
                        units: 2,
                    };
                    if ledger
                        .restock(&sale_id(), &restock, test.now_ms())
                        .await
                        .unwrap()
                        == Restocked::Added
                    {
                        store
                            .restock(&segment(), &restock.id, restock.units)
                            .await
                            .unwrap();
                    }
                }
            }
        }
        let line = test.shoe().await;
        assert_eq!(
            line.sold,
            line.reserved_units + line.paid_units,
            "seed {seed} step {step}"
        );
        assert!(
            line.sold <= line.stock + line.restocked,
            "seed {seed} step {step}"
        );
    }
    effects.apply_pending().await.unwrap();
    assert_eq!(
        ledger.segments_with_effects().await.unwrap(),
        [],
        "seed {seed}"
    );
    acknowledge_everything(&store).await;

    let (line, after) = (test.shoe().await, store.snapshot(&segment()).await.unwrap());
    assert_eq!(
        (after.reserved, after.sold),
        (line.reserved_units, line.paid_units),
        "seed {seed}"
    );
    // This store admits anything, so its count of what is left means nothing here.
    let findings = Reconciler::new(store, ledger.clone(), Violations::default())
        .run(&sale(STOCK))
        .await
        .unwrap();
    let names: Vec<_> = findings
        .iter()
        .map(|finding| finding.invariant.as_str())
        .collect();
    assert!(
        names.iter().all(|name| *name == "INV-STOCK-2"),
        "seed {seed}: {findings:?}"
    );
}

fn quantity(n: u64) -> u32 {
    1 + (n % 2) as u32
}

async fn acknowledge_everything(store: &MemoryStore) {
    let entries = store
        .pull(&segment(), "test", usize::MAX, std::time::Duration::ZERO)
        .await
        .unwrap();
    let positions: Vec<Position> = entries.iter().map(|entry| entry.position).collect();
    store.ack(&segment(), &positions).await.unwrap();
}
