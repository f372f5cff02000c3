//! One node of the sale: opens the stores, builds every part once, and runs the workers until it is stopped.
//!
//! Everything here runs on the control plane; only purchases through [`Node::sales`] come from the data plane.

use std::{sync::Arc, time::Duration};

use axum::Router;
use delivery::{Deliverer, DeliveryConfig, SinkError};
use futures_util::future::BoxFuture;
use stock::{
    Durability, StockError, StockStore,
    embedded::{EmbeddedStore, Health, Options, RecoverError, SyncPolicy, Tuning},
    redis::{RedisOptions, RedisStore},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Payable},
    api,
    backup::{self, Backups},
    bells::Bells,
    clock::WallClock,
    config::{Config, StoreConfig},
    engine::{EngineError, SaleEngine},
    lease::{Lease, Redlock, RowLease},
    ledger::{self, ClockError, ConnectOptions, LedgerError, OrderLedger, REBUILD, RECONCILE},
    reaper,
    rebuild::{self, ClaimError, Rebuilder},
    reconcile::{self, Reconciler, Violations},
    settlement::{self, Settlement, SettlementConfig},
    store_calls::CountedStore,
    store_sync::StoreSync,
};

/// Names of the store among the parts.
const JOURNAL: &str = "journal";
const REDIS: &str = "redis";

/// What a node is built from.
pub struct Parts<'a> {
    /// The checked `[seckill]` table.
    pub config: &'a Config,
    /// This machine's clock. What is decided over orders and stock goes by the ledger's, whatever this one says.
    pub clock: WallClock,
    /// Whether that clock is right, however far it is from the newest time that store and ledger know.
    pub accepts_clock: bool,
    /// This machine's name: kept over restarts, different between machines.
    pub host: String,
    /// Which prices can be paid; `None` where payments are not taken.
    pub payable: Option<Payable>,
    /// What must not be kept with an order.
    pub find_secret: api::FindSecret,
    /// Which workers run.
    pub workers: Workers,
    /// Cancelled when a drain begins: requests that wait for an order are answered, or they would hold the drain up.
    pub draining: CancellationToken,
    /// Cancelled by [`Node::stop`]; for what else stops with the node.
    pub shutdown: CancellationToken,
}

/// Which workers a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// All of them.
    All,
    /// Those that its own routers need; other nodes settle, deliver, expire and rebuild.
    Serving,
}

