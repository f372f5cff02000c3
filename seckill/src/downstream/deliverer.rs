//! Takes events from the outbox and hands them to the sink: bounded concurrency, retries with backoff, then dead but kept.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use metrics::{Counter, Gauge};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{DeliveryError, Sink};
use crate::{
    backoff::Backoff,
    clock::WallClock,
    ledger::{LedgerError, OrderLedger, OutboxEvent},
};

/// Upper bound of the wait for an event that another node wrote, or whose next try is due.
const POLL: Duration = Duration::from_millis(250);
/// How often the gauge is set; counting costs an index scan.
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// How often delivered events are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// How events are delivered.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Events on their way at once.
    pub concurrency: usize,
    /// Events leased at once.
    pub batch: usize,
    /// After how long a leased event is due again, if its node said nothing. Above `batch / concurrency` times the sink's timeout.
    pub lease: Duration,
    /// Tries before an event is given up.
    pub max_attempts: u32,
    /// The waits between tries.
    pub backoff: Backoff,
    /// How long delivered events stay in the ledger.
    pub keep_delivered: Duration,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            concurrency: 16,
            batch: 64,
            lease: Duration::from_secs(60),
            // With the waits below, even if each is as short as chance can make it: more than three hours of a shop that is down.
            max_attempts: 90,
            backoff: Backoff {
                first: Duration::from_millis(500),
                max: Duration::from_secs(300),
            },
            keep_delivered: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Events the shop has now.
    pub delivered: usize,
    /// Events to be tried again.
    pub retried: usize,
    /// Events given up.
    pub dead: usize,
}

impl Round {
    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Delivers the outbox of a ledger.
pub struct Deliverer {
    ledger: OrderLedger,
    sink: Arc<dyn Sink>,
    clock: WallClock,
    config: DeliveryConfig,
    delivered: Counter,
    retried: Counter,
    dead: Counter,
    pending: Gauge,
}

impl Deliverer {
    /// Joins the parts and registers the series.
    pub fn new(
        ledger: OrderLedger,
        sink: Arc<dyn Sink>,
        clock: WallClock,
        config: DeliveryConfig,
    ) -> Self {
        let deliveries = |outcome: &'static str| metrics::counter!("penstock_downstream_deliveries_total", "outcome" => outcome);
        Self {
            ledger,
            sink,
            clock,
            config,
            delivered: deliveries("delivered"),
            retried: deliveries("retried"),
            dead: deliveries("dead"),
            pending: metrics::gauge!("penstock_downstream_pending"),
        }
    }

    /// Delivers until `shutdown`; deliveries under way are finished first.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failures = 0;
        let (mut counted_at, mut pruned_at) = (None::<Instant>, Instant::now());
        while !shutdown.is_cancelled() {
            let mut wait = POLL;
            match self.round_until(&shutdown).await {
                Ok(round) => {
                    failures = 0;
                    if !round.is_empty() {
                        wait = Duration::ZERO;
                    }
                }
                Err(error) => {
                    failures += 1;
                    warn!(%error, failures, "outbox not readable");
                    wait = self.config.backoff.wait(failures, rand::random());
                }
            }
            if counted_at.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                counted_at = Some(Instant::now());
                if let Ok(pending) = self.ledger.events_pending().await {
                    self.pending.set(pending as f64);
                }
            }
            if pruned_at.elapsed() >= PRUNE_EVERY {
                pruned_at = Instant::now();
                self.prune().await;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = async {
                    if failures > 0 { tokio::time::sleep(wait).await } else { self.ledger.outbox_due(wait).await }
                } => {}
            }
        }
    }

    /// Leases what is due, tries each event once, and records the outcomes.
    pub async fn round(&self) -> Result<Round, LedgerError> {
        self.round_until(&CancellationToken::new()).await
    }

    /// A round that begins no delivery after `shutdown`; what it leaves behind is due again when the lease ends.
    async fn round_until(&self, shutdown: &CancellationToken) -> Result<Round, LedgerError> {
        let events = self
            .ledger
            .lease_events((self.clock)(), self.config.lease, self.config.batch)
            .await?;
        let tried: Vec<(OutboxEvent, Result<(), DeliveryError>)> = stream::iter(events)
            .take_until(shutdown.cancelled())
            .map(|event| {
                let sink = self.sink.clone();
                async move {
                    let outcome = sink.deliver(&event).await;
                    (event, outcome)
                }
            })
            .buffer_unordered(self.config.concurrency.max(1))
            .collect()
            .await;

        let now_ms = (self.clock)();
        let (mut delivered, mut dead, mut retries) = (Vec::new(), Vec::new(), Vec::new());
        for (event, outcome) in tried {
            match outcome {
                Ok(()) => delivered.push(event),
                Err(error) if event.attempts >= self.config.max_attempts => {
                    error!(event = event.id(), attempts = event.attempts, %error, "event given up");
                    dead.push(event);
                }
                Err(error) => {
                    tracing::debug!(event = event.id(), attempts = event.attempts, %error, "event not delivered");
                    let wait = self.config.backoff.wait(event.attempts, rand::random());
                    retries.push((event, now_ms + wait.as_millis() as u64));
                }
            }
        }
        // In this order: what is lost at the first failure is then the cheapest to lose. An event whose retry was not written
        // comes again when its lease ends.
        if !delivered.is_empty() {
            // Forgetting a delivery costs the shop a repetition, so one failure of the ledger is given a second chance.
            if self
                .ledger
                .events_delivered(&delivered, now_ms)
                .await
                .is_err()
            {
                self.ledger.events_delivered(&delivered, now_ms).await?;
            }
            self.delivered.increment(delivered.len() as u64);
        }
        if !dead.is_empty() {
            self.ledger.events_dead(&dead, now_ms).await?;
            self.dead.increment(dead.len() as u64);
        }
        if !retries.is_empty() {
            warn!(
                retried = retries.len(),
                "events not delivered, trying again later"
            );
        }
        for (event, next_at_ms) in &retries {
            self.ledger.event_retry_at(event, *next_at_ms).await?;
            self.retried.increment(1);
        }
        Ok(Round {
            delivered: delivered.len(),
            retried: retries.len(),
            dead: dead.len(),
        })
    }

    async fn prune(&self) {
        let before_ms =
            (self.clock)().saturating_sub(self.config.keep_delivered.as_millis() as u64);
        match self.ledger.prune_events(before_ms).await {
            Ok(0) => {}
            Ok(events) => info!(events, "delivered events forgotten"),
            Err(error) => warn!(%error, "delivered events not forgotten"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shop_may_be_down_for_three_hours() {
        let config = DeliveryConfig::default();
        let shortest: Duration = (1..config.max_attempts)
            .map(|failures| config.backoff.wait(failures, 0.0))
            .sum();
        assert!(shortest > Duration::from_secs(3 * 3600), "{shortest:?}");
    }
}
