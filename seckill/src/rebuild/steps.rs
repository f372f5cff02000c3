//! The rebuild of one segment: fence, rescue, begin anew, load, open.
//!
//! 1. *Fence.* The ledger raises the epoch, so settlement under the old one is over; the store freezes under the new one.
//! 2. *Rescue.* What the store has and the ledger does not is settled into the ledger: what it never had (the queue), and what it
//!    had and lost (a failover to a standby that lagged, a restored copy). From here on the ledger has everything that can be
//!    known, so nothing is lost if this process dies at any later step.
//! 3. *Begin anew, load.* The store forgets the segment and takes the ledger's orders: live ones with their units, returned ones
//!    as tombstones, so that replays, limits and late retries find what they found before. Orders that wait as dead letters are
//!    loaded after them, as held: otherwise their units were sold again before an operator could decide.
//! 4. *Open*, with the gate that the operator wants now.
//!
//! Orders may change in the ledger while they are loaded (paid, returned). Their effects wait: the store does none until step 4.

use std::collections::HashSet;

use stock::{OrderState, Position, Rebuild, StockError, StockMoves, StoredOrder};
use tokio::sync::Mutex;
use tracing::{error, warn};

use crate::{
    clock::WallClock,
    ids::SegmentId,
    lease::Lease,
    ledger::{DeadLetter, LedgerError, OrderLedger, Raised, Refilled, Settled},
    sale::Sale,
};

use super::RebuildError;

/// Orders in one call or one transaction.
const PAGE: usize = 512;
/// Rebuilds that fail for a reason that may be one order's (it is not known) before the orders are tried alone, and before one of them
/// is set aside although no other could be settled either.
const TRIES_TOGETHER: u32 = 3;
const TRIES_AT_ALL: u32 = 60;
/// How often the epoch is raised above one that the store turns out to have. Only another rebuilder can make it a second time.
const RAISES: usize = 4;

/// What a rebuild did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// The epoch that the segment has now.
    pub epoch: u64,
    /// Orders loaded from the ledger.
    pub orders: u64,
    /// Orders that are dead letters and go on holding their units.
    pub held: u64,
    /// Orders that only the store had, settled on the way.
    pub rescued: u64,
}

/// One rebuild and what it works on.
pub(super) struct Steps<'a> {
    pub(super) store: &'a dyn Rebuild,
    pub(super) ledger: &'a OrderLedger,
    pub(super) clock: &'a WallClock,
    pub(super) lease: &'a Mutex<Box<dyn Lease>>,
    pub(super) token: u64,
    pub(super) sale: &'a Sale,
    pub(super) segment: &'a SegmentId,
    /// How many rebuilds of the segment have failed before.
    pub(super) failures: u32,
}

