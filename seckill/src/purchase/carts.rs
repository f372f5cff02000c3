//! Carts: several skus of one sale, all or nothing, in one store call.
//!
//! Carts go to the store side by side, so many at a time and not more; a store serves what arrives together in one go (one frame of
//! the journal, one pipeline to Redis).

use std::sync::{Arc, atomic::Ordering};

use stock::{CartLine, CartVerdict, Metadata, Purchase, Selling, StockError, Verdict};
use tokio::{runtime::Handle, sync::Semaphore, time::Instant};

use super::{Outcome, UNDECIDED, decided::decided, learn};
use crate::{
    ids::{BuyerId, OrderId, RequestId},
    sku_stock::{InFlight, SegmentRuntime, Stock},
};

/// Carts of one sale that the store decides at the same time.
const IN_FLIGHT: usize = 128;

/// One line of a cart: units of a stock, and the id its order gets.
#[derive(Clone)]
pub struct Line {
    /// What to buy.
    pub stock: Arc<Stock>,
    /// The id of the line's order, if the cart is accepted.
    pub order: OrderId,
    /// Units.
    pub quantity: u32,
}

impl Line {
    /// The sku's one segment: a sale with carts is not cut.
    pub fn segment(&self) -> &Arc<SegmentRuntime> {
        &self.stock.segments[0]
    }
}

/// A cart, its form already checked.
#[derive(Clone)]
pub struct CartRequest {
    /// Who buys.
    pub buyer: BuyerId,
    /// The caller's idempotency key.
    pub request: RequestId,
    /// Hash of the whole cart.
    pub fingerprint: u64,
    /// What each of its orders keeps for the shop.
    pub metadata: Option<Metadata>,
    /// What to buy, no sku twice.
    pub lines: Vec<Line>,
}

/// The carts of one sale that are under way.
pub struct Carts {
    /// What bounds the calls of the store; never closed.
    permits: Semaphore,
    /// All of them, those that wait for a permit included.
    pub in_flight: InFlight,
}

impl Default for Carts {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(IN_FLIGHT),
            in_flight: InFlight::default(),
        }
    }
}

/// Decides a cart on `runtime` and waits for the verdict. `on_accepted` is called if it was accepted.
///
/// If the caller goes away, or its deadline passes, before the store was asked, the store never is. After that the cart takes
/// place, also if nobody waits for it any more, and is found under its request id. Either way no unit is lost or leaked.
pub async fn buy_cart(
    carts: &Arc<Carts>,
    store: Arc<dyn Selling>,
    cart: CartRequest,
    deadline: Instant,
    runtime: &Handle,
    on_accepted: impl FnOnce() + Send + 'static,
) -> Outcome<CartVerdict> {
    let Some(entry) = carts.in_flight.enter(&cart.buyer, &cart.request) else {
        return Outcome::Unavailable;
    };
    let carts = carts.clone();
    let decide = |wanted: stock::Wanted| async move {
        let _entry = entry;
        let permit = carts.permits.acquire().await;
        // Nobody waits for it any more: buying for it would hold units that nobody knows of.
        if permit.is_err() || wanted.is_given_up() {
            return Err(StockError::Unavailable("nobody waits for it".to_owned()));
        }
        let verdict = decide(&cart, &*store).await;
        let sale = &cart.lines[0].segment().id.sale;
        match &verdict {
            Ok(_) => UNDECIDED.works(sale),
            Err(error) => UNDECIDED.failed(sale, error),
        }
        if matches!(verdict, Ok(CartVerdict::Accepted(_))) {
            on_accepted();
        }
        verdict
    };
    decided(runtime, deadline, decide).await
}

/// Decides a cart; for every line whose segment has moved to a new epoch, learns it and decides again with the same ids.
async fn decide(cart: &CartRequest, store: &dyn Selling) -> Result<CartVerdict, StockError> {
    let mut stale_lines = 0;
    loop {
        let lines: Vec<CartLine> = cart
            .lines
            .iter()
            .map(|line| cart_line(cart, line))
            .collect();
        let verdict = store.buy_cart(lines.clone()).await?;
        if let CartVerdict::Refused {
            line,
            verdict: Verdict::StaleEpoch { current },
        } = &verdict
            && stale_lines < cart.lines.len()
        {
            stale_lines += 1;
            // Never back: another call may have learnt a newer one meanwhile.
            let epoch = &cart.lines[*line].segment().epoch;
            epoch.fetch_max(*current, Ordering::AcqRel);
            continue;
        }
        let learn_line = |line: usize, verdict: &Verdict| {
            let asked = &lines[line];
            learn(
                cart.lines[line].segment(),
                asked.epoch,
                &asked.purchase,
                verdict,
            );
        };
        match &verdict {
            CartVerdict::Accepted(verdicts) => {
                for (line, verdict) in verdicts.iter().enumerate() {
                    learn_line(line, verdict);
                }
            }
            CartVerdict::Replayed(orders) => {
                for (line, order) in orders.iter().enumerate() {
                    learn_line(line, &Verdict::Replayed(order.clone()));
                }
            }
            // Half a cart may be known: the line that is named need not be the one that accepted the request.
            CartVerdict::Refused {
                verdict: Verdict::KeyReused,
                ..
            } => {}
            CartVerdict::Refused { line, verdict } => learn_line(*line, verdict),
        }
        return Ok(verdict);
    }
}

fn cart_line(cart: &CartRequest, line: &Line) -> CartLine {
    CartLine {
        segment: line.segment().id.clone(),
        epoch: line.segment().epoch(),
        purchase: Purchase {
            order: line.order,
            buyer: cart.buyer.clone(),
            request: cart.request.clone(),
            fingerprint: cart.fingerprint,
            quantity: line.quantity,
            metadata: cart.metadata.clone(),
        },
    }
}
