//! `POST /v1/sales/{sale}/orders`: the one request that matters at T0.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use stock::{Metadata, StoredOrder, Verdict};
use tokio::time::{Instant, timeout};

use super::{
    Api, admit, extract, metadata,
    orders::stored_document,
    problem::{self, Code, Problem},
    stock_of,
    waiting::wait_params::etag,
};
use crate::{
    catalogue::OpenSale,
    engine::FoundOrder,
    ids::{BuyerId, OrderId, RequestId, SegmentId},
    ledger::Standing,
    metrics::PurchaseResult,
    purchase::Outcome,
    sale::{Admission, Sale},
    sku_stock::Stock,
};

/// Above any sensible buyer limit; a larger number is a mistake, not a body.
pub(super) const QUANTITY_MAX: i128 = 1_000_000;
/// How long a retry waits for the ledger to say where its order stands; then it is told to poll.
const LEDGER_WAIT: Duration = Duration::from_secs(2);
/// When a refusal that passes by itself is worth another try.
pub(super) const RETRY_SOON_MS: u64 = 1_000;

/// A line of a cart. The quantity is wide, so that −1 and 2^63 are told as out of range and not as malformed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BodyLine {
    pub(super) sku: String,
    #[serde(default = "one")]
    pub(super) quantity: i128,
}

/// The body of a purchase: a line, and what belongs to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BuyBody {
    sku: String,
    #[serde(default = "one")]
    quantity: i128,
    #[serde(default)]
    metadata: Option<metadata::Given>,
}

fn one() -> i128 {
    1
}

/// A request whose form is right.
pub(super) struct Checked {
    pub(super) sale: Arc<OpenSale>,
    pub(super) stock: Arc<Stock>,
    pub(super) buyer: BuyerId,
    pub(super) request: RequestId,
    pub(super) quantity: u32,
    pub(super) metadata: Option<Metadata>,
    /// What keeps this buyer from buying now, if anything does.
    pub(super) refusal: Option<Problem>,
}

pub(super) async fn buy(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    // Taken apart by hand: axum's own extractors would copy the header map.
    let (head, body) = request.into_parts();
    let named = extract::path(path);
    let answered = async {
        let sale = named.as_deref().map_err(Problem::clone)?;
        let checked = check(&api, sale, &head.headers, body).await?;
        Ok(decide(&api, checked).await)
    };
    let answered = answered.await;
    counted(&api, named, answered, started)
}

/// The answer to a purchase or a cart, counted among those of its sale.
pub(super) fn counted(
    api: &Api,
    named: Result<String, Problem>,
    answered: Result<(Arc<OpenSale>, PurchaseResult, Response), Problem>,
    started: Instant,
) -> Response {
    let (sale, result, response) = match answered {
        Ok((sale, result, response)) => (Some(sale), result, response),
        Err(problem) => {
            let sale = named.ok().and_then(|sale| api.sale(&sale).ok());
            (sale, refused(&problem), problem.into_response())
        }
    };
    let sale = sale.as_ref().and_then(|sale| sale.metrics.as_ref());
    let took = started.elapsed().as_secs_f64();
    api.engine.metrics.record(sale, result, took);
    response
}

async fn decide(api: &Api, checked: Checked) -> (Arc<OpenSale>, PurchaseResult, Response) {
    if let Some(problem) = checked.refusal.clone() {
        let (result, response) = admit::replay_or(api, &checked, problem).await;
        return (checked.sale, result, response);
    }
    let Checked {
        sale,
        stock,
        buyer,
        request,
        quantity,
        metadata,
        ..
    } = checked;
    let home = stock.home(&buyer).id.clone();
    let outcome = api
        .engine
        .purchase(&stock, buyer, request.clone(), quantity, metadata)
        .await;
    let result = PurchaseResult::of(&outcome);
    let asked = Asked {
        api,
        sale: &sale,
        stock: &stock,
        home: &home,
        request: &request,
        quantity,
    };
    let response = asked.answer(outcome).await;
    (sale, result, response)
}

