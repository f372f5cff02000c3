//! Takes dead letters up again: the order as the store has it → the ledger, exactly once, or back to the letters with a reason.
//!
//! The store is asked first, because the ledger must not have an order whose units nobody holds (INV-ORDER-2): what the store
//! has given back meanwhile arrives as returned, what it has lost is not taken up at all.

use std::sync::Arc;

use metrics::Counter;
use serde::Serialize;
use stock::{Gate, Lookup, Selling, StockError, StoredOrder};
use tracing::info;

pub use crate::ledger::ReplayOutcome as Outcome;
use crate::{
    clock::WallClock,
    engine::EngineError,
    ids::{OrderId, SaleId, SegmentId},
    ledger::{LetterId, OrderLedger, Page, Replayed, closed_before},
};

const LOST: &str =
    "the store holds nothing for the order any more; replay with or_refuse to tell its buyer";

/// The answer to one replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Which letter.
    pub id: LetterId,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the letter is dealt with.
    pub closed: bool,
    /// What an operator should know.
    pub detail: String,
}

/// Replays letters, for the admin API.
#[derive(Clone)]
pub struct Replayer {
    store: Arc<dyn Selling>,
    ledger: OrderLedger,
    clock: WallClock,
    counters: Arc<[Counter]>,
}

impl Replayer {
    /// Joins the parts.
    pub fn new(store: Arc<dyn Selling>, ledger: OrderLedger, clock: WallClock) -> Self {
        let counter = |outcome: Outcome| metrics::counter!("penstock_dead_letter_replays_total", "outcome" => outcome.as_str());
        Self {
            store,
            ledger,
            clock,
            counters: Outcome::ALL.map(counter).into(),
        }
    }

    /// Replays one letter.
    pub async fn one(
        &self,
        sale: &SaleId,
        id: &LetterId,
        or_refuse: bool,
    ) -> Result<Replay, EngineError> {
        let (outcome, detail) = self.decide(sale, id, or_refuse).await?;
        self.counters[outcome as usize].increment(1);
        info!(%sale, letter = %id, ?outcome, detail, "dead letter replayed");
        Ok(Replay {
            id: id.clone(),
            outcome,
            closed: matches!(
                outcome,
                Outcome::Settled | Outcome::Duplicate | Outcome::Refused | Outcome::Before
            ),
            detail,
        })
    }

    /// Replays a page of the letters that wait, each by itself: one that fails again holds up no other.
    pub async fn page(
        &self,
        sale: &SaleId,
        after: Option<&LetterId>,
        limit: usize,
        or_refuse: bool,
    ) -> Result<Page<Replay, LetterId>, EngineError> {
        let page = self.ledger.dead_letters(sale, after, limit).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for letter in &page.rows {
            rows.push(self.one(sale, &letter.id, or_refuse).await?);
        }
        let next = page.next;
        Ok(Page { rows, next })
    }

    async fn decide(
        &self,
        sale: &SaleId,
        id: &LetterId,
        or_refuse: bool,
    ) -> Result<Replayed, EngineError> {
        let Some(letter) = self.ledger.dead_letter(sale, id).await? else {
            return Ok((
                Outcome::Unknown,
                "no letter of this sale has that id".to_owned(),
            ));
        };
        if let Some(outcome) = letter.outcome {
            return Ok(closed_before(&outcome));
        }
        let Some(order) = letter.order else {
            return self
                .stays(sale, id, Outcome::Unreadable, &letter.reason)
                .await;
        };
        let segment = id.segment_of(sale);
        let now_ms = (self.clock)();
        let (epoch, stored) = self.in_store(&segment, order).await?;
        match (epoch, stored, letter.held.filter(|_| or_refuse)) {
            (Some(epoch), Some(stored), _) => {
                let found = (epoch, &stored);
                let replayed = self.ledger.replay(sale, id, found, or_refuse, now_ms);
                Ok(replayed.await?)
            }
            (Some(epoch), None, Some(held)) => {
                let lost = (epoch, &held);
                Ok(self.ledger.refuse_lost(sale, id, lost, now_ms).await?)
            }
            _ if id.position == order.to_string() => {
                let outcome = Outcome::SecondOrder;
                self.stays(sale, id, outcome, &letter.reason).await
            }
            _ => self.stays(sale, id, Outcome::Lost, LOST).await,
        }
    }

    /// The epoch of a segment and what its store holds of an order.
    async fn in_store(
        &self,
        segment: &SegmentId,
        order: OrderId,
    ) -> Result<(Option<u64>, Option<StoredOrder>), EngineError> {
        // The epoch first: if the segment is rebuilt after this, the ledger refuses what the store said before.
        let counts = match self.store.snapshot(segment).await {
            Ok(counts) => counts,
            // Lost: it is rebuilt, or so old that nobody will.
            Err(StockError::NotOpen(_)) => {
                if !self.is_forgotten(&segment.sale).await? {
                    return Err(StockError::AwaitsRebuild(segment.clone()).into());
                }
                let epochs = self.ledger.epochs_of(&[&segment.sale]).await?;
                return Ok((epochs.get(segment).copied(), None));
            }
            Err(error) => return Err(error.into()),
        };
        // During a rebuild the store holds what was read so far: the ledger would get an order that the rebuild has passed.
        if counts.gate == Gate::Frozen || counts.needs_rebuild {
            return Err(StockError::AwaitsRebuild(segment.clone()).into());
        }
        let stored = self.store.find(segment, &Lookup::Order(order)).await?;
        Ok((Some(counts.epoch), stored))
    }

    /// Whether nobody may repeat a request of a sale any more, so that nobody rebuilds what was lost of it.
    async fn is_forgotten(&self, sale: &SaleId) -> Result<bool, EngineError> {
        let sale = self.ledger.sale(sale).await?;
        Ok(sale.is_none_or(|sale| (self.clock)() >= sale.kept_until_ms()))
    }

    /// Counts a replay that the ledger was not even asked about.
    async fn stays(
        &self,
        sale: &SaleId,
        id: &LetterId,
        outcome: Outcome,
        detail: &str,
    ) -> Result<Replayed, EngineError> {
        self.ledger.count_failed_replay(sale, id, detail).await?;
        Ok((outcome, detail.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_under_its_word() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
            assert_eq!(serde_json::json!(outcome), outcome.as_str());
        }
    }
}
