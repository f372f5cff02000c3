//! A ledger, a store in memory and the workers between them, each at the test's command.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use limiter::backoff::Backoff;
use seckill::{
    bells::Bells,
    ids::SegmentId,
    ledger::OrderLedger,
    reconcile::{Finding, Reconciler, Violations},
    settlement::{Parts, Settlement, SettlementConfig},
    store_sync::StoreSync,
};
use stock::{OrderQueue, Segments};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Engine, TestLedger, eventually, order_id, sale, segment},
    memory_store::MemoryStore,
};

pub const RECLAIM_MS: u64 = 30_000;

pub struct Bench {
    pub test: TestLedger,
    pub store: Arc<MemoryStore>,
    pub accepted: Arc<Bells>,
    pub violations: Violations,
}

pub struct Running {
    pub settlement: Settlement,
    pub shutdown: CancellationToken,
}

impl Running {
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.settlement.stopped().await;
    }
}

impl Bench {
    pub async fn new(engine: Engine, stock: u64) -> Self {
        let test = TestLedger::with_sale(engine, stock).await;
        let store = MemoryStore::new(test.clock());
        for spec in sale(stock).segment_specs() {
            store.open(&spec).await.unwrap();
        }
        Self {
            test,
            store,
            accepted: Arc::default(),
            violations: Violations::default(),
        }
    }

    pub fn start_with(
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

    pub fn start(&self) -> Running {
        self.start_with(self.test.ledger.clone(), watch::channel(vec![segment()]).1)
    }

    pub fn effects(&self) -> (StoreSync, Arc<Mutex<Vec<SegmentId>>>) {
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
            StoreSync::new(
                self.store.clone(),
                self.test.ledger.clone(),
                self.violations.clone(),
                listener,
            ),
            told,
        )
    }

    pub async fn depth(&self) -> u64 {
        self.store.depth(&segment()).await.unwrap().entries
    }

    pub async fn queue_is_empty(&self) {
        eventually("the queue is empty", async || self.depth().await == 0).await;
    }

    pub async fn pay(&self, n: u64) {
        let ledger = &self.test.ledger;
        let mut tx = ledger.pool().begin().await.unwrap();
        ledger
            .mark_paid(&mut tx, order_id(n), "pi_1", self.test.now_ms())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn findings(&self, stock: u64) -> Vec<Finding> {
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

impl Bench {
    pub async fn findings_while_running(&self, stock: u64) -> Vec<Finding> {
        let reconciler = Reconciler::new(
            self.store.clone(),
            self.test.ledger.clone(),
            self.violations.clone(),
        );
        reconciler.run(&sale(stock)).await.unwrap()
    }
}
