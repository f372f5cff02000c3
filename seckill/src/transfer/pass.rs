//! One look at all segments of a sku, and what follows: chunks for the homes that wait, or the word that there is nothing left.
//! What is said of the whole sku ("sold out") is said here.

use std::time::Duration;

use futures_util::future::join_all;
use metrics::Counter;
use stock::{Gate, SegmentStatus};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{Arrived, TransferError, Transfers, plan};
use crate::{
    ledger::{Transfer, TransferMark},
    sku_stock::{Found, Job, Stock, StockCounts, is_selling},
};

/// How long a segment may take to tell its counts. One that takes longer gives nothing in this pass, and nothing is said of it.
const READ: Duration = Duration::from_secs(1);
/// Another node's transfer takes milliseconds; it is waited for in steps of this, and then so many of them.
const OTHERS_STEP: Duration = Duration::from_millis(10);
const OTHERS_STEPS: u32 = 20;

/// `penstock_stock_transfers_total` and `penstock_stock_transferred_units_total`.
pub(super) struct Counters {
    arrived: Counter,
    empty: Counter,
    unfinished: Counter,
    units: Counter,
}

impl Counters {
    pub(super) fn new() -> Self {
        let outcome = |outcome: &'static str| metrics::counter!("penstock_stock_transfers_total", "outcome" => outcome);
        Self {
            arrived: outcome("arrived"),
            empty: outcome("empty"),
            unfinished: outcome("unfinished"),
            units: metrics::counter!("penstock_stock_transferred_units_total"),
        }
    }
}

/// Those of one home that wait.
struct Waiting {
    home: usize,
    wants: Vec<(u64, oneshot::Sender<Found>)>,
}

impl Waiting {
    /// Enough for the largest purchase that all units together can serve. For a larger one nothing moves.
    fn wanted(&self, all: u64) -> u64 {
        let can_be = self.wants.iter().filter(|(units, _)| *units <= all);
        can_be.map(|(units, _)| *units).max().unwrap_or(0)
    }
}

/// One look and what follows from it.
pub(super) struct Pass<'a> {
    pub(super) stock: &'a Stock,
    pub(super) transfers: &'a Transfers,
    pub(super) counters: &'a Counters,
}

/// What a pass has read, and changed.
struct Observation {
    /// The memory's mark from before anything was read.
    mark: u64,
    /// The ledger's, likewise.
    before: TransferMark,
    /// Whether a transfer that was stuck came to its end meanwhile.
    has_unstuck: bool,
    /// Each segment, where it answered.
    snapshots: Vec<Option<SegmentStatus>>,
    /// Units for sale in each segment that can give and take, now.
    available: Vec<Option<u64>>,
    /// Transfers of this pass.
    begun: u64,
}

impl Observation {
    /// Whether a segment is known to have so many units.
    fn has(&self, place: usize, units: u64) -> bool {
        self.available[place].is_some_and(|has| has >= units)
    }
}

