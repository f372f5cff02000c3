//! Sales and payments: built from their configuration, their workers started, their routers handed to the edge.
//!
//! Everything here runs on the control plane. Orders and money share one database, so that one transaction can change both
//! (see [`crate::compose::checkout`]).

mod books;
mod certificates;
pub mod checkout;
pub mod edge;
mod health;
mod payable;
mod reconcile;
pub mod reload;
mod sockets;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use axum::Router;
use payment::{Payments, Setup};
use seckill::{
    admin, api,
    backup::{self, Backups},
    bells::Bells,
    clock::WallClock,
    config::{DownstreamConfig, StoreConfig},
    downstream::{self, Deliverer, DeliveryConfig},
    effects::Effects,
    engine::SaleEngine,
    ledger::{self, BOOKS, ConnectOptions, OrderLedger, RECONCILE},
    reaper,
    reconcile::{Reconciler, Violations},
    recovery::{
        self, Recovery,
        lease::{AdvisoryLock, Lease, Redlock, RowLease},
    },
    settlement::{self, Settlement, SettlementConfig},
    store::{
        Durability, StockStore,
        embedded::{EmbeddedStore, Health, Options, Sync, Tuning},
        redis::{RedisOptions, RedisStore},
    },
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    checkout::Checkout,
    edge::{App, Handlers},
};
use crate::{
    admin::ReadyCheck,
    config::{Config, Role},
    meters,
};

/// How long the work of a node that died waits for another: some of its ticks.
const WORK_LEASE: Duration = Duration::from_secs(30);

/// The running services.
pub struct Services {
    sales: Router,
    payments: Option<Payments>,
    admin: Router,
    /// The engine, for callers in this process.
    pub engine: Arc<SaleEngine>,
    /// The store, where it is this process's own.
    embedded: Option<EmbeddedStore>,
    settlement: Option<Settlement>,
    books: books::Known,
    workers: JoinSet<()>,
    /// Cancelled by the edge when its drain begins.
    draining: CancellationToken,
    shutdown: CancellationToken,
}

impl Services {
    /// Opens the stores and starts what the role asks for.
    pub async fn start(
        sale: &seckill::config::Config,
        payments: Option<&payment::Config>,
        role: Role,
        clock: WallClock,
    ) -> anyhow::Result<Self> {
        let options = ConnectOptions {
            durability: sale.ledger_durability,
            ..ConnectOptions::default()
        };
        let pool = ledger::connect_with(&sale.ledger, &options)
            .await
            .context("seckill.ledger")?;
        let ledger = OrderLedger::new(pool.clone());
        let ledger = if sale.downstream.is_some() {
            ledger
        } else {
            ledger.without_outbox()
        };
        // What is decided over orders and stock goes by the ledger's clock, whatever this machine's says.
        let own_clock = clock;
        let ledger_clock = ledger.clock(own_clock.clone()).await;
        let ledger_clock = ledger_clock.context("seckill.ledger: its clock")?;
        let clock = ledger_clock.wall();
        let (store, embedded) = open_store(sale, clock.clone()).await?;
        if let StoreConfig::Embedded(folder) = &sale.store {
            recovery::claim(&ledger, folder, &host_name(), sale.moving, clock())
                .await
                .context("seckill.store")?;
        }
        let accepted = Arc::<Bells>::default();
        let engine = SaleEngine::start(
            store.clone(),
            ledger.clone(),
            clock.clone(),
            sale.purchase_deadline,
            accepted.clone(),
        )
        .await
        .context("sales could not be opened")?;
        engine.use_tokens(sale.token_keys.clone());
        if let Some(key) = &sale.checkin_key {
            engine.use_checkin_key(key);
        }

        let violations = Violations::new();
        let reconciler = Reconciler::new(store.clone(), ledger.clone(), violations.clone());
        let shutdown = CancellationToken::new();
        let mut workers = JoinSet::new();
        workers.spawn(engine.clone().run(shutdown.clone()));
        workers.spawn(ledger_clock.keep(shutdown.clone()));
        workers.spawn(ledger.clone().bring_news(shutdown.clone()));
        let draining = CancellationToken::new();

        let payable = payments.map(|config| payable::payable(&config.currencies));
        let payments = match payments {
            None => None,
            Some(config) => {
                let payment::Schema { table, steps } = payment::SCHEMA;
                ledger::migrate(&pool, table, steps)
                    .await
                    .context("the payment tables could not be laid")?;
                let clock = clock.clone();
                let started = payment::start(Setup {
                    config: config.clone(),
                    pool: pool.clone(),
                    readers: ledger.reads().clone(),
                    participant: Some(Arc::new(Checkout::new(engine.clone()))),
                    clock: Arc::new(move || i64::try_from(clock()).unwrap_or(i64::MAX)),
                    seed: rand::random(),
                    new_key: rand::random(),
                    work_until: (role != Role::Edge).then(|| shutdown.clone()),
                });
                Some(started.context("payment")?)
            }
        };

        let known = books::Known::default();
        let mut services = Self {
            books: known.clone(),
            sales: api::router_with(
                engine.clone(),
                sale.buyer.clone(),
                sale.waiting.clone(),
                draining.clone(),
                Some(tokio::runtime::Handle::current()),
            ),
            admin: admin::router(engine.clone(), reconciler.clone(), payable)
                .merge(books::router(
                    payments.as_ref().map(|payments| payments.reader.clone()),
                    known.clone(),
                ))
                .merge(backup::router(Backups::new(
                    embedded.clone().map(|store| (store, sale.ledger.clone())),
                    clock.clone(),
                ))),
            payments,
            engine,
            embedded,
            settlement: None,
            workers,
            draining,
            shutdown,
        };
        if role != Role::Edge {
            services.workers.spawn(reaper::run(
                services.engine.ledger().clone(),
                own_clock,
                services.shutdown.clone(),
            ));
            services.start_workers(sale, clock, accepted, violations, reconciler)?;
        }
        Ok(services)
    }

