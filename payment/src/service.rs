//! Builds the parts, the worker and the router, once per process.

use std::sync::Arc;

use axum::Router;
use sqlx::AnyPool;

use crate::{
    channels::{Channel, Registry, RegistryError, simulator::Simulator},
    config::Config,
    ids::IdSource,
    metrics::Metrics,
    participant::Participant,
    saga::{self, Clock, Parts, Times},
    secret::Secret,
    wire::{self, Auth},
};

/// Payments, from intent to posted money.
pub struct PaymentService {
    parts: Arc<Parts>,
    router: Router,
}

impl PaymentService {
    /// A service over the simulator channel. The tables must be there ([`SCHEMA`](crate::SCHEMA)); the metrics recorder must be
    /// installed. `api_key` is what [`ApiKey::ensure`](crate::ApiKey::ensure) gave. `seed` feeds ids and client secrets: the operating
    /// system's randomness, but for tests.
    pub fn new(
        config: Config,
        api_key: &Secret,
        pool: AnyPool,
        participant: Option<Arc<dyn Participant>>,
        clock: Clock,
        seed: [u8; 32],
    ) -> Arc<Self> {
        let channel = Arc::new(Simulator::new(config.simulator));
        Self::with_channels(
            config,
            api_key,
            pool,
            participant,
            vec![channel],
            clock,
            seed,
        )
        .expect("one channel has a name of its own")
    }

    /// A service over other channels, the preferred one first.
    pub fn with_channels(
        config: Config,
        api_key: &Secret,
        pool: AnyPool,
        participant: Option<Arc<dyn Participant>>,
        channels: Vec<Arc<dyn Channel>>,
        clock: Clock,
        seed: [u8; 32],
    ) -> Result<Arc<Self>, RegistryError> {
        let parts = Arc::new(Parts {
            channels: Registry::try_new(channels, config.channel_timeout)?,
            ids: IdSource::new(seed),
            metrics: Metrics::new(&config.currencies),
            render: wire::render(),
            times: Times {
                channel_timeout: config.channel_timeout,
                resolve_interval: config.resolve_interval,
                idempotency_retention: config.idempotency_retention,
            },
            pool,
            participant,
            clock,
        });
        let router = wire::router(Arc::clone(&parts), Auth::new(api_key), config);
        Ok(Arc::new(Self { parts, router }))
    }

    /// One pass of the resolver.
    pub async fn resolve_unknown(&self, now_ms: i64) -> Result<usize, sqlx::Error> {
        saga::resolve(&self.parts, now_ms).await
    }

    /// Resolves what is in doubt, again and again until `shutdown`. One per process is enough; several do no harm.
    pub async fn run_worker(self: Arc<Self>, shutdown: impl Future<Output = ()> + Send) {
        saga::run(Arc::clone(&self.parts), shutdown).await;
    }
}

/// The payments API.
pub fn router(service: Arc<PaymentService>) -> Router {
    service.router.clone()
}
