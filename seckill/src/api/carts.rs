//! `…/v1/sales/{sale}/carts`: several skus in one purchase, all or nothing.
//!
//! Each line becomes an order of its own, which is paid, cancelled and returned like any other; the cart is the orders that share
//! buyer and request id. `DELETE` gives the whole cart back, `DELETE /v1/orders/{id}` one line of it.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, Path, Query, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::{Value, json};
use stock::{CartVerdict, MAX_CART_LINES, Metadata, StoredOrder, Verdict};
use tokio::time::Instant;

use super::{
    Api, admit,
    buy::{
        self, BodyLine, QUANTITY_MAX, in_query, not_known_yet, refusal, replayed, standing_now,
        unavailable,
    },
    extract, metadata,
    orders::{RETRY_MS, SETTLE_WAIT, order_document, stored_document},
    problem::{Code, Problem},
    stock_of,
};
use crate::{
    catalogue::OpenSale,
    engine::FoundOrder,
    ids::{BuyerId, RequestId},
    ledger::{CancelAll, Standing},
    metrics::PurchaseResult,
    purchase::Outcome,
    sale::Admission,
    sku_stock::Stock,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CartBody {
    lines: Vec<BodyLine>,
    #[serde(default)]
    metadata: Option<metadata::Given>,
}

/// A cart whose form is right.
struct Checked {
    sale: Arc<OpenSale>,
    buyer: BuyerId,
    request: RequestId,
    lines: Vec<(Arc<Stock>, u32)>,
    metadata: Option<Metadata>,
}

pub(super) async fn buy(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let named = extract::path(path);
    let answered = async {
        let sale = named.as_deref().map_err(Problem::clone)?;
        let cart = check(&api, sale, &head.headers, body).await?;
        let (lines, request) = (cart.lines.clone(), cart.request.clone());
        let (buyer, metadata) = (cart.buyer.clone(), cart.metadata.clone());
        let outcome = api
            .engine
            .buy_cart(&cart.sale, lines, buyer, request, metadata)
            .await;
        let result = PurchaseResult::of(&outcome);
        let response = answer(&api, &cart, outcome).await;
        Ok((cart.sale, result, response))
    };
    let answered = answered.await;
    buy::counted(&api, named, answered, started)
}

async fn check(api: &Api, sale: &str, headers: &HeaderMap, body: Body) -> Result<Checked, Problem> {
    let buyer = api.buyer(headers)?;
    let request = extract::request_id(headers)?;
    extract::is_json(headers)?;
    let body: CartBody = extract::document(&buy::read(body).await?)?;
    let sale = with_carts(api.sale(sale)?)?;
    // Who was let through once and is shut out now finds the cart by its request id, and buys nothing more.
    if let Some(problem) = admit::listed(api, &sale.sale, &buyer) {
        return Err(problem);
    }
    let lines = sum_lines(&sale, body.lines)?;
    let metadata = metadata::checked(body.metadata, api.find_secret)?;
    Ok(Checked {
        sale,
        buyer,
        request,
        lines,
        metadata,
    })
}

fn with_carts(sale: Arc<OpenSale>) -> Result<Arc<OpenSale>, Problem> {
    if sale.sale.rules.admission == Admission::Token {
        let detail = "a token of this sale buys one sku, once; send it to …/orders";
        return Err(Problem::new(Code::NoCarts, detail));
    }
    if sale.sale.carts {
        return Ok(sale);
    }
    let detail = format!(
        "sale {0} was created without carts; buy its skus one by one at /v1/sales/{0}/orders",
        sale.sale.id
    );
    Err(Problem::new(Code::NoCarts, detail))
}

/// The lines with each sku once: what stands twice is summed before anything is checked, or two lines within the limit could pass it
/// together.
fn sum_lines(
    sale: &OpenSale,
    lines_of_body: Vec<BodyLine>,
) -> Result<Vec<(Arc<Stock>, u32)>, Problem> {
    let mut lines: Vec<(Arc<Stock>, i128)> = Vec::new();
    for (index, line) in lines_of_body.into_iter().enumerate() {
        let stock = stock_of(sale, &line.sku)?;
        in_range(index, &stock, line.quantity)?;
        match lines.iter_mut().find(|(known, _)| known.sku == stock.sku) {
            Some((_, quantity)) => {
                *quantity += line.quantity;
                in_range(index, &stock, *quantity)?;
            }
            None => lines.push((stock, line.quantity)),
        }
    }
    if !(1..=MAX_CART_LINES).contains(&lines.len()) {
        let detail = format!(
            "lines: must name 1 to {MAX_CART_LINES} skus, not {}",
            lines.len()
        );
        return Err(Problem::new(Code::InvalidBody, detail));
    }
    if let Some(limit) = sale.sale.rules.order_limit
        && let Some((stock, quantity)) = lines
            .iter()
            .find(|(_, quantity)| *quantity > i128::from(limit))
    {
        let detail = format!(
            "{quantity} of {}: one order of this sale may hold at most {limit}",
            stock.sku
        );
        return Err(Problem::new(Code::OrderLimit, detail).with_sku(&stock.sku));
    }
    let narrow = |(stock, quantity)| (stock, quantity as u32);
    Ok(lines.into_iter().map(narrow).collect())
}

fn in_range(index: usize, stock: &Stock, quantity: i128) -> Result<(), Problem> {
    if (1..=QUANTITY_MAX).contains(&quantity) {
        return Ok(());
    }
    let detail = format!(
        "lines[{index}].quantity: {quantity} of {} must be a whole number from 1 to {QUANTITY_MAX}",
        stock.sku
    );
    Err(Problem::new(Code::InvalidQuantity, detail).with_sku(&stock.sku))
}

async fn answer(api: &Api, cart: &Checked, outcome: Outcome<CartVerdict>) -> Response {
    let verdict = match outcome {
        Outcome::Decided(verdict) => verdict,
        Outcome::Unknown => return unknown(&cart.sale, &cart.request),
        Outcome::Unavailable => return unavailable().into_response(),
    };
    match verdict {
        CartVerdict::Accepted(verdicts) => {
            let orders = verdicts.into_iter().filter_map(|verdict| match verdict {
                Verdict::Accepted { order, .. } => Some((Standing::in_store(order.state), order)),
                _ => None,
            });
            bought(StatusCode::CREATED, cart, orders)
        }
        CartVerdict::Replayed(orders) => {
            let mut standing = Vec::with_capacity(orders.len());
            for order in orders {
                match standing_now(api, &order).await {
                    Some(now) => standing.push((now, order)),
                    None => return unknown(&cart.sale, &cart.request),
                }
            }
            replayed(bought(StatusCode::OK, cart, standing))
        }
        CartVerdict::Refused { line, verdict } => {
            let (stock, quantity) = &cart.lines[line];
            refusal(&cart.sale.sale, verdict, *quantity)
                .with_sku(&stock.sku)
                .into_response()
        }
    }
}

fn bought(
    status: StatusCode,
    cart: &Checked,
    orders: impl IntoIterator<Item = (Standing, StoredOrder)>,
) -> Response {
    let line = |((stock, _), (standing, order)): (&(Arc<Stock>, u32), (Standing, StoredOrder))| {
        let price = Some((&*cart.sale, stock.price_minor));
        stored_document(&stock.segments[0].id, &order, standing, price)
    };
    let orders = cart.lines.iter().zip(orders).map(line).collect();
    let document = document(&cart.sale, &cart.buyer, &cart.request, orders);
    (status, Json(document)).into_response()
}

fn document(sale: &OpenSale, buyer: &BuyerId, request: &RequestId, orders: Vec<Value>) -> Value {
    let amounts = orders.iter().map(|order| order["amount_minor"].as_i64());
    // 16 lines of at most 10^18 fit into 63 bits only with luck; a sum that does not is left out rather than wrong.
    let total = amounts
        .reduce(|sum, next| sum?.checked_add(next?))
        .flatten();
    json!({
        "object": "cart", "sale": sale.sale.id, "buyer": buyer, "request_id": request,
        "amount_minor": total, "currency": sale.sale.currency, "orders": orders,
    })
}

fn unknown(sale: &OpenSale, request: &RequestId) -> Response {
    let (sale, key) = (&sale.sale.id, in_query(request));
    let poll = format!("/v1/sales/{sale}/carts?request_id={key}");
    not_known_yet("cart", None, &poll)
}

#[derive(Deserialize)]
struct Poll {
    request_id: String,
}

/// The cart that a query names, if the header's buyer bought it.
pub(super) struct Named {
    open: Arc<OpenSale>,
    buyer: BuyerId,
    request: RequestId,
}

impl FromRequestParts<Arc<Api>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let buyer = api.buyer(&parts.headers)?;
        let query = Query::<Poll>::from_request_parts(parts, api).await;
        let request = extract::id(&extract::query(query)?.request_id, Code::InvalidRequest)?;
        let sale: String = extract::path(Path::from_request_parts(parts, api).await)?;
        let open = with_carts(api.sale(&sale)?)?;
        Ok(Self {
            open,
            buyer,
            request,
        })
    }
}

