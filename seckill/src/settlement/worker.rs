//! The worker of one segment: pull → ledger → acknowledge. Entries in hand are kept through failures of the ledger; what the
//! ledger refuses for its own sake is tried alone and in the end set aside, so that one bad entry never stops a queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stock::{Gate, Position, QueueEntry, StockError, StoredOrder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Parts, metrics::SettlementMetrics};
use crate::{
    ids::SegmentId,
    ledger::{DeadLetter, LedgerError, Settled},
    reconcile::Invariant,
};
use limiter::troubles::Troubles;

/// Pause after an empty look, for more purchases to come together.
const PAUSE: Duration = Duration::from_millis(2);

/// A batch that the database fails for no known reason is tried together so often, with growing waits, before its orders are tried
/// alone.
const TRIES_TOGETHER: u32 = 6;
/// If none of them can be settled it is probably the database after all. After so many tries, two minutes or so, one is set aside all the
/// same: a queue must not stand still for ever, and a letter can be replayed.
const TRIES_AT_ALL: u32 = 30;

static UNREADABLE: Troubles = Troubles::new("queues are not readable");
static UNSETTLED: Troubles = Troubles::new("batches are not settled and kept");
static UNACKNOWLEDGED: Troubles = Troubles::new("batches are settled and not acknowledged");

/// Entry of a batch whose order could be read.
struct Readable {
    position: Position,
    epoch: u64,
    deliveries: u32,
    order: StoredOrder,
}

/// What became of the orders of a batch that were tried one by one.
#[derive(Default)]
struct Alone {
    outcomes: Vec<Settled>,
    letters: Vec<DeadLetter>,
    done: Vec<Position>,
}

impl Alone {
    fn set_aside(&mut self, segment: &SegmentId, entry: &Readable, error: &LedgerError) {
        self.letters.push(DeadLetter::of_order(
            segment.clone(),
            entry.position.to_string(),
            &entry.order,
            error.to_string(),
        ));
        self.done.push(entry.position);
    }
}

