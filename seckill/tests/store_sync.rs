//! StoreSync, reaper and reconciliation between a store whose faults the test chooses and a real ledger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use seckill::{
    ids::{SegmentId, SkuId},
    reaper,
    reconcile::{Finding, Invariant},
    store_sync::{StoreSync, StoreSyncError},
};
use stock::{OrderQueue, OrderState, Segments, Selling};
use tokio_util::sync::CancellationToken;

use crate::support::{
    bench::Bench,
    ledger::{
        Engine, PAY_WITHIN_MS, T0, eventually, on_both_engines, order, order_id, sale, segment,
    },
    memory_store::MemoryStore,
};

on_both_engines! {
    effects_are_applied_once_and_told,
    one_segment_without_answer_does_not_hold_up_the_others,
    an_unpaid_order_is_back_on_sale_after_the_sweep,
    a_sound_sale_has_no_findings,
    planted_faults_are_found_each_under_its_name,
}

async fn effects_are_applied_once_and_told(engine: Engine) {
    let bench = Bench::new(engine, 10).await;
    let orders: Vec<_> = (0..3).map(|n| order(n, 1)).collect();
    for order in &orders {
        bench.store.accept(&segment(), order.clone());
    }
    bench.test.settle_new(0, 3).await;
    bench
        .test
        .ledger
        .cancel(order_id(0), &orders[0].buyer, T0)
        .await
        .unwrap();
    bench.pay(1).await;
    let (effects, told) = bench.effects();

    bench.store.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(
        effects.apply_pending().await,
        Err(StoreSyncError::Store { .. })
    ));
    assert_eq!(
        bench
            .test
            .ledger
            .effects(&segment(), 10)
            .await
            .unwrap()
            .len(),
        2
    );
    bench.store.is_down.store(false, Ordering::SeqCst);

    // The store has heard of one already, from a node that died before it could remove the row.
    bench
        .store
        .release_many(&segment(), &[order_id(0)])
        .await
        .unwrap();
    assert_eq!(effects.apply_pending().await.unwrap(), 2);
    assert_eq!(effects.apply_pending().await.unwrap(), 0);
    assert_eq!(*told.lock().unwrap(), [segment()]);
    let snapshot = bench.store.snapshot(&segment()).await.unwrap();
    assert_eq!(
        (snapshot.available, snapshot.reserved, snapshot.sold),
        (8, 1, 1)
    );
}

async fn one_segment_without_answer_does_not_hold_up_the_others(engine: Engine) {
    let bench = Bench::new(engine, 10).await;
    let boot = SegmentId::first(segment().sale, SkuId::try_new("boot").unwrap());
    bench.test.settle_new(1, 1).await;
    bench
        .test
        .ledger
        .settle(&boot, 1, &[order(2, 1)], T0)
        .await
        .unwrap();
    assert_eq!(
        reaper::sweep(&bench.test.ledger, T0 + 2 * PAY_WITHIN_MS)
            .await
            .unwrap(),
        2
    );
    // This store knows shoes only.
    let store = MemoryStore::new(bench.test.clock());
    store.open(&sale(10).segment_specs()[0]).await.unwrap();
    store.accept(&segment(), order(1, 1));
    let ledger = bench.test.ledger.clone();
    let effects = StoreSync::new(
        store.clone(),
        ledger,
        bench.violations.clone(),
        Arc::new(|_| Box::pin(async {})),
    );
    let error = effects.apply_pending().await.unwrap_err();
    assert!(matches!(error, StoreSyncError::Store { segment, .. } if segment == boot));
    assert_eq!(store.snapshot(&segment()).await.unwrap().reserved, 0);
    assert_eq!(
        bench.test.ledger.segments_with_effects().await.unwrap(),
        [boot]
    );
}

async fn an_unpaid_order_is_back_on_sale_after_the_sweep(engine: Engine) {
    let bench = Bench::new(engine, 600).await;
    let orders: Vec<_> = (0..600).map(|n| order(n, 1)).collect();
    for order in &orders {
        bench.store.accept(&segment(), order.clone());
    }
    for batch in orders.chunks(256) {
        bench
            .test
            .ledger
            .settle(&segment(), 1, batch, T0)
            .await
            .unwrap();
    }
    bench.pay(7).await;
    bench.test.advance(2 * PAY_WITHIN_MS);
    assert_eq!(
        reaper::sweep(&bench.test.ledger, bench.test.now_ms())
            .await
            .unwrap(),
        599
    );
    assert_eq!(
        reaper::sweep(&bench.test.ledger, bench.test.now_ms())
            .await
            .unwrap(),
        0
    );

    let (effects, told) = bench.effects();
    let shutdown = CancellationToken::new();
    let applying = tokio::spawn(effects.run(shutdown.clone()));
    eventually("all effects are applied", async || {
        bench
            .test
            .ledger
            .segments_with_effects()
            .await
            .unwrap()
            .is_empty()
    })
    .await;
    shutdown.cancel();
    applying.await.unwrap();
    let snapshot = bench.store.snapshot(&segment()).await.unwrap();
    assert_eq!(
        (snapshot.available, snapshot.reserved, snapshot.sold),
        (599, 0, 1)
    );
    assert!(!told.lock().unwrap().is_empty());
}

