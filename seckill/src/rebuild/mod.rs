//! Watches the segments of all sales and rebuilds those whose store has lost something, one rebuilder at a time over all nodes.
//!
//! The store itself stops a segment when another server answers for it than the one that sold, so safety does not depend on the speed
//! of this watch: buyers get 503 until the rebuild is done. A second rebuilder is harmless because of the epoch that the ledger hands
//! out: the store refuses every step under an older one. The lease only saves work.

mod claim;
mod diagnosis;
mod metrics;
mod steps;
mod store_address;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use stock::{Rebuild, StockError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    diagnosis::{Seen, diagnose},
    metrics::RebuildMetrics,
    steps::Steps,
};
use crate::{
    clock::WallClock,
    ids::{SaleId, SegmentId},
    lease::Lease,
    ledger::{LedgerError, OrderLedger},
    locks::Locked,
    pace::Pace,
    sale::Sale,
    ticks::{Ticks, bounded},
};
use limiter::troubles::Troubles;

pub(crate) use self::diagnosis::doubts;
pub use self::{
    claim::{ClaimError, claim},
    diagnosis::Cause,
    steps::Rebuilt,
    store_address::StoreAddress,
};

/// How often segments are looked at, those at rest less often (`pace.rs`): bounds how long a segment stays frozen before its rebuild
/// begins.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Segments that are looked at or rebuilt at the same time: a restarted server may have lost all of its segments at once, and one
/// that takes long must not keep the others' buyers waiting.
const AT_ONCE: usize = 8;
/// A segment whose store takes longer to answer is looked at again next time.
const ANSWER: Duration = Duration::from_secs(5);

/// Why a segment was not rebuilt. It stays frozen, and the next look tries again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The ledger gave no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store gave no answer.
    #[error(transparent)]
    Stock(#[from] StockError),
    /// Another node holds the lease now, and rebuilds.
    #[error("the recovery lease has gone to another node")]
    LeaseLost,
    /// The sale of the segment is not in the ledger, so nobody can say what it holds.
    #[error("sale {0} is not in the ledger")]
    UnknownSale(SaleId),
}

/// What to do with a segment that was whole at another address and that the store here does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebuildElsewhere {
    /// Leave it alone until the operator says that the store has moved.
    Refused,
    /// `rebuild_elsewhere` is set: rebuild it here.
    Allowed,
}

/// The watch over the segments of a node's sales.
pub struct Rebuilder {
    store: Arc<dyn Rebuild>,
    ledger: OrderLedger,
    clock: WallClock,
    /// Asked by all rebuilds that are under way, one after another.
    lease: tokio::sync::Mutex<Box<dyn Lease>>,
    metrics: RebuildMetrics,
    /// Where the store is, and whether segments that were elsewhere may be rebuilt there. Without it every store is taken for the
    /// one that there was.
    address: Option<(StoreAddress, RebuildElsewhere)>,
    /// The newest epoch and version seen of each segment. Bounded by the segments in `segments`.
    seen: Mutex<HashMap<SegmentId, Watched>>,
    /// Failed rebuilds in a row of each segment that waits for one.
    failures: Mutex<HashMap<SegmentId, u32>>,
}

static UNSEEN: Troubles = Troubles::new("segments are not looked at");
static UNBUILT: Troubles = Troubles::new("segments are not rebuilt and sell nothing");

/// What is known of a segment from the looks before.
#[derive(Default)]
struct Watched {
    seen: Seen,
    pace: Pace,
}

/// What became of one segment at a look.
enum Looked {
    /// Nothing was to be done, or the store is away.
    LeftAlone,
    /// It needs a rebuild and did not get it.
    Waits,
    Rebuilt,
    LeaseLost,
}