impl Pass<'_> {
    pub(super) async fn run(self, jobs: Vec<Job>) {
        let mut waiting: Vec<Waiting> = Vec::new();
        for job in jobs {
            let Job::Want {
                home,
                quantity,
                answer,
            } = job
            else {
                continue;
            };
            if answer.is_closed() {
                continue;
            }
            match waiting.iter_mut().find(|waiting| waiting.home == home) {
                Some(waiting) => waiting.wants.push((quantity, answer)),
                None => waiting.push(Waiting {
                    home,
                    wants: vec![(quantity, answer)],
                }),
            }
        }
        match self.observe().await {
            Ok(seen) if waiting.is_empty() => self.balance(seen).await,
            Ok(seen) => self.serve(seen, waiting).await,
            // Their answers are dropped with them: nobody can tell.
            Err(error) => {
                let (sale, sku) = (&self.stock.sale, &self.stock.sku);
                tracing::warn!(%sale, %sku, %error, "the stock's transfers cannot be read");
            }
        }
    }

    async fn observe(&self) -> Result<Observation, TransferError> {
        let mark = self.stock.sold_out.look();
        let before = self.await_others().await?;
        let read = self.stock.segments.iter().map(|segment| async {
            match timeout(READ, self.transfers.store.snapshot(&segment.id)).await {
                Ok(Ok(snapshot)) => Some(snapshot),
                Ok(Err(_)) | Err(_) => None,
            }
        });
        // Beside the reading, which takes as long where a segment does not answer.
        let stuck = before.stuck.iter().map(|transfer| self.unstick(transfer));
        let (snapshots, unstuck) = tokio::join!(join_all(read), join_all(stuck));
        let now_ms = (self.transfers.clock)();
        for snapshot in snapshots.iter().flatten() {
            self.stock.observe(snapshot, now_ms);
        }
        let usable = |snapshot: &Option<SegmentStatus>| {
            let snapshot = snapshot.as_ref()?;
            let is_frozen = snapshot.gate == Gate::Frozen || snapshot.needs_rebuild;
            (!is_frozen).then_some(snapshot.available)
        };
        Ok(Observation {
            mark,
            before,
            has_unstuck: unstuck.contains(&true),
            available: snapshots.iter().map(usable).collect(),
            snapshots,
            begun: 0,
        })
    }

    /// The ledger's mark, if possible one without a transfer under way: those of other nodes are waited for a little. One that cannot
    /// be finished now is set aside: the segments that answer go on without it.
    async fn await_others(&self) -> Result<TransferMark, TransferError> {
        let (sale, sku) = (&self.stock.sale, &self.stock.sku);
        for _ in 0..OTHERS_STEPS {
            let mark = self.transfers.ledger.transfer_mark(sale, sku).await?;
            if mark.open.is_none() {
                return Ok(mark);
            }
            sleep(OTHERS_STEP).await;
        }
        // One that takes this long may have lost its node. Finishing it for that node is always allowed.
        let mark = self.transfers.ledger.transfer_mark(sale, sku).await?;
        let Some(open) = mark.open else {
            return Ok(mark);
        };
        let id = open.id.clone();
        self.bring(open).await;
        let mark = self.transfers.ledger.transfer_mark(sale, sku).await?;
        if mark.open.as_ref().is_none_or(|open| open.id != id) {
            return Ok(mark);
        }
        self.transfers.ledger.transfer_stuck(&id).await?;
        Ok(self.transfers.ledger.transfer_mark(sale, sku).await?)
    }

    async fn serve(&self, mut seen: Observation, waiting: Vec<Waiting>) {
        let all = seen.available.iter().flatten().sum();
        // From a home that has what its own buyers wait for nothing is taken in this pass.
        let mut is_kept = vec![false; self.stock.segments.len()];
        for waiting in &waiting {
            is_kept[waiting.home] = seen.has(waiting.home, waiting.wanted(all).max(1));
        }
        let mut unserved = Vec::new();
        for waiting in waiting {
            let (home, wanted) = (waiting.home, waiting.wanted(all));
            self.gather(&mut seen, &is_kept, home, wanted).await;
            is_kept[home] = seen.has(home, wanted.max(1));
            for (quantity, answer) in waiting.wants {
                match seen.has(home, quantity) {
                    true => drop(answer.send(Found::Units)),
                    false => unserved.push((quantity, answer)),
                }
            }
        }
        // Only what is known of all segments is the whole truth; without it the answers are dropped.
        let all: Option<u64> = seen.available.iter().copied().sum();
        let (Some(left), false) = (all, unserved.is_empty()) else {
            return;
        };
        let Some(is_still) = self.is_still(&seen).await else {
            return;
        };
        if left == 0 && is_still {
            self.remember_empty(&seen).await;
        }
        let is_stuck = !seen.before.stuck.is_empty() && !seen.has_unstuck;
        for (quantity, answer) in unserved {
            let found = match is_still && quantity > left {
                true => Found::SoldOut { left },
                // What is left may be on its way for long: deciding again at once would only repeat this.
                false if is_stuck => Found::Unknown,
                // There may be units on their way, or enough in homes of others who wait: they go first.
                false => Found::Units,
            };
            let _ = answer.send(found);
        }
    }

    /// Tries once more to finish a transfer that was set aside; whether it has come to its end.
    async fn unstick(&self, stuck: &Transfer) -> bool {
        match timeout(READ, self.transfers.finish(stuck.clone())).await {
            Ok(Ok(arrived)) => {
                self.learn(&arrived);
                true
            }
            // Nothing new: it was logged when it was set aside, and by each sweep.
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Brings chunks to `home` until it has `wanted` units, one from each other segment at most.
    async fn gather(&self, seen: &mut Observation, is_kept: &[bool], home: usize, wanted: u64) {
        let id_of = |place: usize| self.stock.segments[place].id.index;
        for _ in 1..self.stock.segments.len() {
            let gives_not =
                |place: usize| is_kept[place] || seen.before.is_stuck(id_of(place), id_of(home));
            let chunk = plan::toward(&seen.available, gives_not, home, wanted);
            let Some(chunk) = chunk else { return };
            if !self.carry(seen, chunk).await {
                return;
            }
        }
    }

    async fn balance(&self, mut seen: Observation) {
        let now_ms = (self.transfers.clock)();
        let all_sell = seen
            .snapshots
            .iter()
            .all(|one| one.as_ref().is_some_and(|one| is_selling(one, now_ms)));
        if let Some(chunk) = plan::balance(&seen.available).filter(|_| all_sell) {
            self.carry(&mut seen, chunk).await;
        }
    }

    /// Moves one chunk; false if that did not come to its end.
    async fn carry(&self, seen: &mut Observation, chunk: plan::Chunk) -> bool {
        let source = &self.stock.segments[chunk.source].id;
        let destination = self.stock.segments[chunk.destination].id.index;
        // From here on units may be in no segment.
        self.stock.sold_out.news();
        let begun = self.transfers.begin(source, destination, chunk.units).await;
        let transfer = match begun {
            Ok(Some(transfer)) => transfer,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(%source, %error, "a transfer was not begun");
                return false;
            }
        };
        seen.begun += 1;
        let Some(units) = self.bring(transfer).await else {
            return false;
        };
        // One that gave less than it was asked for has sold the rest meanwhile.
        let rest = |had: u64| (units == chunk.units).then(|| had.saturating_sub(units));
        seen.available[chunk.source] =
            seen.available[chunk.source].map(|had| rest(had).unwrap_or(0));
        seen.available[chunk.destination] =
            seen.available[chunk.destination].map(|had| had + units);
        true
    }

    /// Finishes a transfer and learns from it; the units that arrived, or `None` if it stays open or others have ended it.
    async fn bring(&self, transfer: Transfer) -> Option<u64> {
        let id = transfer.id.clone();
        match self.transfers.finish(transfer).await {
            Ok(arrived) => {
                self.learn(&arrived);
                arrived.units
            }
            Err(error) => {
                self.counters.unfinished.increment(1);
                tracing::warn!(transfer = %id, %error, "a transfer stays open");
                None
            }
        }
    }

    fn learn(&self, arrived: &Arrived) {
        match arrived.units {
            None | Some(0) => self.counters.empty.increment(1),
            Some(units) => {
                self.counters.arrived.increment(1);
                self.counters.units.increment(units);
            }
        }
        if let Some(destination) = &arrived.destination {
            let now_ms = (self.transfers.clock)();
            self.stock.observe(destination, now_ms);
        }
    }

    /// Whether nothing but this pass has moved units since before it looked, and nothing is on its way; `None` if the ledger does
    /// not say.
    async fn is_still(&self, seen: &Observation) -> Option<bool> {
        let (sale, sku) = (&self.stock.sale, &self.stock.sku);
        let now = self.transfers.ledger.transfer_mark(sale, sku).await.ok()?;
        let is_open = seen.before.is_open() || now.is_open();
        Some(!is_open && now.begun == seen.before.begun + seen.begun)
    }

    /// Lets the next requests be refused from memory. Only a look that moved nothing has read counts that belong together.
    async fn remember_empty(&self, seen: &Observation) {
        let now_ms = (self.transfers.clock)();
        let all: Vec<&SegmentStatus> = seen.snapshots.iter().flatten().collect();
        let all_sell = all.iter().all(|one| is_selling(one, now_ms));
        if seen.begun > 0 || !all_sell {
            return;
        }
        for (segment, snapshot) in self.stock.segments.iter().zip(&all) {
            // What other nodes have accepted, so that its retries are known here.
            let store = &*self.transfers.store;
            if let Err(error) = segment
                .sold_out
                .catch_up(&segment.id, store, snapshot)
                .await
            {
                tracing::debug!(segment = %segment.id, %error, "accepted orders were not read");
            }
        }
        let moved = StockCounts::sum(all).moved;
        self.stock.sold_out.found_empty(seen.mark, moved);
    }
}