    /// The routers, for the edge.
    pub fn handlers(&self) -> Handlers {
        let engine = self.engine.clone();
        let mut ready: Vec<(&'static str, ReadyCheck)> =
            vec![("sales", Arc::new(move || engine.is_ready()))];
        if let Some(store) = self.embedded.clone() {
            // A full or failing disk of the journal: purchases would only be refused.
            ready.push(("journal", Arc::new(move || store.health() == Health::Well)));
        }
        Handlers {
            ready,
            sales: Some(self.sales.clone()),
            payments: self
                .payments
                .as_ref()
                .map(|payments| payments.router.clone()),
            admin_extra: Some(self.admin.clone()),
            draining: self.draining.clone(),
        }
    }

    fn start_workers(
        &mut self,
        sale: &seckill::config::Config,
        clock: WallClock,
        accepted: Arc<Bells>,
        violations: Violations,
        reconciler: Reconciler,
    ) -> anyhow::Result<()> {
        let (store, ledger) = (self.engine.store().clone(), self.engine.ledger().clone());
        let mut config = SettlementConfig::new(consumer_name());
        config.reclaim_after = sale.reclaim_after;
        let parts = settlement::Parts {
            store: store.clone(),
            ledger: ledger.clone(),
            clock: clock.clone(),
            accepted,
            violations: violations.clone(),
            config,
        };
        self.settlement = Some(Settlement::start(
            parts,
            self.engine.segments(),
            self.shutdown.clone(),
        ));

        let engine = self.engine.clone();
        let on_released = Arc::new(move |segment| {
            let engine = engine.clone();
            let released: futures_util::future::BoxFuture<'static, ()> =
                Box::pin(async move { engine.released(&segment).await });
            released
        });
        self.workers.spawn(
            Effects::new(store.clone(), ledger.clone(), violations, on_released)
                .run(self.shutdown.clone()),
        );
        let lease = recovery_lease(sale, ledger.clone(), clock.clone())?;
        let recovery = Recovery::new(store.clone(), ledger.clone(), clock.clone(), lease)
            .at(sale.store.place(), sale.moving);
        self.workers
            .spawn(recovery.run(self.engine.segments(), self.shutdown.clone()));
        self.workers.spawn(reconcile::watch(
            self.engine.clone(),
            reconciler,
            work_lease(RECONCILE, &ledger, &clock),
            self.shutdown.clone(),
        ));
        if let Some(payments) = &self.payments {
            let lease = work_lease(BOOKS, &ledger, &clock);
            self.workers.spawn(books::watch(
                payments.reader.clone(),
                lease,
                clock.clone(),
                self.books.clone(),
                self.shutdown.clone(),
            ));
        }
        if let Some(DownstreamConfig { target, timeout }) = &sale.downstream {
            let sink = downstream::open(target, *timeout, clock.clone())?;
            let deliverer = Deliverer::new(ledger, sink, clock, DeliveryConfig::default());
            self.workers.spawn(deliverer.run(self.shutdown.clone()));
        }
        Ok(())
    }

    /// Ends the workers after their current batch. Call it when no request is in flight any more.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(settlement) = self.settlement.take() {
            settlement.stopped().await;
        }
        while self.workers.join_next().await.is_some() {}
        if let Some(mut payments) = self.payments {
            while payments.tasks.join_next().await.is_some() {}
        }
    }
}