impl Steps<'_> {
    pub(super) async fn run(&self) -> Result<Rebuilt, RebuildError> {
        let epoch = self.fence().await?;
        let rescued = self.refill(epoch).await? + self.rescue(epoch).await?;
        self.begin(epoch).await?;
        let orders = self.load(epoch).await?;
        let held = self.hold_letters(epoch).await?;
        // The operator may have moved the gate meanwhile; one that is moved after this is set by the next refresh.
        let gate = match self.ledger.sale(&self.sale.id).await? {
            Some(sale) => sale.gate,
            None => self.sale.gate,
        };
        self.store.rebuild_finish(self.segment, epoch, gate).await?;
        Ok(Rebuilt {
            epoch,
            orders,
            held,
            rescued,
        })
    }

    /// Raises the epoch in the ledger and freezes the store under it.
    async fn fence(&self) -> Result<u64, RebuildError> {
        let mut above = 0;
        for _ in 0..RAISES {
            let epoch = match self
                .ledger
                .raise_epoch(self.segment, above, self.token)
                .await?
            {
                Raised::To(epoch) => epoch,
                Raised::LeaseLost => return Err(RebuildError::LeaseLost),
                Raised::NeverOpened => {
                    return Err(StockError::NotOpen(self.segment.clone()).into());
                }
            };
            match self.store.freeze(self.segment, epoch).await {
                Ok(_) => return Ok(epoch),
                // The store is ahead: the ledger is an older copy, or somebody rebuilds at the same time.
                Err(StockError::StaleEpoch { current, .. }) => above = current,
                Err(error) => return Err(error.into()),
            }
        }
        Err(RebuildError::LeaseLost)
    }

    /// Fills the ledger again with what it had and lost. Only where the counts say that there may be any: it reads all orders.
    async fn refill(&self, epoch: u64) -> Result<u64, RebuildError> {
        let counts = match self.store.snapshot(self.segment).await {
            Ok(counts) => counts,
            // The store has nothing at all.
            Err(StockError::NotOpen(_)) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        if counts.accepted <= self.ledger.order_count(self.segment).await?
            && counts.sold <= self.ledger.paid_units(self.segment).await?
        {
            return Ok(0);
        }
        let set_aside = self.ledger.set_aside_in(self.segment).await?;
        let (mut after, mut rescued) = (Position::default(), 0);
        loop {
            self.keep_lease().await?;
            let mut page = self.store.accepted_after(self.segment, after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(rescued);
            };
            after = *last;
            page.retain(|(position, order)| {
                !set_aside.contains(&position.to_string())
                    && !set_aside.contains(&order.order.to_string())
            });
            let orders: Vec<StoredOrder> = page.iter().map(|(_, order)| order.clone()).collect();
            let now_ms = (self.clock)();
            match self
                .ledger
                .refill(self.segment, epoch, &orders, now_ms)
                .await
            {
                Ok(refilled) => {
                    let is_new = |outcome: &&Refilled| {
                        !matches!(
                            outcome,
                            Refilled::Known | Refilled::Settled(Settled::Duplicate)
                        )
                    };
                    rescued += refilled.iter().filter(is_new).count() as u64;
                }
                Err(error) if self.may_be_one_order(&error) => {
                    let settled = self.settle_alone(epoch, &page, now_ms).await?;
                    rescued += settled.len() as u64;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Settles what is on the store's queue.
    async fn rescue(&self, epoch: u64) -> Result<u64, RebuildError> {
        let (mut after, mut rescued) = (Position::default(), 0);
        loop {
            self.keep_lease().await?;
            let page = self.store.unsettled(self.segment, after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(rescued);
            };
            after = *last;
            let orders: Vec<StoredOrder> = page.iter().map(|(_, order)| order.clone()).collect();
            let now_ms = (self.clock)();
            let settled = match self
                .ledger
                .settle(self.segment, epoch, &orders, now_ms)
                .await
            {
                Err(error) if self.may_be_one_order(&error) => {
                    self.settle_alone(epoch, &page, now_ms).await?
                }
                settled => settled?,
            };
            let is_new = |outcome: &&Settled| **outcome != Settled::Duplicate;
            rescued += settled.iter().filter(is_new).count() as u64;
        }
    }

    fn may_be_one_order(&self, error: &LedgerError) -> bool {
        error.is_about_one_order()
            || error.may_be_about_one_order() && self.failures >= TRIES_TOGETHER
    }

    /// One order at a time; what the ledger refuses for its own sake is set aside, as settlement would.
    async fn settle_alone(
        &self,
        epoch: u64,
        page: &[(Position, StoredOrder)],
        now_ms: u64,
    ) -> Result<Vec<Settled>, RebuildError> {
        let mut outcomes = Vec::with_capacity(page.len());
        let (mut letters, mut suspects) = (Vec::new(), Vec::new());
        for (position, order) in page {
            let one = std::slice::from_ref(order);
            let letter = |error: &LedgerError| {
                let (segment, position) = (self.segment.clone(), position.to_string());
                DeadLetter::of_order(segment, position, order, error.to_string())
            };
            match self.ledger.settle(self.segment, epoch, one, now_ms).await {
                Ok(settled) => outcomes.extend(settled),
                Err(error) if error.is_about_one_order() => letters.push(letter(&error)),
                Err(error) if error.may_be_about_one_order() => {
                    suspects.push((letter(&error), error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if outcomes.is_empty() && self.failures < TRIES_AT_ALL && !suspects.is_empty() {
            // Probably the database after all.
            return Err(suspects.swap_remove(0).1.into());
        }
        let one_at_most = if outcomes.is_empty() { 1 } else { usize::MAX };
        letters.extend(
            suspects
                .drain(..)
                .take(one_at_most)
                .map(|(letter, _)| letter),
        );
        if !letters.is_empty() {
            self.ledger.set_aside(&letters, now_ms).await?;
            error!(segment = %self.segment, entries = letters.len(), "entries set aside");
        }
        Ok(outcomes)
    }

    async fn begin(&self, epoch: u64) -> Result<(), RebuildError> {
        let spec = self
            .sale
            .segment_specs()
            .into_iter()
            .find(|spec| spec.id == *self.segment)
            .ok_or_else(|| StockError::NotOpen(self.segment.clone()))?;
        let moves = self.moves(epoch).await?;
        Ok(self.store.rebuild_begin(&spec, epoch, &moves).await?)
    }

    /// What came to the segment and left it, as the ledger has it; where the store knows of more, the ledger has lost transfers that had
    /// ended, and is told so first. Which they were the store does not say: their units are enough.
    async fn moves(&self, epoch: u64) -> Result<StockMoves, RebuildError> {
        let moves = self.ledger.stock_moves(self.sale, self.segment).await?;
        let counts = match self.store.snapshot(self.segment).await {
            // Nothing moves in a sku that is not cut.
            Ok(counts) if self.sale.segments > 1 => counts,
            Ok(_) | Err(StockError::NotOpen(_)) => return Ok(moves),
            Err(error) => return Err(error.into()),
        };
        let sum = |moves: &[(String, u64)]| moves.iter().map(|(_, units)| units).sum::<u64>();
        let came = counts.restocked.saturating_sub(sum(&moves.restocks));
        // What was taken for a transfer that a rebuild has called off comes home.
        let called_off = self.ledger.called_off_units(self.segment).await?;
        let left = counts.withdrawn.saturating_sub(sum(&moves.withdrawals));
        let left = left.saturating_sub(called_off);
        if (came, left) == (0, 0) {
            return Ok(moves);
        }
        warn!(segment = %self.segment, came, left, "the ledger has lost movements of units; written down again");
        let now_ms = (self.clock)();
        let ledger = self.ledger;
        ledger
            .record_lost_moves(self.segment, epoch, came, left, now_ms)
            .await?;
        Ok(ledger.stock_moves(self.sale, self.segment).await?)
    }

    async fn load(&self, epoch: u64) -> Result<u64, RebuildError> {
        let (mut after, mut loaded) = (None, 0);
        loop {
            self.keep_lease().await?;
            let page = self
                .ledger
                .segment_orders(self.segment, after, PAGE)
                .await?;
            let Some(last) = page.last() else {
                return Ok(loaded);
            };
            after = Some(last.order);
            loaded += page.len() as u64;
            let orders: Vec<StoredOrder> = page.iter().map(|order| order.as_stored()).collect();
            self.store
                .rebuild_load(self.segment, epoch, &orders)
                .await?;
        }
    }

    /// Goes on holding the units of orders that wait as dead letters, as far as the ledger's orders have left any. What is not
    /// held cannot be settled later; its replay says so.
    async fn hold_letters(&self, epoch: u64) -> Result<u64, RebuildError> {
        let (mut after, mut held) = (None, 0);
        let mut left = self.store.snapshot(self.segment).await?.available;
        // A request has one order, here as in the ledger. Bounded by the letters of the segment.
        let mut requests = HashSet::new();
        loop {
            self.keep_lease().await?;
            let page = self.ledger.held_letters(self.segment, after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(held);
            };
            after = Some(last.order);
            let mut orders = Vec::with_capacity(page.len());
            for order in page {
                let (sale, sku) = (&self.segment.sale, &self.segment.sku);
                let taken = self
                    .ledger
                    .order_by_request(sale, sku, &order.buyer, &order.request);
                let needs = match order.state {
                    OrderState::Released => 0,
                    OrderState::Reserved | OrderState::Sold => u64::from(order.quantity),
                };
                if taken.await?.is_some()
                    || !requests.insert((order.buyer.clone(), order.request.clone()))
                {
                    continue;
                }
                if needs > left {
                    warn!(segment = %self.segment, order = %order.order, needs, left, "no units are left for the order of a dead letter");
                    continue;
                }
                left -= needs;
                orders.push(order);
            }
            held += orders.len() as u64;
            self.store
                .rebuild_load(self.segment, epoch, &orders)
                .await?;
        }
    }

    /// A long rebuild must not outlive its lease without noticing.
    async fn keep_lease(&self) -> Result<(), RebuildError> {
        match self.lease.lock().await.hold().await? {
            Some(token) if token == self.token => Ok(()),
            _ => Err(RebuildError::LeaseLost),
        }
    }
}
