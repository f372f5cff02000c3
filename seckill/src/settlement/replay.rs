//! Takes dead letters up again: the order as the store has it → the ledger, exactly once, or back to the letters with a reason.
//!
//! The store is asked first, because the ledger must not have an order whose units nobody holds (INV-ORDER-2): what the store
//! has given back meanwhile arrives as returned, what it has lost is not taken up at all.

use std::sync::Arc;

use metrics::Counter;
use serde::Serialize;
use stock::{Gate, Lookup, Selling, StockError, StoredOrder};
use tracing::info;

use crate::{
    clock::WallClock,
    engine::EngineError,
    ids::{OrderId, SaleId, SegmentId},
    ledger::{LetterId, OrderLedger, Replayed, Settled},
    words::words,
};

words! {
    /// How one replay ended.
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Outcome {
        /// The order is in the ledger now. The letter is closed, as it is for the next three.
        Settled = "settled",
        /// It was there already.
        Duplicate = "duplicate",
        /// It is recorded as refused: no unit was left, and the operator said that this is enough.
        Refused = "refused",
        /// An earlier replay had closed the letter; nothing was changed.
        Before = "before",
        /// No unit is left for it; restock, or replay with `or_refuse`. The letter stays, as it does for all below.
        NoUnits = "no_units",
        /// Its request has another order, which stands.
        SecondOrder = "second_order",
        /// The ledger refuses the order for its own sake; the reason says why.
        Failed = "failed",
        /// The entry could not be read: there is no order to take up.
        Unreadable = "unreadable",
        /// The store no longer knows the order, so that nobody holds units for it: it was lost, and a rebuild found none left.
        Lost = "lost",
        /// There is no such letter.
        Unknown = "unknown",
    }
}

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

/// What became of a page of letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayPage {
    /// One answer for each letter.
    pub replays: Vec<Replay>,
    /// Where to go on, if there may be more.
    pub next: Option<LetterId>,
}

impl Outcome {
    fn is_closed(self) -> bool {
        matches!(
            self,
            Self::Settled | Self::Duplicate | Self::Refused | Self::Before
        )
    }
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
            closed: outcome.is_closed(),
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
    ) -> Result<ReplayPage, EngineError> {
        let page = self.ledger.dead_letters(sale, after, limit).await?;
        let mut replays = Vec::with_capacity(page.letters.len());
        for letter in &page.letters {
            replays.push(self.one(sale, &letter.id, or_refuse).await?);
        }
        let next = page.next;
        Ok(ReplayPage { replays, next })
    }

    async fn decide(
        &self,
        sale: &SaleId,
        id: &LetterId,
        or_refuse: bool,
    ) -> Result<(Outcome, String), EngineError> {
        let Some(letter) = self.ledger.dead_letter(sale, id).await? else {
            return Ok((
                Outcome::Unknown,
                "no letter of this sale has that id".to_owned(),
            ));
        };
        if let Some(outcome) = letter.outcome {
            return Ok(before(&outcome));
        }
        let Some(order) = letter.order else {
            return self
                .stays(sale, id, Outcome::Unreadable, &letter.reason)
                .await;
        };
        let segment = id.segment_of(sale);
        let now_ms = (self.clock)();
        let (epoch, stored) = self.in_store(&segment, order).await?;
        let replayed = match (epoch, stored, letter.held.filter(|_| or_refuse)) {
            (Some(epoch), Some(stored), _) => {
                let found = (epoch, &stored);
                let replayed = self.ledger.replay(sale, id, found, or_refuse, now_ms);
                replayed.await?
            }
            (Some(epoch), None, Some(held)) => {
                let lost = (epoch, &held);
                self.ledger.refuse_lost(sale, id, lost, now_ms).await?
            }
            _ if id.position == order.to_string() => {
                let outcome = Outcome::SecondOrder;
                return self.stays(sale, id, outcome, &letter.reason).await;
            }
            _ => return self.stays(sale, id, Outcome::Lost, LOST).await,
        };
        Ok(match replayed {
            Replayed::Closed(Settled::Settled) => {
                (Outcome::Settled, format!("order {order} is in the ledger"))
            }
            Replayed::Closed(Settled::Duplicate) => (
                Outcome::Duplicate,
                format!("order {order} was in the ledger already"),
            ),
            Replayed::Closed(Settled::Refused) => (
                Outcome::Refused,
                format!("order {order} is recorded as refused"),
            ),
            Replayed::Closed(Settled::SecondOrder) | Replayed::SecondOrder => {
                let detail =
                    format!("the request of order {order} has another order, which stands");
                (Outcome::SecondOrder, detail)
            }
            Replayed::NoUnits { wanted, left } => {
                let detail = format!(
                    "order {order} wants {wanted} units and {left} are left: restock, or replay with or_refuse"
                );
                (Outcome::NoUnits, detail)
            }
            Replayed::Refused(reason) => (Outcome::Failed, reason),
            Replayed::Before(outcome) => before(&outcome),
            Replayed::Unknown => (Outcome::Unknown, "the letter is gone".to_owned()),
        })
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
    ) -> Result<(Outcome, String), EngineError> {
        self.ledger.count_failed_replay(sale, id, detail).await?;
        Ok((outcome, detail.to_owned()))
    }
}

fn before(outcome: &str) -> (Outcome, String) {
    (
        Outcome::Before,
        format!("an earlier replay closed it: {outcome}"),
    )
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