async fn check(api: &Api, sale: &str, headers: &HeaderMap, body: Body) -> Result<Checked, Problem> {
    let buyer = api.buyer(headers)?;
    extract::is_json(headers)?;
    let body: BuyBody = extract::document(&read(body).await?)?;
    let sale = api.sale(sale)?;
    let stock = stock_of(&sale, &body.sku)?;
    if !(1..=QUANTITY_MAX).contains(&body.quantity) {
        let detail = format!(
            "quantity = {}: must be a whole number from 1 to {QUANTITY_MAX}",
            body.quantity
        );
        return Err(Problem::new(Code::InvalidQuantity, detail));
    }
    if let Some(limit) = sale.sale.rules.order_limit
        && body.quantity > i128::from(limit)
    {
        let detail = format!(
            "quantity = {}: one order of this sale may hold at most {limit}",
            body.quantity
        );
        return Err(Problem::new(Code::OrderLimit, detail));
    }
    let quantity = body.quantity as u32;
    let metadata = metadata::checked(body.metadata, api.find_secret)?;
    let (request, refusal) = admit::request(api, &sale, &stock.sku, &buyer, quantity, headers)?;
    Ok(Checked {
        sale,
        stock,
        buyer,
        request,
        quantity,
        metadata,
        refusal,
    })
}

/// A body of bounded length.
pub(super) async fn read(body: Body) -> Result<Bytes, Problem> {
    let collected = Limited::new(body, super::BODY_LIMIT).collect().await;
    let collected = collected.map_err(|error| match error.is::<LengthLimitError>() {
        true => Problem::new(
            Code::BodyTooLarge,
            format!("at most {} bytes are allowed", super::BODY_LIMIT),
        ),
        false => Problem::new(Code::InvalidBody, "the body did not arrive"),
    })?;
    Ok(collected.to_bytes())
}

pub(super) fn refused(problem: &Problem) -> PurchaseResult {
    match problem.code() {
        Code::NoSuchSale | Code::NoSuchSku => PurchaseResult::NotFound,
        Code::Blocked
        | Code::NotAllowed
        | Code::NotDrawn
        | Code::TokenRequired
        | Code::TokenInvalid
        | Code::TokenExpired => PurchaseResult::NotAdmitted,
        _ => PurchaseResult::Invalid,
    }
}

/// What was asked for, to be answered.
struct Asked<'a> {
    api: &'a Api,
    sale: &'a OpenSale,
    stock: &'a Stock,
    home: &'a SegmentId,
    request: &'a RequestId,
    quantity: u32,
}