/// Why a node does not start. The operator must look at the named part.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger's database cannot be opened.
    #[error("seckill.ledger")]
    Ledger(#[source] LedgerError),
    /// The ledger's clock cannot be read.
    #[error("seckill.ledger: its clock")]
    Clock(#[source] ClockError),
    /// The embedded store cannot be read back.
    #[error("seckill.store")]
    Embedded(#[source] RecoverError),
    /// The Redis store cannot be used.
    #[error("seckill.store")]
    Redis(#[source] StockError),
    /// The embedded store is not the one that the ledger knows.
    #[error("seckill.store")]
    Claim(#[source] ClaimError),
    /// The store's thread ended badly.
    #[error(transparent)]
    Thread(#[from] tokio::task::JoinError),
    /// The sales could not be loaded.
    #[error("sales could not be opened")]
    Sales(#[source] EngineError),
    /// The servers of the recovery lease cannot be used.
    #[error("seckill.recovery_locks")]
    RecoveryLocks(#[source] StockError),
    /// The receiver of events cannot be used.
    #[error(transparent)]
    Downstream(#[from] SinkError),
}

/// What a start waits at most for the sales that are over; few are read in a fraction of it.
const READ_OVER: Duration = Duration::from_millis(50);

/// Whether a part can do its work; if not, why.
pub type ReadyCheck = Arc<dyn Fn() -> Result<(), String> + Send + std::marker::Sync>;

impl StartError {
    /// Whether waiting may mend it: something is away, not wrong, or a clock that a time server may set right. A Redis that is away is no error: its store waits for it.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Clock(ClockError::Wrong(_)) | Self::Embedded(RecoverError::Clock { .. }) => true,
            Self::Ledger(error)
            | Self::Clock(ClockError::Ledger(error))
            | Self::Claim(ClaimError::Ledger(error))
            | Self::Sales(EngineError::Ledger(error)) => error.may_pass(),
            Self::Embedded(_)
            | Self::Redis(_)
            | Self::Claim(_)
            | Self::Thread(_)
            | Self::Sales(_)
            | Self::RecoveryLocks(_)
            | Self::Downstream(_) => false,
        }
    }
}

/// A running node.
pub struct Node {
    /// The sale API.
    pub sales: Router,
    /// The admin API of sales and backups. Its paths all begin with `/admin/`.
    pub admin: Router,
    /// The engine, for callers in this process.
    pub engine: Arc<SaleEngine>,
    /// The ledger's clock, as this node knows it.
    pub clock: WallClock,
    /// The store, where it is this process's own.
    embedded: Option<EmbeddedStore>,
    settlement: Option<Settlement>,
    workers: JoinSet<()>,
    owner: String,
    shutdown: CancellationToken,
}

impl Node {
    /// Opens store and ledger, loads the sales and starts the workers.
    pub async fn start(parts: Parts<'_>) -> Result<Self, StartError> {
        let (config, shutdown) = (parts.config, parts.shutdown);
        let ledger = open_ledger(config).await?;
        let checked = ledger.check_clock((parts.clock)(), parts.accepts_clock);
        checked.await.map_err(StartError::Clock)?;
        let ledger_clock = ledger.clock(parts.clock.clone()).await;
        let ledger_clock = ledger_clock.map_err(|error| StartError::Clock(error.into()))?;
        let clock = ledger_clock.wall();
        let opened = open_store(config, clock.clone(), parts.accepts_clock);
        let (store, embedded) = opened.await?;
        let store: Arc<dyn StockStore> = Arc::new(CountedStore::new(store));
        if let StoreConfig::Embedded(folder) = &config.store {
            rebuild::claim(
                &ledger,
                folder,
                &parts.host,
                config.rebuild_elsewhere,
                clock(),
            )
            .await
            .map_err(StartError::Claim)?;
        }
        let accepted = Arc::<Bells>::default();
        let engine = SaleEngine::start(
            store.clone(),
            ledger.clone(),
            clock.clone(),
            config.purchase_deadline,
            accepted.clone(),
        )
        .await
        .map_err(StartError::Sales)?;
        engine.use_tokens(config.token_keys.clone());
        if let Some(key) = &config.checkin_key {
            engine.use_checkin_key(key);
        }

        let violations = Violations::default();
        let reconciler = Reconciler::new(store, ledger.clone(), violations.clone());
        let backups = Backups::new(
            embedded.clone().map(|store| (store, config.ledger.clone())),
            clock.clone(),
        );
        let mut node = Self {
            sales: api::router_with(
                engine.clone(),
                config.buyer.clone(),
                config.waiting.clone(),
                parts.draining,
                Some(tokio::runtime::Handle::current()),
                parts.find_secret,
            ),
            admin: admin::router(engine.clone(), reconciler.clone(), parts.payable)
                .merge(backup::router(backups)),
            engine,
            clock,
            embedded,
            settlement: None,
            workers: JoinSet::new(),
            // Differs between the processes of a machine, too.
            owner: format!("{}-{:016x}", consumer(&parts.host), rand::random::<u64>()),
            shutdown,
        };
        node.run(node.engine.clone().run(node.shutdown.clone()));
        node.run(ledger_clock.keep(node.shutdown.clone()));
        node.run(ledger.poll_changes(node.shutdown.clone()));
        node.engine.over_read_within(READ_OVER).await;
        if parts.workers == Workers::All {
            node.run(reaper::run(
                node.engine.ledger().clone(),
                parts.clock,
                node.shutdown.clone(),
            ));
            let consumer = consumer(&parts.host);
            node.start_workers(config, consumer, accepted, violations, reconciler)?;
        }
        Ok(node)
    }

    /// What must hold for requests to be answered well, by name: sales, and the store of [`Node::store_part`].
    pub fn readiness(&self) -> Vec<(&'static str, ReadyCheck)> {
        let engine = self.engine.clone();
        let sales: ReadyCheck = Arc::new(move || engine.health().sales);
        let store: (&'static str, ReadyCheck) = match self.embedded.clone() {
            Some(store) => (JOURNAL, Arc::new(move || journal(store.health()))),
            None => {
                let engine = self.engine.clone();
                (REDIS, Arc::new(move || engine.health().store))
            }
        };
        vec![("sales", sales), store]
    }

    /// The name that the store has in [`Node::readiness`].
    pub fn store_part(config: &Config) -> &'static str {
        match config.store {
            StoreConfig::Embedded(_) => JOURNAL,
            StoreConfig::Redis { .. } => REDIS,
        }
    }

    /// Whether the ledger answers, for what needs nothing else.
    pub fn ledger_check(&self) -> ReadyCheck {
        let engine = self.engine.clone();
        Arc::new(move || engine.health().ledger)
    }

    /// The lease of a work that one node does on a timer.
    pub fn lease(&self, work: &'static str) -> RowLease {
        RowLease::new(
            work,
            self.engine.ledger().clone(),
            self.clock.clone(),
            self.owner.clone(),
        )
    }

    /// Ends the workers after their current batch. Call it when no request is in flight any more.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(settlement) = self.settlement.take() {
            settlement.stopped().await;
        }
        while self.workers.join_next().await.is_some() {}
    }

    fn run(&mut self, worker: impl Future<Output = ()> + Send + 'static) {
        self.workers.spawn(worker);
    }

    fn start_workers(
        &mut self,
        config: &Config,
        consumer: String,
        accepted: Arc<Bells>,
        violations: Violations,
        reconciler: Reconciler,
    ) -> Result<(), StartError> {
        let (store, ledger) = (self.engine.store().clone(), self.engine.ledger().clone());
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        // What can fail comes before the first worker.
        let lease = self.rebuild_lease(config)?;
        let sink = match &config.downstream {
            Some(receiver) => Some(delivery::open(receiver, clock.clone())?),
            None => None,
        };
        let mut settling = SettlementConfig::new(consumer);
        settling.reclaim_after = config.reclaim_after;
        let parts = settlement::Parts {
            store: store.clone(),
            ledger: ledger.clone(),
            clock: clock.clone(),
            accepted,
            violations: violations.clone(),
            config: settling,
        };
        let segments = self.engine.segments();
        self.settlement = Some(Settlement::start(parts, segments, shutdown.clone()));

        let engine = self.engine.clone();
        let on_released = Arc::new(move |segment| {
            let engine = engine.clone();
            let released: BoxFuture<'static, ()> =
                Box::pin(async move { engine.released(&segment).await });
            released
        });
        let effects = StoreSync::new(store.clone(), ledger.clone(), violations, on_released);
        self.run(effects.run(shutdown.clone()));
        let rebuilder = Rebuilder::new(store, ledger.clone(), clock.clone(), lease)
            .at(config.store.address(), config.rebuild_elsewhere);
        self.run(rebuilder.run(self.engine.segments(), shutdown.clone()));
        self.run(reconcile::run(
            self.engine.clone(),
            reconciler,
            self.lease(RECONCILE),
            shutdown.clone(),
        ));
        if let Some(sink) = sink {
            let deliverer = Deliverer::new(ledger, sink, clock, DeliveryConfig::default());
            self.run(deliverer.run(shutdown));
        }
        Ok(())
    }

    /// The lease of the node that rebuilds segments: a row of the ledger, or held on the configured Redis servers.
    fn rebuild_lease(&self, config: &Config) -> Result<Box<dyn Lease>, StartError> {
        if config.recovery_locks.is_empty() {
            return Ok(Box::new(self.lease(REBUILD)));
        }
        let (username, password) = match &config.store {
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
        let (ledger, owner) = (self.engine.ledger().clone(), self.owner.clone());
        let lock = Redlock::try_new(ledger, &config.recovery_locks, options, owner);
        Ok(Box::new(lock.map_err(StartError::RecoveryLocks)?))
    }
}

/// A full or failing disk: purchases would only be refused.
fn journal(health: Health) -> Result<(), String> {
    match health {
        Health::Well => Ok(()),
        Health::Full => Err("there is no room for the journal".to_owned()),
        Health::Broken => Err("the journal cannot be written".to_owned()),
        Health::Lost => Err("the disk has lost what it had promised to keep".to_owned()),
    }
}

/// The node's name among the consumers of the stores' queues.
fn consumer(host: &str) -> String {
    format!("penstock-{host}")
}

async fn open_ledger(config: &Config) -> Result<OrderLedger, StartError> {
    let options = ConnectOptions {
        durability: config.ledger_durability,
        ..ConnectOptions::default()
    };
    let pool = ledger::connect_with(&config.ledger, &options).await;
    let ledger = OrderLedger::new(pool.map_err(StartError::Ledger)?);
    Ok(match config.downstream {
        Some(_) => ledger,
        None => ledger.without_outbox(),
    })
}

async fn open_store(
    config: &Config,
    clock: WallClock,
    accepts_clock: bool,
) -> Result<(Arc<dyn StockStore>, Option<EmbeddedStore>), StartError> {
    match &config.store {
        StoreConfig::Embedded(folder) => {
            let sync = match config.durability {
                Durability::Fast => SyncPolicy::Fast,
                Durability::Replicated | Durability::Durable => SyncPolicy::Durable,
            };
            let options = Options {
                folder: folder.clone(),
                sync,
                write_mode: config.journal,
            };
            let tuning = Tuning {
                snapshot_every: config.snapshot_every,
                retain_ended: config.retain_ended,
                accepts_clock,
                ..Tuning::default()
            };
            // Reads the snapshot and replays the journal behind it: not on a runtime's thread.
            let opened = tokio::task::spawn_blocking(move || {
                EmbeddedStore::open_with(&options, tuning, clock)
            });
            let store = opened.await?.map_err(StartError::Embedded)?;
            Ok((Arc::new(store.clone()), Some(store)))
        }
        StoreConfig::Redis {
            url,
            username,
            password,
        } => {
            let options = RedisOptions {
                durability: config.durability,
                username: username.clone(),
                password: password.clone(),
                ..RedisOptions::default()
            };
            let connected = RedisStore::connect(url, options).await;
            Ok((Arc::new(connected.map_err(StartError::Redis)?), None))
        }
    }
}
