//! Settlement, effects, reaper and reconciliation between a store whose faults the test chooses and a real ledger.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use seckill::{
    effects::{Effects, EffectsError},
    ids::{SegmentId, SkuId},
    ledger::{OrderLedger, OrderStatus},
    reaper,
    reconcile::{Finding, Invariant, Reconciler, Violations},
    settlement::{Backoff, Parts, Settlement, SettlementConfig},
    store::{OrderState, StockStore},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::support::{
    ledger::{
        Engine, PAY_WITHIN_MS, T0, TestLedger, eventually, on_both_engines, order, order_id, sale,
        segment,
    },
    memory_store::MemoryStore,
};

on_both_engines! {
    accepted_orders_reach_the_ledger_and_leave_the_queue,
    nothing_is_acknowledged_before_the_ledger_has_it,
    a_batch_in_hand_survives_a_store_that_cannot_acknowledge,
    the_entries_of_a_dead_consumer_are_taken_over,
    an_unreadable_entry_is_set_aside_and_stops_nobody,
    an_order_the_ledger_refuses_is_set_aside_in_the_end,
    an_over_admitted_order_is_refused_and_its_units_go_back,
    a_segment_that_appears_later_gets_its_worker,
    a_worker_that_dies_is_replaced,
    effects_are_applied_once_and_told,
    one_segment_without_answer_does_not_hold_up_the_others,
    an_unpaid_order_is_back_on_sale_after_the_sweep,
    a_sound_sale_has_no_findings,
    planted_faults_are_found_each_under_its_name,
}

const RECLAIM_MS: u64 = 30_000;

struct Bench {
    test: TestLedger,
    store: Arc<MemoryStore>,
    accepted: Arc<Notify>,
    violations: Violations,
}

struct Running {
    settlement: Settlement,
    shutdown: CancellationToken,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.settlement.stopped().await;
    }
}

impl Bench {
    async fn new(engine: Engine, stock: u64) -> Self {
        let test = TestLedger::with_sale(engine, stock).await;
        let store = MemoryStore::new(test.clock());
        for spec in sale(stock).segment_specs() {
            store.open(&spec).await.unwrap();
        }
        Self {
            test,
            store,
            accepted: Arc::default(),
            violations: Violations::new(),
        }
    }

    fn start_with(
        &self,
        ledger: OrderLedger,
        segments: watch::Receiver<Vec<SegmentId>>,
    ) -> Running {
        let config = SettlementConfig {
            batch: 16,
            poll: Duration::from_millis(20),
            reclaim_after: Duration::from_millis(RECLAIM_MS),
            max_deliveries: 3,
            backoff: Backoff {
                first: Duration::from_millis(5),
                max: Duration::from_millis(20),
            },
            ..SettlementConfig::new("node-1")
        };
        let parts = Parts {
            store: self.store.clone(),
            ledger,
            clock: self.test.clock(),
            accepted: self.accepted.clone(),
            violations: self.violations.clone(),
            config,
        };
        let shutdown = CancellationToken::new();
        Running {
            settlement: Settlement::start(parts, segments, shutdown.clone()),
            shutdown,
        }
    }

    fn start(&self) -> Running {
        self.start_with(self.test.ledger.clone(), watch::channel(vec![segment()]).1)
    }

    fn effects(&self) -> (Effects, Arc<Mutex<Vec<SegmentId>>>) {
        let told: Arc<Mutex<Vec<SegmentId>>> = Arc::default();
        let listener = {
            let told = told.clone();
            Arc::new(
                move |segment| -> futures_util::future::BoxFuture<'static, ()> {
                    told.lock().unwrap().push(segment);
                    Box::pin(async {})
                },
            )
        };
        (
            Effects::new(
                self.store.clone(),
                self.test.ledger.clone(),
                self.violations.clone(),
                listener,
            ),
            told,
        )
    }

    async fn depth(&self) -> u64 {
        self.store.depth(&segment()).await.unwrap().entries
    }

    async fn queue_is_empty(&self) {
        eventually("the queue is empty", async || self.depth().await == 0).await;
    }

    async fn pay(&self, n: u64) {
        let ledger = &self.test.ledger;
        let mut tx = ledger.pool().begin().await.unwrap();
        ledger
            .mark_paid(&mut tx, order_id(n), "pi_1", self.test.now_ms())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn findings(&self, stock: u64) -> Vec<Finding> {
        let reconciler = Reconciler::new(
            self.store.clone(),
            self.test.ledger.clone(),
            self.violations.clone(),
        );
        let found = reconciler.run(&sale(stock)).await.unwrap();
        assert_eq!(
            reconciler.run(&sale(stock)).await.unwrap(),
            found,
            "a second run finds the same"
        );
        found
    }
}

