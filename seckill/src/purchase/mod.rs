//! From one request to one place in a batch, and back.
//!
//! Every segment has a *lane*: a bounded queue and one task that takes all purchases that wait and decides them in one
//! [`StockStore::buy_many`] call. While a call is under way the next batch gathers, so batches grow with load and a lone
//! request waits for nobody (`combiner.rs`). One slow segment delays no other. Carts take several segments in one step and go by
//! themselves (`carts.rs`).

mod carts;
mod combiner;

use std::sync::{Arc, atomic::Ordering};

use stock::{Purchase, StockError, StockStore, Verdict};
use tokio::time::{Instant, timeout_at};

pub use self::carts::{CartOutcome, CartRequest, Carts, Line, buy_cart};
use self::combiner::Combiner;
use crate::sku_stock::{BATCH_MAX, LaneWork, SegmentRuntime};
use limiter::troubles::Troubles;

/// What became of a purchase, as seen by the caller that waited for it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The store has decided.
    Decided(Verdict),
    /// Refused from memory: nothing is left and the request is new.
    SoldOutFromMemory,
    /// The deadline passed, or the store cannot say: the purchase may have happened. The caller polls with the same ids.
    Unknown,
    /// Certainly nothing happened; retry later.
    Unavailable,
}

/// Puts a purchase into its segment's lane and waits for the verdict.
///
/// If the caller goes away, or its deadline passes, before the lane has taken the purchase up, it is never decided. After that it
/// takes place and is found under its request id. Either way no unit is lost or leaked.
pub async fn buy(segment: &SegmentRuntime, purchase: Purchase, deadline: Instant) -> Outcome {
    let Some(answered) = segment.lane.push(purchase) else {
        return Outcome::Unavailable;
    };
    match timeout_at(deadline, answered).await {
        Ok(Ok(Ok(verdict))) => Outcome::Decided(verdict),
        Ok(Ok(Err(
            StockError::Unavailable(_)
            | StockError::NotOpen(_)
            | StockError::AwaitsRebuild(_)
            | StockError::StaleEpoch { .. },
        ))) => Outcome::Unavailable,
        // The deadline passed, the store cannot say (a corrupt answer may follow an execution), or the lane stopped with the
        // purchase in hand.
        Ok(Ok(Err(StockError::Unknown(_) | StockError::Corrupt(_)))) | Ok(Err(_)) | Err(_) => {
            Outcome::Unknown
        }
    }
}

static UNDECIDED: Troubles = Troubles::new("purchases are not decided");

/// Works a lane until its segment is dropped. One call at a time: a second one in flight makes the batches smaller and spares Redis
/// nothing (`cargo run --release -p benches --bin combining` compares them).
/// `on_accepted` is called once per batch that accepted something.
pub async fn run_lane(
    mut work: LaneWork,
    segment: std::sync::Weak<SegmentRuntime>,
    store: Arc<dyn StockStore>,
    on_accepted: impl Fn() + Send,
) {
    let batch_size = metrics::histogram!("penstock_sale_batch_size");
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut combiner = Combiner::default();
    while combiner.gather(&mut work.waiting, &mut batch).await > 0 {
        let Some(segment) = segment.upgrade() else {
            return;
        };
        // Nobody waits for these any more: buying for them would hold units that nobody knows of.
        batch.retain(|waiting| !waiting.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        batch_size.record(batch.len() as f64);
        let purchases: Arc<[Purchase]> = batch
            .iter()
            .map(|waiting| waiting.purchase.clone())
            .collect();
        segment.lane.set_deciding(purchases.clone());
        let decided = decide(&segment, &*store, &purchases).await;
        segment.lane.set_deciding(Arc::default());
        let mut accepted = false;
        match decided {
            Ok((epoch, verdicts)) => {
                debug_assert_eq!(verdicts.len(), batch.len());
                UNDECIDED.works(&segment.id);
                for (waiting, verdict) in batch.drain(..).zip(verdicts) {
                    accepted |= matches!(verdict, Verdict::Accepted { .. });
                    learn(&segment, epoch, &waiting.purchase, &verdict);
                    let _ = waiting.answer.send(Ok(verdict));
                }
            }
            Err(error) => {
                UNDECIDED.failed(&segment.id, &error);
                for waiting in batch.drain(..) {
                    let _ = waiting.answer.send(Err(error.clone()));
                }
            }
        }
        if accepted {
            on_accepted();
        }
    }
}

/// Decides a batch; if the segment has moved to a new epoch, learns it and decides once more with the same ids. Answers under
/// which epoch.
async fn decide(
    segment: &SegmentRuntime,
    store: &dyn StockStore,
    purchases: &[Purchase],
) -> Result<(u64, Vec<Verdict>), StockError> {
    let epoch = segment.epoch();
    let verdicts = store
        .buy_many(&segment.id, epoch, purchases.to_vec())
        .await?;
    let newer = verdicts.iter().find_map(|verdict| match verdict {
        Verdict::StaleEpoch { current } => Some(*current),
        _ => None,
    });
    match newer {
        None => Ok((epoch, verdicts)),
        Some(current) => {
            // Never back: another call may have learnt a newer one meanwhile.
            segment.epoch.fetch_max(current, Ordering::AcqRel);
            let verdicts = store
                .buy_many(&segment.id, current, purchases.to_vec())
                .await?;
            Ok((current, verdicts))
        }
    }
}

/// Keeps the memory of "sold out" true. A verdict's version belongs to the epoch that its call carried: under another one the
/// store would not have decided.
fn learn(segment: &SegmentRuntime, epoch: u64, purchase: &Purchase, verdict: &Verdict) {
    let remember = || {
        segment
            .sold_out
            .remember(epoch, &purchase.buyer, &purchase.request);
    };
    match verdict {
        Verdict::Accepted {
            remaining, version, ..
        } => {
            remember();
            if *remaining > 0 {
                segment.observe_stocked(epoch, *version);
            }
        }
        Verdict::Replayed(_) | Verdict::KeyReused => remember(),
        Verdict::SoldOut {
            remaining: 0,
            version,
            accepted,
        } => segment.sold_out.observe_empty(epoch, *version, *accepted),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
