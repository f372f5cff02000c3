//! A sale on a store that can lose what it holds, beside a ledger that cannot.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use seckill::{
    clock::WallClock,
    engine::SaleEngine,
    ids::OrderId,
    lease::Lease,
    ledger::{LedgerError, LedgerReport, OrderLedger, REBUILD},
    rebuild::Rebuilder,
    reconcile::Violations,
    sale::Sale,
    store_sync::{StoreSync, StoreSyncError},
};
use stock::{Gate, Purchase, SegmentStatus, StockStore, StoredOrder, Verdict, embedded::WriteMode};
use tempfile::TempDir;
use testkit::{
    embedded::{self, metadata},
    redis,
};

use super::ledger::{Engine, TestLedger, sale, segment};

/// Where the stock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In a folder of this process; the ledger is SQLite.
    Embedded,
    /// In a Redis that keeps nothing over a restart; the ledger is PostgreSQL.
    Redis,
}

/// A sale that can be lost.
pub struct World {
    pub store: Arc<dyn StockStore>,
    pub test: TestLedger,
    pub sale: Sale,
    place: Place,
}

enum Place {
    Embedded(TempDir),
    Redis(redis::Server),
}

impl World {
    /// A sale of `stock` shoes that has begun.
    pub async fn new(kind: Kind, stock: u64) -> Self {
        let engine = match kind {
            Kind::Embedded => Engine::Sqlite,
            Kind::Redis => Engine::Postgres,
        };
        let test = TestLedger::new(engine).await;
        let mut sale = Sale {
            starts_at_ms: 0,
            ends_at_ms: 1 << 47,
            ..sale(stock)
        };
        sale.skus.truncate(1);
        test.ledger.create_sale(&sale, test.now_ms()).await.unwrap();
        let (store, place): (Arc<dyn StockStore>, Place) = match kind {
            Kind::Embedded => {
                let folder = tempfile::tempdir().unwrap();
                let store = embedded::open(folder.path(), WriteMode::Plain);
                (Arc::new(store), Place::Embedded(folder))
            }
            Kind::Redis => {
                let server = redis::Server::start(&[]);
                let store = redis::connect(&server.url()).await;
                (Arc::new(store), Place::Redis(server))
            }
        };
        let world = Self {
            store,
            test,
            sale,
            place,
        };
        world.store.open(&world.spec()).await.unwrap();
        world.ledger().mark_opened(&segment(), 0).await.unwrap();
        world
    }

    fn spec(&self) -> stock::SegmentSpec {
        self.sale.segment_specs().swap_remove(0)
    }

    pub fn ledger(&self) -> &OrderLedger {
        &self.test.ledger
    }

    /// The store comes back without anything it held.
    pub async fn lose(&mut self) {
        match &mut self.place {
            Place::Embedded(folder) => {
                *folder = tempfile::tempdir().unwrap();
                self.store = Arc::new(embedded::open(folder.path(), WriteMode::Plain));
            }
            Place::Redis(server) => {
                server.kill();
                server.restart();
                redis::insist(async || {
                    self.store
                        .depth(&segment())
                        .await
                        .map(drop)
                        .or_else(is_not_open)
                })
                .await;
            }
        }
    }

    /// One unit for a buyer of that number, under the epoch of now; even ones bring metadata.
    pub async fn buy(&self, buyer: u64) -> Verdict {
        let epoch = self.counts().await.epoch;
        let purchase = Purchase {
            order: OrderId::new(self.test.now_ms(), segment().tag(), buyer),
            buyer: format!("buyer-{buyer}").parse().unwrap(),
            request: "r1".parse().unwrap(),
            fingerprint: 7,
            quantity: 1,
            metadata: buyer
                .is_multiple_of(2)
                .then(|| metadata(&format!("cart {buyer}"))),
        };
        let verdicts = self.store.buy_many(&segment(), epoch, vec![purchase]).await;
        verdicts.unwrap().swap_remove(0)
    }

    /// The same, where nothing speaks against it.
    pub async fn take(&self, buyer: u64) -> StoredOrder {
        match self.buy(buyer).await {
            Verdict::Accepted { order, .. } => order,
            refused => panic!("buyer {buyer}: {refused:?}"),
        }
    }

