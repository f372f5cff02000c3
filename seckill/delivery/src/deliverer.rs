//! Takes events from the outbox and hands them to the sink: several calls on their way, retries with backoff, then dead but kept.
//!
//! The order of an order's events comes from the lease: the outbox gives out no event while an earlier one of the same order is
//! neither delivered nor given up. So everything in hand is of different orders, and one that fails holds up only its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use metrics::{Counter, Gauge};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use limiter::{backoff::Backoff, troubles::Troubles};

use super::{
    Event, Outbox, Sink, WallClock,
    in_flight::{Attempts, InFlight},
};

/// Upper bound of the wait for an event that another node wrote, or whose next try is due.
const POLL: Duration = Duration::from_millis(250);
/// How often the gauge is set; counting costs an index scan.
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// How often delivered events are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// How many of them by one statement.
const PRUNE_BATCH: usize = 1_000;
/// Events that could not be sent are due again after this at the earliest, so that a receiver that is away costs few writes.
const HELD_FOR: Duration = Duration::from_millis(500);

static UNLEASED: Troubles = Troubles::new("the outbox is not readable");
static UNDELIVERED: Troubles = Troubles::new("events are not delivered");

/// How events are delivered.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Events leased at once, and kept waiting beside those under way.
    pub batch: usize,
    /// After how long a leased event is due again, if its node said nothing. Well above the sink's patience.
    pub lease: Duration,
    /// Tries before an event is given up.
    pub max_attempts: u32,
    /// The waits between tries.
    pub backoff: Backoff,
    /// How long delivered events stay in the outbox.
    pub keep_delivered: Duration,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            batch: 256,
            lease: Duration::from_secs(60),
            // With the waits below, even if each is as short as chance can make it: more than three hours of a shop that fails.
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
    /// Events that could not be sent at all, which cost them no try.
    pub held: usize,
}

/// Delivers an outbox.
pub struct Deliverer<O> {
    outbox: O,
    sink: Arc<dyn Sink>,
    clock: WallClock,
    config: DeliveryConfig,
    delivered: Counter,
    retried: Counter,
    dead: Counter,
    held: Counter,
    pending: Gauge,
    given_up: Gauge,
}

impl<O: Outbox> Deliverer<O> {
    /// Joins the parts and registers the series.
    pub fn new(outbox: O, sink: Arc<dyn Sink>, clock: WallClock, config: DeliveryConfig) -> Self {
        let deliveries = |outcome: &'static str| metrics::counter!("penstock_downstream_deliveries_total", "outcome" => outcome);
        Self {
            outbox,
            sink,
            clock,
            config,
            delivered: deliveries("delivered"),
            retried: deliveries("retried"),
            dead: deliveries("dead"),
            held: deliveries("held"),
            pending: metrics::gauge!("penstock_downstream_pending"),
            given_up: metrics::gauge!("penstock_downstream_dead_events"),
        }
    }

