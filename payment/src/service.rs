//! The facade: one long-lived [`PaymentService`] per process, made by the composition and handed to the router and the worker.

use std::{pin::pin, sync::Arc, time::Duration};

use sqlx::AnyPool;

use crate::{
    auth::Auth,
    channel::{Channel, guarded::Guarded, simulator::Simulator},
    config::{Config, Secret},
    error::PaymentError,
    ids::IdSource,
    metrics::Metrics,
    participant::Participant,
    sql,
};

/// Wall-clock time in unix milliseconds. This crate never reads a clock of its own.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Payments, from intent to posted money.
pub struct PaymentService {
    pub(crate) config: Config,
    /// May have a single connection (SQLite): nothing here takes a second one while it holds a transaction.
    pub(crate) pool: AnyPool,
    pub(crate) participant: Option<Arc<dyn Participant>>,
    pub(crate) channel: Guarded,
    pub(crate) ids: IdSource,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) auth: Auth,
    clock: Clock,
}

impl PaymentService {
    /// A service over the simulator channel. The tables must be there ([`migrate`](crate::migrate)); the metrics recorder must be
    /// installed. `api_key` is what [`ApiKey::ensure`](crate::config::ApiKey::ensure) gave. `seed` feeds ids and client secrets: the operating system's randomness, but for tests.
    pub fn new(
        config: Config,
        api_key: &Secret,
        pool: AnyPool,
        participant: Option<Arc<dyn Participant>>,
        clock: Clock,
        seed: [u8; 32],
    ) -> Arc<Self> {
        let channel = Arc::new(Simulator::new(config.simulator));
        Self::with_channel(config, api_key, pool, participant, channel, clock, seed)
    }

    /// A service over another channel.
    pub fn with_channel(
        config: Config,
        api_key: &Secret,
        pool: AnyPool,
        participant: Option<Arc<dyn Participant>>,
        channel: Arc<dyn Channel>,
        clock: Clock,
        seed: [u8; 32],
    ) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new(channel.name(), &config.currencies));
        Arc::new(Self {
            channel: Guarded::new(channel, config.channel_timeout, Arc::clone(&metrics)),
            ids: IdSource::new(seed),
            auth: Auth::new(api_key),
            metrics,
            config,
            pool,
            participant,
            clock,
        })
    }

    /// Resolves what is in doubt, again and again until `shutdown`. One per process is enough; several do no harm.
    pub async fn run_worker(self: Arc<Self>, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        loop {
            if let Err(error) = self.resolve_unknown(self.now()).await {
                tracing::warn!(%error, "payment resolver failed, trying again");
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(self.config.resolve_interval) => {}
            }
        }
    }

    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }
}

/// Runs a transaction until it is not undone by a race any more, a bounded number of times.
pub(crate) async fn retrying<T, F>(mut run: impl FnMut() -> F) -> Result<T, PaymentError>
where
    F: Future<Output = Result<T, PaymentError>>,
{
    let mut tries = 1;
    loop {
        match run().await {
            Err(error) if tries < sql::TX_TRIES && error.is_transient() => tries += 1,
            result => return result,
        }
    }
}

/// A configured span in milliseconds.
pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