async fn open_store(
    sale: &seckill::config::Config,
    clock: WallClock,
) -> anyhow::Result<(Arc<dyn StockStore>, Option<EmbeddedStore>)> {
    match &sale.store {
        StoreConfig::Embedded(folder) => {
            let sync = match sale.durability {
                Durability::Fast => Sync::Fast,
                Durability::Replicated | Durability::Durable => Sync::Durable,
            };
            let options = Options {
                folder: folder.clone(),
                sync,
                method: sale.journal,
            };
            let tuning = Tuning {
                snapshot_every: sale.snapshot_every,
                retain_ended: sale.retain_ended,
                ..Tuning::default()
            };
            // Reads the snapshot and replays the journal behind it: not on a runtime's thread.
            let opened = tokio::task::spawn_blocking(move || {
                EmbeddedStore::open_with(&options, tuning, clock)
            });
            let store = opened.await?.context("seckill.store")?;
            Ok((Arc::new(store.clone()), Some(store)))
        }
        StoreConfig::Redis {
            url,
            username,
            password,
        } => {
            let options = RedisOptions {
                durability: sale.durability,
                username: username.clone(),
                password: password.clone(),
                ..RedisOptions::default()
            };
            let connected = RedisStore::connect(url, options).await;
            Ok((Arc::new(connected.context("seckill.store")?), None))
        }
    }
}

/// Who rebuilds segments: elected by the configured Redis servers, or by the ledger's database.
fn recovery_lease(
    sale: &seckill::config::Config,
    ledger: OrderLedger,
    clock: WallClock,
) -> anyhow::Result<Box<dyn Lease>> {
    let owner = lease_owner();
    if !sale.recovery_locks.is_empty() {
        let (username, password) = match &sale.store {
            StoreConfig::Redis {
                username, password, ..
            } => (username.clone(), password.clone()),
            StoreConfig::Embedded(_) => (None, None),
        };
        let options = RedisOptions {
            username,
            password,
            ..RedisOptions::default()
        };
        let lock = Redlock::try_new(ledger, &sale.recovery_locks, options, owner);
        return Ok(Box::new(lock.context("seckill.recovery_locks")?));
    }
    Ok(if ledger.leases_are_rows() {
        Box::new(RowLease::new(ledger, clock, owner))
    } else {
        Box::new(AdvisoryLock::new(ledger, owner))
    })
}

/// The lease of a work that one node does on a timer.
fn work_lease(name: &'static str, ledger: &OrderLedger, clock: &WallClock) -> RowLease {
    RowLease::named(
        name,
        WORK_LEASE,
        ledger.clone(),
        clock.clone(),
        lease_owner(),
    )
}

/// Differs between the processes of a machine, too.
fn lease_owner() -> String {
    format!("{}-{:016x}", consumer_name(), rand::random::<u64>())
}

/// Keeps its name over restarts of the same machine and differs between machines.
fn consumer_name() -> String {
    format!("penstock-{}", host_name())
}

fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

/// Builds the gateway with all that its configuration asks for: recorder, stores and workers, then the sockets.
pub async fn build(config: Config) -> anyhow::Result<(App, Option<Services>)> {
    // Metric handles are resolved when parts are built, so the recorder comes first.
    meters::install()?;
    let clock: WallClock = Arc::new(|| {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let services = match &config.seckill {
        None => None,
        Some(sale) => {
            Some(Services::start(sale, config.payment.as_ref(), config.role, clock).await?)
        }
    };
    let handlers = services
        .as_ref()
        .map(Services::handlers)
        .unwrap_or_default();
    Ok((App::try_new(config, handlers)?, services))
}
