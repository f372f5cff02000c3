//! From one request to the store, and back.
//!
//! A purchase goes to the store by itself; the store lets those that arrive together share one round trip or one sync. Its decision goes
//! on when its caller goes away (`decided.rs`), and while it goes on it is known to be under way ([`crate::sku_stock::InFlight`]). Carts take several
//! segments in one step (`carts.rs`).

mod carts;
mod decided;

use std::sync::{Arc, atomic::Ordering};

use stock::{Purchase, Selling, StockError, Verdict, Wanted};
use tokio::{runtime::Handle, time::Instant};

pub use self::carts::{CartRequest, Carts, Line, buy_cart};
use limiter::troubles::Troubles;

use self::decided::decided;
use crate::sku_stock::SegmentRuntime;

/// What became of a purchase, or of a cart, as seen by the caller that waited for it.
#[derive(Debug, Clone)]
pub enum Outcome<V = Verdict> {
    /// The store has decided, or the memory of what is sold out.
    Decided(V),
    /// The deadline passed, or the store cannot say: it may have been bought. The caller polls with the same ids.
    Unknown,
    /// Certainly nothing happened; retry later.
    Unavailable,
}

static UNDECIDED: Troubles = Troubles::new("purchases are not decided");

/// Decides a purchase and waits for the verdict.
///
/// If the caller goes away, or its deadline passes, before the purchase's turn has come in the store, it is never decided. After that it
/// takes place and is found under its request id. Either way no unit is lost or leaked.
pub async fn buy(
    segment: &Arc<SegmentRuntime>,
    store: Arc<dyn Selling>,
    purchase: Purchase,
    deadline: Instant,
) -> Outcome {
    let in_flight = &segment.in_flight;
    let Some(entry) = in_flight.enter(&purchase.buyer, &purchase.request) else {
        return Outcome::Unavailable;
    };
    let segment = segment.clone();
    let decide = |wanted| async move {
        let verdict = decide(&segment, &*store, &purchase, &wanted).await;
        match &verdict {
            Ok(_) => UNDECIDED.works(&segment.id),
            // Nobody waited for it any more: that says nothing of the store.
            Err(StockError::Unavailable(_)) if wanted.is_given_up() => {}
            Err(error) => UNDECIDED.failed(&segment.id, error),
        }
        if matches!(verdict, Ok(Verdict::Accepted { .. })) {
            segment.accepted.notify_one();
        }
        drop(entry);
        verdict
    };
    decided(&Handle::current(), deadline, decide).await
}

/// Decides a purchase; if the segment has moved to a new epoch, learns it and decides once more with the same ids.
async fn decide(
    segment: &SegmentRuntime,
    store: &dyn Selling,
    purchase: &Purchase,
    wanted: &Wanted,
) -> Result<Verdict, StockError> {
    let ask = |epoch| store.buy(&segment.id, epoch, purchase.clone(), wanted.clone());
    let mut epoch = segment.epoch();
    let mut verdict = ask(epoch).await?;
    if let Verdict::StaleEpoch { current } = verdict {
        // Never back: another call may have learnt a newer one meanwhile.
        segment.epoch.fetch_max(current, Ordering::AcqRel);
        epoch = current;
        verdict = ask(epoch).await?;
    }
    learn(segment, epoch, purchase, &verdict);
    Ok(verdict)
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