pub(super) struct Worker {
    pub(super) segment: SegmentId,
    pub(super) parts: Arc<Parts>,
    pub(super) metrics: SettlementMetrics,
    pub(super) shutdown: CancellationToken,
    /// For the measurement of the queue.
    pub(super) has_pulled: Arc<AtomicBool>,
    /// Failures in a row.
    pub(super) failures: u32,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let bell = self.parts.accepted.of(&self.segment);
        while !self.shutdown.is_cancelled() {
            let config = &self.parts.config;
            let pulled = self
                .parts
                .store
                .pull(
                    &self.segment,
                    &config.consumer,
                    config.batch,
                    config.reclaim_after,
                )
                .await;
            match pulled {
                Ok(entries) if entries.is_empty() => {
                    UNREADABLE.works(&self.segment);
                    self.failures = 0;
                    tokio::select! {
                        () = self.shutdown.cancelled() => {}
                        () = async {
                            tokio::time::sleep(PAUSE).await;
                            // What was accepted since the look has rung already, and ends the wait at once.
                            let _ = tokio::time::timeout(config.poll, bell.notified()).await;
                        } => {}
                    }
                }
                Ok(entries) => {
                    UNREADABLE.works(&self.segment);
                    self.failures = 0;
                    self.has_pulled.store(true, Ordering::Relaxed);
                    self.process(entries).await;
                }
                Err(error) => {
                    // The engine opens the segment and the rebuilder reports a lost one; until then there is nothing to report.
                    if !matches!(error, StockError::NotOpen(_) | StockError::AwaitsRebuild(_)) {
                        UNREADABLE.failed(&self.segment, &error);
                    }
                    self.back_off().await;
                }
            }
        }
    }

    /// Takes a batch to its end: settled or set aside, then acknowledged. Returns early only at shutdown; what is not
    /// acknowledged is handed out again.
    async fn process(&mut self, entries: Vec<QueueEntry>) {
        let started = Instant::now();
        let mut letters = Vec::new();
        let mut settleable = Vec::with_capacity(entries.len());
        let mut done = Vec::with_capacity(entries.len());
        for QueueEntry {
            position,
            epoch,
            deliveries,
            order,
        } in entries
        {
            match order {
                Ok(order) => settleable.push(Readable {
                    position,
                    epoch,
                    deliveries,
                    order,
                }),
                Err(raw) => {
                    letters.push(DeadLetter {
                        segment: self.segment.clone(),
                        position: position.to_string(),
                        order: None,
                        reason: "the entry cannot be read".to_owned(),
                        raw,
                        held: None,
                    });
                    done.push(position);
                }
            }
        }
        loop {
            match self.try_settle(&settleable, &mut letters, &mut done).await {
                Ok(()) => break,
                // The rebuild has read these orders itself; the queue they came from is gone.
                Err(LedgerError::StaleEpoch { epoch, .. }) => {
                    info!(segment = %self.segment, epoch, "batch of an old epoch dropped");
                    self.metrics.stale_epochs.increment(1);
                    self.close_if_stale(epoch).await;
                    return self.back_off().await;
                }
                Err(error) => {
                    UNSETTLED.failed(&self.segment, &error);
                    self.back_off().await;
                    if self.shutdown.is_cancelled() {
                        return;
                    }
                }
            }
        }
        UNSETTLED.works(&self.segment);
        self.metrics.dead.increment(letters.len() as u64);
        self.metrics.batch_seconds.record(started.elapsed());
        // A store writes and syncs for every acknowledgement, an empty one too.
        while !done.is_empty() {
            match self.parts.store.ack(&self.segment, &done).await {
                Ok(()) => {
                    UNACKNOWLEDGED.works(&self.segment);
                    break;
                }
                Err(error) => {
                    UNACKNOWLEDGED.failed(&self.segment, &error);
                    self.back_off().await;
                    if self.shutdown.is_cancelled() {
                        return;
                    }
                }
            }
        }
        self.failures = 0;
    }

    /// One try. An error means that the ledger gave no answer and all of it can be repeated. `letters` and `done` are only
    /// extended when the try succeeds.
    async fn try_settle(
        &self,
        batch: &[Readable],
        letters: &mut Vec<DeadLetter>,
        done: &mut Vec<Position>,
    ) -> Result<(), LedgerError> {
        let now_ms = (self.parts.clock)();
        let orders: Vec<StoredOrder> = batch.iter().map(|entry| entry.order.clone()).collect();
        let mut new_letters = Vec::new();
        let mut new_done = Vec::with_capacity(batch.len());
        let outcomes;
        // One answer of the store is one epoch.
        let epoch = batch.first().map_or(0, |entry| entry.epoch);
        let together = self
            .parts
            .ledger
            .settle(&self.segment, epoch, &orders, now_ms);
        match together.await {
            Ok(settled) => {
                outcomes = settled;
                new_done.extend(batch.iter().map(|entry| entry.position));
            }
            Err(error @ LedgerError::StaleEpoch { .. }) => return Err(error),
            Err(error) if error.is_transient() && !self.may_be_one_order(&error) => {
                return Err(error);
            }
            Err(error) => {
                error!(segment = %self.segment, %error, "batch refused by the ledger, trying its orders alone");
                let alone = self.settle_alone(batch, now_ms).await?;
                outcomes = alone.outcomes;
                new_letters = alone.letters;
                new_done = alone.done;
            }
        }
        let all_letters: Vec<DeadLetter> = letters.iter().chain(&new_letters).cloned().collect();
        if !all_letters.is_empty() {
            self.parts.ledger.set_aside(&all_letters, now_ms).await?;
            error!(segment = %self.segment, entries = all_letters.len(), "entries set aside");
        }
        letters.extend(new_letters);
        done.extend(new_done);
        for outcome in outcomes {
            self.metrics.settled(outcome);
            match outcome {
                Settled::Settled | Settled::Duplicate => {}
                // The store let it happen; the ledger did not.
                Settled::Refused => self.parts.violations.count(Invariant::Stock1),
                Settled::SecondOrder => self.parts.violations.count(Invariant::Order1),
            }
        }
        Ok(())
    }

    /// Whether the batch has been tried together often enough, for an error that may be one order's.
    fn may_be_one_order(&self, error: &LedgerError) -> bool {
        error.may_be_about_one_order() && self.failures >= TRIES_TOGETHER
    }

    /// Each order in a transaction of its own. What the database fails for no known reason is set aside if it can settle others, or
    /// one of them in the end.
    async fn settle_alone(&self, batch: &[Readable], now_ms: u64) -> Result<Alone, LedgerError> {
        let mut alone = Alone::default();
        let mut suspects = Vec::new();
        for entry in batch {
            let one = std::slice::from_ref(&entry.order);
            let ledger = &self.parts.ledger;
            match ledger.settle(&self.segment, entry.epoch, one, now_ms).await {
                Ok(settled) => {
                    alone.outcomes.extend(settled);
                    alone.done.push(entry.position);
                }
                Err(error) if self.may_be_one_order(&error) => suspects.push((entry, error)),
                Err(error @ LedgerError::StaleEpoch { .. }) => return Err(error),
                Err(error) if error.is_transient() => return Err(error),
                // Not acknowledged: it comes again, and by then the cause may be mended.
                Err(error) if entry.deliveries < self.parts.config.max_deliveries => {
                    warn!(segment = %self.segment, order = %entry.order.order, deliveries = entry.deliveries, %error, "order refused by the ledger");
                }
                Err(error) => alone.set_aside(&self.segment, entry, &error),
            }
        }
        let others_settled = !alone.outcomes.is_empty();
        for (entry, error) in suspects {
            if others_settled {
                alone.set_aside(&self.segment, entry, &error);
                continue;
            }
            if self.failures < TRIES_AT_ALL {
                return Err(error);
            }
            alone.set_aside(&self.segment, entry, &error);
            break;
        }
        Ok(alone)
    }

    /// A store that is still at an epoch that the ledger has left sells what can never be settled: it was rebuilt somewhere else. It is
    /// frozen, so that its buyers are refused, until the rebuilder says what it is.
    async fn close_if_stale(&self, epoch: u64) {
        let store = &self.parts.store;
        match store.snapshot(&self.segment).await {
            Ok(counts) if counts.epoch == epoch && counts.gate != Gate::Frozen => {
                error!(segment = %self.segment, epoch, "the ledger has left this epoch and the store sells under it; segment frozen");
                if let Err(error) = store.set_gate(&self.segment, Gate::Frozen).await {
                    warn!(segment = %self.segment, %error, "segment not frozen, trying again with its next batch");
                }
            }
            Ok(_) => {}
            Err(error) => {
                debug!(segment = %self.segment, %error, "whether the segment is stale is not known");
            }
        }
    }

    async fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let wait = self
            .parts
            .config
            .backoff
            .wait(self.failures, rand::random());
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