impl Rebuilder {
    /// Joins the parts.
    pub fn new(
        store: Arc<dyn Rebuild>,
        ledger: OrderLedger,
        clock: WallClock,
        lease: Box<dyn Lease>,
    ) -> Self {
        Self {
            store,
            ledger,
            clock,
            lease: tokio::sync::Mutex::new(lease),
            metrics: RebuildMetrics::new(),
            address: None,
            seen: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// The same for a store at this place: a segment that was seen whole somewhere else and is not known here is left alone, unless
    /// the operator has said otherwise. The node may have been pointed at the wrong store, while others sell from the right one.
    pub fn at(self, address: StoreAddress, elsewhere: RebuildElsewhere) -> Self {
        Self {
            address: Some((address, elsewhere)),
            ..self
        }
    }

    /// Looks every second until `shutdown`, then gives the lease back.
    pub async fn run(
        mut self,
        segments: watch::Receiver<Vec<SegmentId>>,
        shutdown: CancellationToken,
    ) {
        let mut ticks = Ticks::every(LOOK_EVERY);
        let mut tick = 0;
        while ticks.next(&shutdown).await {
            tick += 1;
            let wanted = segments.borrow().clone();
            // A rebuild that shutdown interrupts is begun anew by the next holder.
            tokio::select! {
                () = shutdown.cancelled() => break,
                looked = self.look_at_tick(&wanted, Some(tick)) => {
                    match looked {
                        Ok(_) => UNSEEN.works("all"),
                        Err(error) => UNSEEN.failed("all", &error),
                    }
                }
            }
        }
        if let Err(error) = self.lease.get_mut().give_up().await {
            warn!(%error, "recovery lease was not given back; it runs out by itself");
        }
    }

    /// One look at all segments, rebuilding what needs it, if this node has the lease. One segment's trouble holds up no other.
    /// Answers how many were rebuilt.
    pub async fn look(&mut self, segments: &[SegmentId]) -> Result<usize, RebuildError> {
        self.look_at_tick(segments, None).await
    }

    /// The same at a tick of the timer: segments at rest are looked at at some of them only.
    async fn look_at_tick(
        &mut self,
        segments: &[SegmentId],
        tick: Option<u64>,
    ) -> Result<usize, RebuildError> {
        let held = self.lease.get_mut().hold().await;
        self.metrics.is_leader(matches!(held, Ok(Some(_))));
        let Some(token) = held? else {
            self.seen.locked().clear();
            return Ok(0);
        };
        let wanted: HashSet<&SegmentId> = segments.iter().collect();
        self.seen
            .locked()
            .retain(|segment, _| wanted.contains(segment));
        self.failures
            .locked()
            .retain(|segment, _| wanted.contains(segment));
        let (epochs, addresses) = self.in_ledger(segments).await?;
        let mut looks = Vec::with_capacity(segments.len());
        for segment in segments {
            // A segment that was never opened has nothing to recover; the engine opens it.
            let Some(epoch) = epochs.get(segment) else {
                continue;
            };
            if !self.is_due(segment, tick) {
                continue;
            }
            let seen_at = addresses.get(segment).map_or("", String::as_str);
            looks.push(self.look_at(segment, *epoch, seen_at, token));
        }
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        let (mut rebuilt, mut waiting) = (0, 0);
        while let Some(looked) = looks.next().await {
            match looked {
                Looked::LeftAlone => {}
                Looked::Rebuilt => rebuilt += 1,
                Looked::Waits => waiting += 1,
                // The others would find the same at their next step; what they have begun is begun anew by the new holder.
                Looked::LeaseLost => break,
            }
        }
        self.metrics.waiting(waiting);
        Ok(rebuilt)
    }

    async fn look_at(&self, segment: &SegmentId, epoch: u64, seen_at: &str, token: u64) -> Looked {
        let cause = match self.diagnose(segment, epoch).await {
            Ok(Some(cause)) => cause,
            Ok(None) => {
                self.note_address(segment, seen_at).await;
                return Looked::LeftAlone;
            }
            // The store is away: nothing can be rebuilt in it, and buyers are refused already.
            Err(error) => {
                self.seen
                    .locked()
                    .entry(segment.clone())
                    .or_default()
                    .pace
                    .disturb();
                tracing::debug!(%segment, %error, "segment was not looked at");
                return Looked::LeftAlone;
            }
        };
        if cause == Cause::Lost && self.is_elsewhere(seen_at) {
            error!(%segment, seen_at, here = self.here(), "this store never had the segment: is the node pointed at the right one? if it moved and its data is lost, set rebuild_elsewhere");
            return Looked::Waits;
        }
        error!(%segment, cause = cause.as_str(), "segment needs a rebuild; it sells nothing until then");
        match self.rebuild(segment, cause, token).await {
            Ok(done) => {
                self.note_address(segment, seen_at).await;
                UNBUILT.works(segment);
                info!(%segment, epoch = done.epoch, orders = done.orders, held = done.held, rescued = done.rescued, "segment rebuilt");
                Looked::Rebuilt
            }
            Err(RebuildError::LeaseLost) => {
                self.metrics.failed();
                warn!(%segment, "lease lost in the middle of a rebuild");
                Looked::LeaseLost
            }
            Err(error) => {
                self.metrics.failed();
                *self.failures.locked().entry(segment.clone()).or_default() += 1;
                UNBUILT.failed(segment, &error);
                Looked::Waits
            }
        }
    }

    /// The epochs of segments that were ever opened, and where they were last seen whole. The number of questions does
    /// not grow with the segments.
    async fn in_ledger(
        &self,
        segments: &[SegmentId],
    ) -> Result<(HashMap<SegmentId, u64>, HashMap<SegmentId, String>), LedgerError> {
        let sales: HashSet<&SaleId> = segments.iter().map(|segment| &segment.sale).collect();
        let sales: Vec<&SaleId> = sales.into_iter().collect();
        let (epochs, mut addresses) = (self.ledger.epochs_of(&sales).await?, HashMap::new());
        if self.address.is_some() {
            for sale in sales {
                addresses.extend(self.ledger.store_addresses_of(sale).await?);
            }
        }
        Ok((epochs, addresses))
    }

    fn is_due(&self, segment: &SegmentId, tick: Option<u64>) -> bool {
        let seen = self.seen.locked();
        let watched = seen.get(segment).zip(tick);
        watched.is_none_or(|(watched, tick)| {
            // Not all at the same tick.
            let tick = tick + u64::from(segment.index);
            watched.pace.is_due(tick, (self.clock)())
        })
    }

    /// Whether a segment that is not known here was whole at another place, and nobody has said that it may be rebuilt here.
    fn is_elsewhere(&self, seen_at: &str) -> bool {
        match &self.address {
            Some((address, RebuildElsewhere::Refused)) => {
                !seen_at.is_empty() && !address.may_be(seen_at)
            }
            Some((_, RebuildElsewhere::Allowed)) | None => false,
        }
    }

    fn here(&self) -> String {
        let address = self.address.as_ref();
        address.map_or_else(String::new, |(address, _)| address.to_string())
    }

    /// Remembers that a segment is whole here. Its data may have moved with it, or a server joined the cluster.
    async fn note_address(&self, segment: &SegmentId, seen_at: &str) {
        let Some((address, _)) = &self.address else {
            return;
        };
        let here = address.to_string();
        if here == seen_at {
            return;
        }
        if let Err(error) = self.ledger.set_store_address(segment, &here).await {
            warn!(%segment, %error, "where the segment is was not written down, trying again");
        }
    }

    async fn diagnose(
        &self,
        segment: &SegmentId,
        epoch: u64,
    ) -> Result<Option<Cause>, RebuildError> {
        let counts = match bounded(ANSWER, self.store.snapshot(segment)).await {
            Ok(counts) => Some(counts),
            Err(StockError::NotOpen(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let mut all = self.seen.locked();
        let watched = all.entry(segment.clone()).or_default();
        let cause = diagnose(epoch, counts.as_ref(), watched.seen);
        match counts.filter(|_| cause.is_none()) {
            Some(counts) => {
                watched.seen.learn(&counts);
                watched.pace.learn(&counts);
            }
            None => watched.pace.disturb(),
        }
        Ok(cause)
    }

    async fn rebuild(
        &self,
        segment: &SegmentId,
        cause: Cause,
        token: u64,
    ) -> Result<Rebuilt, RebuildError> {
        let sale: Sale = self
            .ledger
            .sale(&segment.sale)
            .await?
            .ok_or_else(|| RebuildError::UnknownSale(segment.sale.clone()))?;
        let started = tokio::time::Instant::now();
        let rebuild = Steps {
            store: &*self.store,
            ledger: &self.ledger,
            clock: &self.clock,
            lease: &self.lease,
            token,
            sale: &sale,
            segment,
            failures: self
                .failures
                .locked()
                .get(segment)
                .copied()
                .unwrap_or_default(),
        };
        let done = rebuild.run().await?;
        self.seen.locked().remove(segment);
        self.failures.locked().remove(segment);
        self.metrics.rebuilt(cause, started.elapsed());
        Ok(done)
    }
}