async fn a_sound_sale_has_no_findings(engine: Engine) {
    let bench = Bench::new(engine, 50).await;
    let looks_sound = Arc::new(AtomicBool::new(true));
    let running = bench.start();
    // While it runs: whatever instant the reconciler looks at, it finds nothing.
    for n in 0..50 {
        bench.store.accept(&segment(), order(n, 1));
        bench.accepted.ring(&segment());
        if !bench.findings_while_running(50).await.is_empty() {
            looks_sound.store(false, Ordering::SeqCst);
        }
    }
    bench.queue_is_empty().await;
    running.stop().await;
    assert!(looks_sound.load(Ordering::SeqCst));
    bench.pay(1).await;
    bench.test.advance(2 * PAY_WITHIN_MS);
    reaper::sweep(&bench.test.ledger, bench.test.now_ms())
        .await
        .unwrap();
    assert_eq!(bench.findings(50).await, []);
    bench.effects().0.apply_pending().await.unwrap();
    assert_eq!(bench.findings(50).await, []);
}

async fn planted_faults_are_found_each_under_its_name(engine: Engine) {
    let named = |findings: Vec<Finding>| {
        let mut names: Vec<Invariant> = findings.iter().map(|finding| finding.invariant).collect();
        names.dedup();
        names
    };
    let settled = async || {
        let bench = Bench::new(engine, 10).await;
        for n in 0..4 {
            bench.store.accept(&segment(), order(n, 1));
        }
        let taken = bench
            .store
            .pull(&segment(), "test", 10, Duration::ZERO)
            .await
            .unwrap();
        let positions: Vec<_> = taken.iter().map(|entry| entry.position).collect();
        bench.store.ack(&segment(), &positions).await.unwrap();
        bench.test.settle_new(0, 4).await;
        assert_eq!(bench.findings(10).await, []);
        bench
    };
    let sql = async |bench: &Bench, statement: &'static str| {
        sqlx::query(statement)
            .execute(bench.test.ledger.pool())
            .await
            .unwrap();
    };

    // A unit vanished from the store.
    let bench = settled().await;
    bench
        .store
        .corrupt(&segment(), |snapshot| snapshot.available -= 1);
    assert_eq!(named(bench.findings(10).await), [Invariant::Stock2]);

    // The store sold more than there is.
    let bench = settled().await;
    bench
        .store
        .corrupt(&segment(), |snapshot| snapshot.reserved = 11);
    assert!(named(bench.findings(10).await).contains(&Invariant::Stock1));

    // An acknowledged order is nowhere.
    let bench = settled().await;
    bench
        .store
        .corrupt(&segment(), |snapshot| snapshot.accepted += 1);
    assert_eq!(named(bench.findings(10).await), [Invariant::Order3]);

    // An order without a deduction.
    let bench = settled().await;
    bench.test.settle_new(8, 1).await;
    assert_eq!(named(bench.findings(10).await), [Invariant::Order2]);

    // The ledger's counter and its orders disagree.
    let bench = settled().await;
    sql(
        &bench,
        "UPDATE sale_skus SET sold = sold + 1 WHERE sku = 'shoe'",
    )
    .await;
    assert_eq!(named(bench.findings(10).await), [Invariant::Order2]);

    // One buyer has three, the limit is two; and an order from before the start.
    let bench = settled().await;
    sql(
        &bench,
        "UPDATE order_orders SET buyer = 'buyer-0' WHERE request_id <> 'request-3'",
    )
    .await;
    assert_eq!(named(bench.findings(10).await), [Invariant::Buyer1]);
    sql(
        &bench,
        "UPDATE order_orders SET created_at_ms = 1 WHERE request_id = 'request-3'",
    )
    .await;
    assert_eq!(
        named(bench.findings(10).await),
        [Invariant::Window1, Invariant::Buyer1]
    );

    // Paid in the ledger, given back in the store.
    let bench = settled().await;
    bench
        .store
        .release_many(&segment(), &[order_id(1)])
        .await
        .unwrap();
    bench.pay(1).await;
    bench.effects().0.apply_pending().await.unwrap();
    assert_eq!(named(bench.findings(10).await), [Invariant::Order2]);
    let found = bench
        .store
        .find(&segment(), &stock::Lookup::Order(order_id(1)))
        .await
        .unwrap();
    assert_eq!(found.unwrap().state, OrderState::Released);
}