    /// Delivers until `shutdown`; deliveries under way are finished first, what only waits is given back.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut in_flight = InFlight::default();
        let mut outbox_failures = 0;
        let (mut counted_at, mut pruned_at) = (None::<Instant>, Instant::now());
        let mut is_pruning = false;
        while !shutdown.is_cancelled() {
            let not_before = in_flight.push(&self.sink);
            let mut wait = POLL;
            if let Err(error) = self.give_back_stale(&mut in_flight, not_before).await {
                debug!(%error, "events not given back; their leases end");
            }
            // While the sink wants nothing, more leases would only keep events from other nodes.
            let may_lease = in_flight.waiting() == 0 && not_before.is_none();
            if may_lease {
                match self.lease(&mut in_flight).await {
                    Ok(leased) => {
                        UNLEASED.works("all");
                        outbox_failures = 0;
                        if leased > 0 {
                            continue;
                        }
                    }
                    Err(error) => {
                        outbox_failures += 1;
                        UNLEASED.failed("all", &error);
                        wait = self.config.backoff.wait(outbox_failures, rand::random());
                    }
                }
            }
            if counted_at.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                counted_at = Some(Instant::now());
                if let Ok(pending) = self.outbox.events_pending().await {
                    self.pending.set(pending as f64);
                }
                if let Ok(given_up) = self.outbox.events_given_up().await {
                    self.given_up.set(given_up as f64);
                }
            }
            // A batch each time round, so that deliveries go on beside it, until none is full.
            if is_pruning || pruned_at.elapsed() >= PRUNE_EVERY {
                pruned_at = Instant::now();
                is_pruning = self.prune().await;
            }
            let again_at = not_before.unwrap_or_else(|| Instant::now() + wait);
            let listens = may_lease && outbox_failures == 0;
            tokio::select! {
                () = shutdown.cancelled() => {}
                Some(tried) = in_flight.ended() => {
                    // The next call is on its way while the outbox writes down what came of this one.
                    in_flight.push(&self.sink);
                    self.settle(tried).await;
                }
                () = self.outbox.events_due(wait), if listens => {}
                () = tokio::time::sleep_until(again_at), if !listens => {}
            }
        }
        while let Some(tried) = in_flight.ended().await {
            self.settle(tried).await;
        }
        let left = in_flight.give_back();
        if let Err(error) = self.outbox.events_held(&left, (self.clock)()).await {
            debug!(%error, "events not given back; their leases end");
        }
    }

    /// Leases what is due, tries each event once, and records the outcomes.
    pub async fn round(&self) -> Result<Round, O::Error> {
        let mut in_flight = InFlight::default();
        self.lease(&mut in_flight).await?;
        let mut tried = Vec::new();
        while in_flight.waiting() > 0 || in_flight.has_calls() {
            let not_before = in_flight.push(&self.sink);
            let again_at = not_before.unwrap_or_else(Instant::now);
            tokio::select! {
                Some(ended) = in_flight.ended() => tried.extend(ended),
                () = tokio::time::sleep_until(again_at), if not_before.is_some() => {}
            }
        }
        self.record(tried).await
    }

    async fn lease(&self, in_flight: &mut InFlight) -> Result<usize, O::Error> {
        // The lease runs from before it is asked for: never longer here than in the outbox.
        let ends = Instant::now() + self.config.lease;
        let events = self
            .outbox
            .lease_events((self.clock)(), self.config.lease, self.config.batch)
            .await?;
        let leased = events.len();
        in_flight.take(events, ends);
        Ok(leased)
    }

    /// What waited so long that its lease ends goes back, untried.
    async fn give_back_stale(
        &self,
        in_flight: &mut InFlight,
        not_before: Option<Instant>,
    ) -> Result<(), O::Error> {
        let stale = in_flight.stale(&self.sink);
        if stale.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let wait = not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        self.held.increment(stale.len() as u64);
        let due_ms = (self.clock)() + wait.as_millis() as u64;
        self.outbox.events_held(&stale, due_ms).await
    }

    /// Records, and leaves it to the ends of the leases if that fails.
    async fn settle(&self, tried: Attempts) {
        if let Err(error) = self.record(tried).await {
            warn!(%error, "outcomes of deliveries not recorded; those events come again");
        }
    }

    async fn record(&self, tried: Attempts) -> Result<Round, O::Error> {
        let now_ms = (self.clock)();
        let (mut delivered, mut dead, mut held) = (Vec::new(), Vec::new(), Vec::new());
        // Events that failed together and equally often come back together: one write for all of them.
        let mut retries: BTreeMap<(u32, Duration), Vec<Event>> = BTreeMap::new();
        for (event, outcome) in tried {
            let error = match outcome {
                Ok(()) => {
                    UNDELIVERED.works(&event.id);
                    delivered.push(event);
                    continue;
                }
                Err(error) => error,
            };
            debug!(event = event.id, attempts = event.attempts, %error, "event not delivered");
            if !error.is_tried() {
                UNDELIVERED.failed("unsent", &error);
                held.push(event);
            } else if event.attempts >= self.config.max_attempts {
                UNDELIVERED.works(&event.id);
                error!(event = event.id, attempts = event.attempts, %error, "event given up");
                dead.push((event, error.to_string()));
            } else {
                UNDELIVERED.failed(&event.id, &error);
                let asked = error.retry_after().unwrap_or_default();
                retries
                    .entry((event.attempts, asked))
                    .or_default()
                    .push(event);
            }
        }
        let round = Round {
            delivered: delivered.len(),
            retried: retries.values().map(Vec::len).sum(),
            dead: dead.len(),
            held: held.len(),
        };
        // In this order: what is lost at the first failure is then the cheapest to lose. An event whose retry was not written
        // comes again when its lease ends.
        if !delivered.is_empty() {
            UNDELIVERED.works("unsent");
            // Forgetting a delivery costs the shop a repetition, so one failure of the outbox is given a second chance.
            if self
                .outbox
                .events_delivered(&delivered, now_ms)
                .await
                .is_err()
            {
                self.outbox.events_delivered(&delivered, now_ms).await?;
            }
            self.delivered.increment(round.delivered as u64);
        }
        if !dead.is_empty() {
            self.outbox.events_dead(&dead, now_ms).await?;
            self.dead.increment(round.dead as u64);
        }
        for ((attempts, asked), events) in &retries {
            let wait = self
                .config
                .backoff
                .wait(*attempts, rand::random())
                .max(*asked);
            let due_ms = now_ms + wait.as_millis() as u64;
            self.outbox.events_retry_at(events, due_ms).await?;
            self.retried.increment(events.len() as u64);
        }
        if !held.is_empty() {
            let due_ms = now_ms + HELD_FOR.as_millis() as u64;
            self.outbox.events_held(&held, due_ms).await?;
            self.held.increment(round.held as u64);
        }
        Ok(round)
    }

    /// Forgets a batch of delivered events; whether there may be more of them.
    async fn prune(&self) -> bool {
        let before_ms =
            (self.clock)().saturating_sub(self.config.keep_delivered.as_millis() as u64);
        match self.outbox.prune_events(before_ms, PRUNE_BATCH).await {
            Ok(events) => {
                debug!(events, "delivered events forgotten");
                events == PRUNE_BATCH as u64
            }
            Err(error) => {
                warn!(%error, "delivered events not forgotten");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shop_may_fail_for_three_hours() {
        let config = DeliveryConfig::default();
        let shortest: Duration = (1..config.max_attempts)
            .map(|failures| config.backoff.wait(failures, 0.0))
            .sum();
        assert!(shortest > Duration::from_secs(3 * 3600), "{shortest:?}");
    }
}
