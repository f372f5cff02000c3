//! Builds the parts, the router and the background work, once per process, and starts the work.

use std::{io, sync::Arc};

use axum::Router;
use sqlx::AnyPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    books::Books,
    channels::{Channel, Registry, RegistryError, simulator::Simulator},
    config::Config,
    ids::IdSource,
    metrics::Metrics,
    participant::Participant,
    saga::{self, Clock, Parts, Times},
    wire::{self, Auth},
};

/// What payments are built from. The tables must be there ([`SCHEMA`](crate::SCHEMA)), and the metrics recorder must be installed.
pub struct Setup {
    /// As it was read and checked.
    pub config: Config,
    /// Connections that write. There may be one only (SQLite).
    pub pool: AnyPool,
    /// Connections that need not be able to write, and that no payment waits for.
    pub readers: AnyPool,
    /// What payments pay for, if they pay for anything here.
    pub participant: Option<Arc<dyn Participant>>,
    /// The only clock that is read.
    pub clock: Clock,
    /// Feeds ids and client secrets. It comes from the operating system's randomness, but in tests.
    pub seed: [u8; 32],
    /// Becomes the secret key if the configuration says to make one. Drawn apart from `seed`, whose ids everybody sees.
    pub new_key: u128,
    /// Ends the background work. Without it there is none: other processes do it.
    pub work_until: Option<CancellationToken>,
}

/// Running payments.
pub struct Payments {
    /// The API, to be served at the root of its host: Stripe's SDKs take a host, not a prefix.
    pub router: Router,
    /// Reads what was written.
    pub reader: Reader,
    /// The background work. It ends after the pass that it is in.
    pub tasks: JoinSet<()>,
    /// The background work on demand.
    pub resolver: Resolver,
}

/// Reads what payments have written, without making one wait.
#[derive(Clone)]
pub struct Reader {
    pool: AnyPool,
}

/// Ends doubts when it is asked to.
#[derive(Clone)]
pub struct Resolver {
    parts: Arc<Parts>,
}

/// Why payments do not start. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The secret key could not be made.
    #[error("api_key: {0}")]
    ApiKey(#[source] io::Error),
    /// The channels cannot stand side by side.
    #[error(transparent)]
    Channels(#[from] RegistryError),
}

/// Starts payments over the configured channels.
pub fn start(setup: Setup) -> Result<Payments, StartError> {
    let simulator = Arc::new(Simulator::new(setup.config.simulator));
    start_with(setup, vec![simulator])
}

/// Starts payments over other channels, the preferred one first.
pub fn start_with(setup: Setup, channels: Vec<Arc<dyn Channel>>) -> Result<Payments, StartError> {
    let config = setup.config;
    let channels = Registry::try_new(channels, config.channel_timeout)?;
    let api_key = config.api_key.ensure(setup.new_key);
    let auth = Auth::new(&api_key.map_err(StartError::ApiKey)?);
    let parts = Arc::new(Parts {
        channels,
        pool: setup.pool,
        participant: setup.participant,
        ids: IdSource::new(setup.seed),
        clock: setup.clock,
        metrics: Metrics::new(&config.currencies),
        render: wire::render(),
        times: Times {
            channel_timeout: config.channel_timeout,
            resolve_interval: config.resolve_interval,
            idempotency_retention: config.idempotency_retention,
        },
    });
    let mut tasks = JoinSet::new();
    if let Some(shutdown) = setup.work_until {
        tasks.spawn(saga::run(Arc::clone(&parts), shutdown.cancelled_owned()));
    }
    Ok(Payments {
        router: wire::router(Arc::clone(&parts), auth, config),
        reader: Reader {
            pool: setup.readers,
        },
        tasks,
        resolver: Resolver { parts },
    })
}

impl Reader {
    /// The books, to be checked from where everything begins.
    pub fn books(&self) -> Books {
        Books::new(self.pool.clone())
    }
}

impl Resolver {
    /// One pass: asks the channels about charges in doubt whose time has come, gives late money back, forgets old idempotency keys.
    /// Returns how many charges and refunds it looked after; call it again while that is not zero to catch up.
    pub async fn pass(&self, now_ms: i64) -> Result<usize, sqlx::Error> {
        saga::resolve(&self.parts, now_ms).await
    }
}
