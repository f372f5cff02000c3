//! Moves accepted orders from the stock store's queue into the order ledger, each exactly once in effect.
//!
//! One worker per segment: pull → [`OrderLedger::settle`] → acknowledge, in that order, so that a crash at any point only leads
//! to a repetition, which the ledger recognises. The supervisor here starts a worker for each segment that appears, replaces
//! one that died, and measures the queues.

mod metrics;
pub mod replay;
mod worker;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use stock::{OrderQueue, QueueDepth};
use tokio::{
    sync::watch,
    task::{Id, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    bells::Bells, clock::WallClock, ids::SegmentId, ledger::OrderLedger, reconcile::Violations,
};
use limiter::backoff::Backoff;
use limiter::troubles::Troubles;

use self::{metrics::SettlementMetrics, worker::Worker};

/// Large enough that one commit serves many orders, small enough that a retry of it is cheap.
const BATCH: usize = 256;
/// Upper bound of the wait for an order without a local wake-up: one reclaimed from a dead consumer. This node's own purchases wake it, and
/// so does its refresh when it reads that another node has accepted something.
const POLL: Duration = Duration::from_secs(5);
/// A consumer that has not acknowledged for this long is taken for dead.
const RECLAIM_AFTER: Duration = Duration::from_secs(30);
/// An entry that the ledger refuses by itself is set aside at this delivery.
const MAX_DELIVERIES: u32 = 5;
/// How often the queues are measured, and dead workers replaced. A queue that is known to be empty and had nothing pulled from it
/// since is measured at every tenth time.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
const MEASURE_EMPTY: u64 = 10;
/// Queues measured at the same time.
const MEASURED_AT_ONCE: usize = 16;

static UNCOUNTED: Troubles = Troubles::new("queues and dead letters are not counted");

/// How settlement runs.
#[derive(Debug, Clone)]
pub struct SettlementConfig {
    /// Who this node is among the consumers of a queue; keep it over restarts and unique among nodes.
    pub consumer: String,
    /// Most orders in one transaction.
    pub batch: usize,
    /// Longest wait between two looks at an empty queue.
    pub poll: Duration,
    /// When another consumer's entries are taken over.
    pub reclaim_after: Duration,
    /// At which delivery an entry that cannot be settled is set aside.
    pub max_deliveries: u32,
    /// The waits after failures of store or ledger.
    pub backoff: Backoff,
}

impl SettlementConfig {
    /// The defaults for a consumer.
    pub fn new(consumer: impl Into<String>) -> Self {
        Self {
            consumer: consumer.into(),
            batch: BATCH,
            poll: POLL,
            reclaim_after: RECLAIM_AFTER,
            max_deliveries: MAX_DELIVERIES,
            backoff: Backoff {
                first: Duration::from_millis(50),
                max: Duration::from_secs(5),
            },
        }
    }
}

/// The running settlement of a node.
pub struct Settlement {
    supervisor: JoinHandle<()>,
}

/// What every worker shares.
pub struct Parts {
    /// Where orders wait.
    pub store: Arc<dyn OrderQueue>,
    /// Where they go.
    pub ledger: OrderLedger,
    /// The time that settled orders carry.
    pub clock: WallClock,
    /// Rung when a segment has accepted something.
    pub accepted: Arc<Bells>,
    /// Where over-admitted orders are counted.
    pub violations: Violations,
    /// How to run.
    pub config: SettlementConfig,
}

impl Settlement {
    /// Starts one worker for each segment of `segments`, now and as it changes, until `shutdown`.
    pub fn start(
        parts: Parts,
        segments: watch::Receiver<Vec<SegmentId>>,
        shutdown: CancellationToken,
    ) -> Self {
        let supervisor = Supervisor {
            parts: Arc::new(parts),
            metrics: SettlementMetrics::default(),
            shutdown,
            workers: JoinSet::new(),
            running: HashMap::new(),
            measured: 0,
        };
        Self {
            supervisor: tokio::spawn(supervisor.run(segments)),
        }
    }

    /// Waits until all workers have ended their last batch; call it after the shutdown token was cancelled.
    pub async fn stopped(self) {
        if let Err(failed) = self.supervisor.await {
            error!(%failed, "settlement supervisor ended badly");
        }
    }
}

struct Supervisor {
    parts: Arc<Parts>,
    metrics: SettlementMetrics,
    shutdown: CancellationToken,
    workers: JoinSet<()>,
    running: HashMap<SegmentId, Running>,
    /// How often the queues were measured.
    measured: u64,
}

struct Running {
    task: Id,
    /// Ends the worker alone, when its segment goes.
    token: CancellationToken,
    /// Set by the worker when it has pulled something.
    has_pulled: Arc<AtomicBool>,
    /// What waited when it was last measured.
    depth: Option<QueueDepth>,
}

impl Running {
    fn is_due(&self, segment: &SegmentId, measured: u64) -> bool {
        let is_empty = self.depth.is_some_and(|depth| depth.entries == 0);
        // Not all at the same time.
        let is_turn = (measured + u64::from(segment.tag())).is_multiple_of(MEASURE_EMPTY);
        self.has_pulled.swap(false, Ordering::Relaxed) || !is_empty || is_turn
    }
}

impl Supervisor {
    async fn run(mut self, mut segments: watch::Receiver<Vec<SegmentId>>) {
        let mut measure = tokio::time::interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wanted = segments.borrow_and_update().clone();
            self.match_workers(wanted);
            let watch_is_open = segments.has_changed().is_ok();
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                _ = segments.changed(), if watch_is_open => {}
                _ = measure.tick() => self.measure().await,
                Some(ended) = self.workers.join_next_with_id() => self.forget(ended),
            }
        }
        while let Some(ended) = self.workers.join_next().await {
            if let Err(failed) = ended {
                error!(%failed, "settlement worker ended badly");
            }
        }
    }

    /// Starts what is missing and ends what is no longer wanted.
    fn match_workers(&mut self, wanted: Vec<SegmentId>) {
        let wanted: std::collections::HashSet<SegmentId> = wanted.into_iter().collect();
        self.running.retain(|segment, running| {
            let is_wanted = wanted.contains(segment);
            if !is_wanted {
                running.token.cancel();
            }
            is_wanted
        });
        for segment in wanted {
            if self.running.contains_key(&segment) {
                continue;
            }
            let token = self.shutdown.child_token();
            let has_pulled = Arc::new(AtomicBool::new(false));
            let worker = Worker {
                segment: segment.clone(),
                parts: self.parts.clone(),
                metrics: self.metrics.clone(),
                shutdown: token.clone(),
                has_pulled: has_pulled.clone(),
                failures: 0,
            };
            let running = Running {
                task: self.workers.spawn(worker.run()).id(),
                token,
                has_pulled,
                depth: None,
            };
            self.running.insert(segment, running);
        }
    }

    /// A worker that panicked is started again by the next [`Self::match_workers`].
    fn forget(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(failed) => {
                error!(%failed, "settlement worker died; starting another");
                failed.id()
            }
        };
        self.running.retain(|_, running| running.task != id);
    }

    async fn measure(&mut self) {
        match self.parts.ledger.letters_open().await {
            Ok(letters) => {
                UNCOUNTED.works("dead letters");
                self.metrics.dead_letters.set(letters as f64);
            }
            Err(error) => UNCOUNTED.failed("dead letters", &error),
        }
        self.measured += 1;
        let due = self.running.iter();
        let due = due.filter(|(segment, running)| running.is_due(segment, self.measured));
        let due: Vec<SegmentId> = due.map(|(segment, _)| segment.clone()).collect();
        let store = &self.parts.store;
        let depths: Vec<_> = stream::iter(due)
            .map(async |segment| {
                let depth = store.depth(&segment).await;
                (segment, depth)
            })
            .buffer_unordered(MEASURED_AT_ONCE)
            .collect()
            .await;
        let mut failed = None;
        for (segment, depth) in depths {
            let running = self.running.get_mut(&segment);
            let running = running.expect("no worker ends while it is measured");
            // What is not known is measured again next time.
            running.depth = depth.map_err(|error| failed = Some(error)).ok();
        }
        // The gauges keep their last values rather than fall to a comforting 0.
        if let Some(error) = failed {
            return UNCOUNTED.failed("queues", &error);
        }
        UNCOUNTED.works("queues");
        let known = self.running.values().filter_map(|running| running.depth);
        let (mut entries, mut oldest_age_ms) = (0, 0);
        for depth in known {
            entries += depth.entries;
            oldest_age_ms = oldest_age_ms.max(depth.oldest_age_ms);
        }
        self.metrics.queue_depth.set(entries as f64);
        let oldest_age_seconds = oldest_age_ms as f64 / 1000.0;
        self.metrics.oldest_age_seconds.set(oldest_age_seconds);
    }
}