async fn accepted_orders_reach_the_ledger_and_leave_the_queue(engine: Engine) {
    let bench = Bench::new(engine, 100).await;
    let running = bench.start();
    for n in 0..50 {
        bench.store.accept(&segment(), order(n, 1));
        bench.accepted.notify_waiters();
    }
    bench.queue_is_empty().await;
    running.stop().await;
    let line = bench.test.shoe().await;
    assert_eq!((line.sold, line.orders), (50, 50));
    assert_eq!(bench.findings(100).await, []);
}

async fn nothing_is_acknowledged_before_the_ledger_has_it(engine: Engine) {
    let bench = Bench::new(engine, 100).await;
    for n in 0..20 {
        bench.store.accept(&segment(), order(n, 1));
    }
    // A ledger that cannot be reached, and a node that is stopped while it waits for it.
    let broken = TestLedger::new(engine).await;
    broken.ledger.pool().close().await;
    let running = bench.start_with(broken.ledger.clone(), watch::channel(vec![segment()]).1);
    eventually("some entries were handed out", async || {
        let pulled = bench
            .store
            .pull(&segment(), "probe", 100, Duration::from_millis(RECLAIM_MS))
            .await
            .unwrap();
        pulled.len() < 20
    })
    .await;
    running.stop().await;
    assert_eq!(bench.depth().await, 20);

    bench.test.advance(RECLAIM_MS);
    let running = bench.start();
    bench.queue_is_empty().await;
    running.stop().await;
    assert_eq!(bench.test.shoe().await.sold, 20);
}

async fn a_batch_in_hand_survives_a_store_that_cannot_acknowledge(engine: Engine) {
    let bench = Bench::new(engine, 100).await;
    for n in 0..5 {
        bench.store.accept(&segment(), order(n, 1));
    }
    // Settled, but the acknowledgement was lost with the node: the next node's batch is all duplicates.
    let batch: Vec<_> = (0..5).map(|n| order(n, 1)).collect();
    bench
        .test
        .ledger
        .settle(&segment(), &batch, T0)
        .await
        .unwrap();
    bench.store.is_down.store(true, Ordering::SeqCst);
    let running = bench.start();
    tokio::task::yield_now().await;
    bench.store.is_down.store(false, Ordering::SeqCst);
    bench.queue_is_empty().await;
    running.stop().await;
    let line = bench.test.shoe().await;
    assert_eq!((line.sold, line.orders), (5, 5));
}

async fn the_entries_of_a_dead_consumer_are_taken_over(engine: Engine) {
    let bench = Bench::new(engine, 100).await;
    for n in 0..5 {
        bench.store.accept(&segment(), order(n, 1));
    }
    let taken = bench
        .store
        .pull(&segment(), "dead", 3, Duration::from_millis(RECLAIM_MS))
        .await
        .unwrap();
    assert_eq!(taken.len(), 3);
    let running = bench.start();
    eventually("only the dead consumer's entries are left", async || {
        bench.depth().await == 3
    })
    .await;
    bench.test.advance(RECLAIM_MS);
    bench.queue_is_empty().await;
    running.stop().await;
    assert_eq!(bench.test.shoe().await.sold, 5);
}

async fn an_unreadable_entry_is_set_aside_and_stops_nobody(engine: Engine) {
    let bench = Bench::new(engine, 100).await;
    bench.store.accept(&segment(), order(1, 1));
    bench.store.poison(&segment());
    bench.store.accept(&segment(), order(2, 1));
    let running = bench.start();
    bench.queue_is_empty().await;
    running.stop().await;
    let line = bench.test.shoe().await;
    assert_eq!((line.sold, line.dead_letters), (2, 1));
    let letters = bench
        .test
        .ledger
        .dead_letters(&segment().sale, 10)
        .await
        .unwrap();
    assert_eq!(
        (letters[0].position.as_str(), letters[0].raw.as_str()),
        ("2-0", "not an order\u{fffd}")
    );
}