impl Asked<'_> {
    async fn answer(&self, outcome: Outcome) -> Response {
        let verdict = match outcome {
            Outcome::Decided(verdict) => verdict,
            Outcome::Unknown => return unknown(self.home, self.request, None),
            Outcome::Unavailable => return unavailable().into_response(),
        };
        match verdict {
            Verdict::Accepted { order, .. } => {
                let standing = Standing::in_store(order.state);
                self.found(StatusCode::CREATED, &order, standing)
            }
            Verdict::Replayed(order) => self.again(&order).await,
            Verdict::SoldOut { remaining: 0, .. } => problem::sold_out(),
            refused => refusal(&self.sale.sale, refused, self.quantity).into_response(),
        }
    }

    /// The order of a request that is sent again, and where it stands now.
    async fn again(&self, order: &StoredOrder) -> Response {
        match standing_now(self.api, order).await {
            Some(standing) => replayed(self.found(StatusCode::OK, order, standing)),
            None => unknown(self.home, self.request, Some(order.order)),
        }
    }

    fn found(&self, status: StatusCode, order: &StoredOrder, standing: Standing) -> Response {
        let price = Some((self.sale, self.stock.price_minor));
        let document = stored_document(self.home, order, standing, price);
        let headers = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (status, headers, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag(standing));
        if status == StatusCode::CREATED
            && let Ok(location) = HeaderValue::try_from(format!("/v1/orders/{}", order.order))
        {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

/// Where an order of the store stands. The ledger is asked: the store hears of a cancellation or a payment after it, and another
/// node may have told the buyer of it (INV-ORDER-5). While the ledger is away, the store's word counts if nothing can come after it.
/// `None`: the order exists, but nobody can say how it stands.
pub(super) async fn standing_now(api: &Api, order: &StoredOrder) -> Option<Standing> {
    let (ledger, id) = (api.engine.ledger().clone(), order.order);
    let asked = api.on_control(async move { timeout(LEDGER_WAIT, ledger.order(id)).await });
    match asked.await? {
        Ok(Ok(Some(settled))) => Some(api.waiting.serve(&FoundOrder::Settled(Box::new(settled)))),
        // On its way into the ledger: nobody but the store has done anything to it yet.
        Ok(Ok(None)) => Some(api.waiting.serve_stored(order)),
        Ok(Err(_)) | Err(_) => {
            let is_final = Standing::in_store(order.state).status.is_final();
            is_final.then(|| api.waiting.serve_stored(order))
        }
    }
}

/// Certainly nothing happened.
pub(super) fn unavailable() -> Problem {
    let detail = "nothing was bought; send the same request again";
    Problem::new(Code::Unavailable, detail).retry_after_ms(RETRY_SOON_MS)
}

/// Why a purchase, or a line of a cart, was refused.
pub(super) fn refusal(sale: &Sale, verdict: Verdict, quantity: u32) -> Problem {
    match verdict {
        Verdict::SoldOut { remaining: 0, .. } => Problem::new(Code::SoldOut, "no unit is left"),
        Verdict::SoldOut { remaining, .. } => {
            Problem::new(Code::SoldOut, format!("only {remaining} units are left"))
        }
        Verdict::BuyerLimit { held, limit } => {
            let detail = format!(
                "the buyer holds {held} of at most {limit} units; {quantity} more are too many"
            );
            Problem::new(Code::BuyerLimit, detail)
        }
        Verdict::NotStarted {
            starts_at_ms,
            now_ms,
        } => Problem::new(
            Code::NotStarted,
            format!("the sale starts at {starts_at_ms} (unix milliseconds)"),
        )
        .retry_after_ms(starts_at_ms.saturating_sub(now_ms)),
        Verdict::Ended => Problem::new(Code::Ended, "the sale's window is over, or it was closed"),
        Verdict::Paused => Problem::new(Code::Paused, "an operator has paused the sale")
            .retry_after_ms(RETRY_SOON_MS),
        Verdict::Frozen | Verdict::StaleEpoch { .. } => Problem::new(
            Code::Frozen,
            "the stock is being checked; nothing was bought",
        )
        .retry_after_ms(RETRY_SOON_MS),
        Verdict::KeyReused => key_reused(sale),
        Verdict::InvalidQuantity => {
            Problem::new(Code::InvalidQuantity, "quantity: must be at least 1")
        }
        // Not a refusal; the callers have answered these before.
        Verdict::Accepted { .. } | Verdict::Replayed(_) => {
            Problem::new(Code::InFlight, "the purchase was made; ask for its order")
        }
    }
}

/// Says that this is the answer of an earlier request.
pub(super) fn replayed(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert("idempotent-replayed", HeaderValue::from_static("true"));
    response
}

/// The request id was used for something else.
pub(super) fn key_reused(sale: &Sale) -> Problem {
    match sale.rules.admission {
        Admission::Token => Problem::new(
            Code::TokenUsed,
            "this token was used for another quantity or other metadata; a token buys once",
        ),
        Admission::Open | Admission::AllowList | Admission::Lottery => Problem::new(
            Code::KeyReused,
            "this Idempotency-Key was used by the same buyer for something else of this sale",
        ),
    }
}

/// A request id as it stands in a query.
pub(super) fn in_query(request: &RequestId) -> String {
    let mut key = String::with_capacity(request.as_str().len());
    for byte in request.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                key.push(char::from(byte))
            }
            other => key.push_str(&format!("%{other:02X}")),
        }
    }
    key
}

/// The purchase may have happened, or it did and this is its order: the caller polls, and never gives the money back on its own.
pub(super) fn unknown(
    segment: &SegmentId,
    request: &RequestId,
    order: Option<OrderId>,
) -> Response {
    let poll = format!(
        "/v1/sales/{}/orders?sku={}&request_id={}",
        segment.sale,
        segment.sku,
        in_query(request)
    );
    not_known_yet("order", order, &poll)
}

/// 202: ask again where `poll` says.
pub(super) fn not_known_yet(object: &str, id: Option<OrderId>, poll: &str) -> Response {
    let mut document = serde_json::json!({"object": object, "status": "unknown", "poll": poll});
    if let Some(id) = id {
        document["id"] = serde_json::json!(id);
    }
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::RETRY_AFTER, "1"),
    ];
    (StatusCode::ACCEPTED, headers, document.to_string()).into_response()
}