    /// Settles and acknowledges up to `max` entries of the queue, as a worker would.
    pub async fn settle(&self, max: usize) {
        let wait = Duration::ZERO;
        let entries = self.store.pull(&segment(), "c1", max, wait).await.unwrap();
        for entry in entries {
            let order = [entry.order.unwrap()];
            self.ledger()
                .settle(&segment(), entry.epoch, &order, 1)
                .await
                .unwrap();
            self.store.ack(&segment(), &[entry.position]).await.unwrap();
        }
    }

    pub async fn counts(&self) -> SegmentStatus {
        self.store.snapshot(&segment()).await.unwrap()
    }

    pub async fn report(&self) -> LedgerReport {
        self.ledger().report(&self.sale.id).await.unwrap().unwrap()
    }

    /// A node's engine over this store and ledger, with a clock of its own.
    pub async fn engine(&self, clock: WallClock) -> Arc<SaleEngine> {
        let (store, ledger) = (self.store.clone(), self.ledger().clone());
        let patience = Duration::from_secs(5);
        let engine = SaleEngine::start(store, ledger, clock, patience, Arc::default());
        let engine = engine.await.unwrap();
        engine.refresh().await.unwrap();
        engine
    }

    /// What the ledger has decided reaches the store, as far as the store lets it.
    pub async fn apply_effects(&self) -> Result<usize, StoreSyncError> {
        let nobody = |_| -> BoxFuture<'static, ()> { Box::pin(async {}) };
        let (store, ledger) = (self.store.clone(), self.ledger().clone());
        let effects = StoreSync::new(store, ledger, Violations::default(), Arc::new(nobody));
        effects.apply_pending().await
    }

    /// The payment side has the money of an order.
    pub async fn pay(&self, order: OrderId) {
        let mut tx = self.ledger().pool().begin().await.unwrap();
        let paid = self.ledger().mark_paid(&mut tx, order, "pi_1", 1);
        paid.await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A watch of its own, that may rebuild as long as its lease says so.
    pub async fn rebuilder(&self, holds: usize) -> Rebuilder {
        let token = self.ledger().next_token(REBUILD, "tests").await.unwrap();
        let clock: WallClock = self.test.clock();
        let lease = Granted { token, holds };
        Rebuilder::new(
            self.store.clone(),
            self.ledger().clone(),
            clock,
            Box::new(lease),
        )
    }

    /// One look by a watch that may do everything; answers how many segments it rebuilt.
    pub async fn recover(&self) -> usize {
        let mut rebuilder = self.rebuilder(usize::MAX).await;
        rebuilder.look(&[segment()]).await.unwrap()
    }

    /// Store and ledger say the same of every order, and nothing is sold twice.
    pub async fn agree(&self) {
        let counts = self.counts().await;
        assert_eq!((counts.gate, counts.needs_rebuild), (Gate::Open, false));
        assert_eq!(
            counts.available + counts.reserved + counts.sold,
            counts.capacity(),
            "INV-STOCK-2"
        );
        let line = self.report().await.skus.swap_remove(0);
        let in_ledger = (line.reserved_units, line.paid_units, line.orders);
        assert_eq!((counts.reserved, counts.sold, counts.accepted), in_ledger);
        let rows = self
            .ledger()
            .segment_orders(&segment(), None, 10_000)
            .await
            .unwrap();
        let rows: HashMap<OrderId, _> = rows
            .iter()
            .map(|row| (row.order, row.as_stored()))
            .collect();
        let all = self
            .store
            .accepted_after(&segment(), Default::default(), 10_000)
            .await
            .unwrap();
        assert_eq!(all.len(), rows.len());
        for (_, order) in all {
            assert_eq!(Some(&order), rows.get(&order.order));
        }
    }
}

fn is_not_open(error: stock::StockError) -> Result<(), stock::StockError> {
    match error {
        stock::StockError::NotOpen(_) => Ok(()),
        other => Err(other),
    }
}

/// A lease that is held so many times and then lost.
struct Granted {
    token: u64,
    holds: usize,
}

#[async_trait]
impl Lease for Granted {
    async fn hold(&mut self) -> Result<Option<u64>, LedgerError> {
        let held = self.holds > 0;
        self.holds = self.holds.saturating_sub(1);
        Ok(held.then_some(self.token))
    }

    async fn give_up(&mut self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// Makes one test of each case for each store.
macro_rules! on_both_stores {
    ($($case:ident,)*) => {
        mod on_the_embedded_store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::support::world::Kind::Embedded).await;
                }
            )*
        }
        mod on_redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::support::world::Kind::Redis).await;
                }
            )*
        }
    };
}
pub(crate) use on_both_stores;