async fn an_order_the_ledger_refuses_is_set_aside_in_the_end(engine: Engine) {
    let bench = Bench::new(engine, 100).await;
    // The store has a sku that the ledger never heard of.
    let stray = SegmentId::first(segment().sale, SkuId::try_new("stray").unwrap());
    let spec = seckill::store::SegmentSpec {
        id: stray.clone(),
        ..sale(1).segment_specs().remove(0)
    };
    bench.store.open(&spec).await.unwrap();
    bench.store.accept(&stray, order(1, 1));
    bench.store.accept(&segment(), order(2, 1));
    let running = bench.start_with(
        bench.test.ledger.clone(),
        watch::channel(vec![stray.clone(), segment()]).1,
    );
    bench.queue_is_empty().await;
    eventually("the stray order is set aside", async || {
        bench.test.advance(RECLAIM_MS);
        bench.store.depth(&stray).await.unwrap().entries == 0
    })
    .await;
    running.stop().await;
    let report = bench
        .test
        .ledger
        .report(&segment().sale)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((report.dead_letters, report.settled), (1, 1));
}

async fn an_over_admitted_order_is_refused_and_its_units_go_back(engine: Engine) {
    let bench = Bench::new(engine, 3).await;
    for n in 0..5 {
        bench.store.accept(&segment(), order(n, 1));
    }
    let running = bench.start();
    bench.queue_is_empty().await;
    running.stop().await;
    let line = bench.test.shoe().await;
    assert_eq!((line.sold, line.orders), (3, 5));
    let (effects, _) = bench.effects();
    assert_eq!(effects.apply_pending().await.unwrap(), 2);
    assert_eq!(bench.store.snapshot(&segment()).await.unwrap().reserved, 3);
    for n in 3..5 {
        let refused = bench.test.ledger.order(order_id(n)).await.unwrap().unwrap();
        assert_eq!(refused.status, OrderStatus::Refused);
    }
}

async fn a_segment_that_appears_later_gets_its_worker(engine: Engine) {
    let bench = Bench::new(engine, 10).await;
    let (segments, watching) = watch::channel(Vec::new());
    let running = bench.start_with(bench.test.ledger.clone(), watching);
    bench.store.accept(&segment(), order(1, 1));
    segments.send(vec![segment()]).unwrap();
    bench.queue_is_empty().await;
    running.stop().await;
    assert_eq!(bench.test.shoe().await.sold, 1);
}

async fn a_worker_that_dies_is_replaced(engine: Engine) {
    let bench = Bench::new(engine, 10).await;
    bench.store.panics.store(true, Ordering::SeqCst);
    let running = bench.start();
    bench.store.accept(&segment(), order(1, 1));
    bench.queue_is_empty().await;
    running.stop().await;
    assert_eq!(bench.test.shoe().await.sold, 1);
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
        Err(EffectsError::Store { .. })
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
        .settle(&boot, &[order(2, 1)], T0)
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
    let effects = Effects::new(
        store.clone(),
        ledger,
        bench.violations.clone(),
        Arc::new(|_| Box::pin(async {})),
    );
    let error = effects.apply_pending().await.unwrap_err();
    assert!(matches!(error, EffectsError::Store { segment, .. } if segment == boot));
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
            .settle(&segment(), batch, T0)
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
        bench.accepted.notify_waiters();
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

impl Bench {
    async fn findings_while_running(&self, stock: u64) -> Vec<Finding> {
        let reconciler = Reconciler::new(
            self.store.clone(),
            self.test.ledger.clone(),
            self.violations.clone(),
        );
        reconciler.run(&sale(stock)).await.unwrap()
    }
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
        .find(&segment(), &seckill::store::Lookup::Order(order_id(1)))
        .await
        .unwrap();
    assert_eq!(found.unwrap().state, OrderState::Released);
}