fn no_such_cart() -> Problem {
    Problem::new(
        Code::NoSuchOrder,
        "no cart of this buyer has that request id",
    )
}

pub(super) async fn poll(State(api): State<Arc<Api>>, cart: Named) -> Result<Response, Problem> {
    // Asked before the store is: what is being decided now may be there by the time it is looked for, never the other way.
    let is_deciding = cart
        .open
        .carts
        .in_flight
        .is_deciding(&cart.buyer, &cart.request);
    let found = api
        .engine
        .cart(&cart.open, &cart.buyer, &cart.request)
        .await?;
    match found.is_empty() {
        false => Ok(Json(cart.document(&api, &found)).into_response()),
        true if is_deciding => Ok(unknown(&cart.open, &cart.request)),
        true => Err(no_such_cart()),
    }
}

/// Gives the whole cart back, or nothing of it: a line that is paid or being paid keeps the others.
pub(super) async fn cancel(State(api): State<Arc<Api>>, cart: Named) -> Result<Response, Problem> {
    let found = api
        .engine
        .cart(&cart.open, &cart.buyer, &cart.request)
        .await?;
    if found.is_empty() {
        return Err(no_such_cart());
    }
    let ledger = api.engine.ledger();
    let waits = found.iter().map(async |found| match found {
        FoundOrder::Settled(order) => Some(order.order),
        FoundOrder::Accepted(_, order) => {
            let settled = ledger.once_settled(order.order, SETTLE_WAIT).await;
            settled.map(|settled| settled.order)
        }
    });
    let settled = futures_util::future::join_all(waits).await;
    let Some(orders) = settled.into_iter().collect::<Option<Vec<_>>>() else {
        let detail = "the cart is on its way into the ledger; cancel it again";
        return Err(Problem::new(Code::InFlight, detail).retry_after_ms(RETRY_MS));
    };
    let now_ms = api.engine.now_ms();
    let cancelled = ledger.cancel_all(&orders, &cart.buyer, now_ms).await;
    match cancelled? {
        CancelAll::Cancelled(orders) => {
            let orders = orders.into_iter().map(Box::new).map(FoundOrder::Settled);
            let orders: Vec<_> = orders.collect();
            Ok(Json(cart.document(&api, &orders)).into_response())
        }
        CancelAll::NotCancellable(order) => {
            let detail = format!(
                "the order of {} is {}; a cart is cancelled whole or not at all",
                order.segment.sku, order.status
            );
            Err(Problem::new(Code::NotCancellable, detail).with_sku(&order.segment.sku))
        }
        CancelAll::Unknown(_) => Err(no_such_cart()),
    }
}

impl Named {
    fn document(&self, api: &Api, orders: &[FoundOrder]) -> Value {
        let told = |order: &FoundOrder| order_document(api, order, api.waiting.serve(order));
        let orders = orders.iter().map(told).collect();
        document(&self.open, &self.buyer, &self.request, orders)
    }
}

#[cfg(test)]
mod tests;
