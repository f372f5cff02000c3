//! `POST /v1/sales/{sale}/orders`: the one request that matters at T0.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{
    Api, extract,
    orders::stored_document,
    problem::{self, Code, Problem},
    segment_of,
    waiting::wish::etag,
};
use crate::{
    catalogue::{OpenSale, Segment},
    engine::FoundOrder,
    ids::{BuyerId, RequestId},
    ledger::Standing,
    metrics::PurchaseResult,
    purchase::Outcome,
    store::{StoredOrder, Verdict},
};

/// Above any sensible buyer limit; a larger number is a mistake, not a wish.
const QUANTITY_MAX: i128 = 1_000_000;
/// How long a retry waits for the ledger to say where its order stands; then it is told to poll.
const LEDGER_WAIT: Duration = Duration::from_secs(2);
/// When a refusal that passes by itself is worth another try.
const RETRY_SOON_MS: u64 = 1_000;

/// The quantity is wide, so that −1 and 2^63 are told as out of range and not as malformed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    sku: String,
    #[serde(default = "one")]
    quantity: i128,
}

fn one() -> i128 {
    1
}

/// A request whose form is right.
struct Checked {
    sale: Arc<OpenSale>,
    segment: Arc<Segment>,
    buyer: BuyerId,
    request: RequestId,
    quantity: u32,
}

pub(super) async fn buy(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    // Taken apart by hand: axum's own extractors would copy the header map.
    let (head, body) = request.into_parts();
    let checked = match extract::path(path) {
        Ok(sale) => check(&api, &sale, &head.headers, body).await,
        Err(problem) => Err(problem),
    };
    let (result, response) = match checked {
        Err(problem) => (refused(&problem), problem.into_response()),
        Ok(Checked {
            sale,
            segment,
            buyer,
            request,
            quantity,
        }) => {
            let outcome = api
                .engine
                .purchase(&segment, buyer, request.clone(), quantity)
                .await;
            (
                PurchaseResult::from(&outcome),
                answer(&api, &sale, &segment, &request, quantity, outcome).await,
            )
        }
    };
    api.engine
        .metrics
        .record(result, started.elapsed().as_secs_f64());
    response
}

async fn check(api: &Api, sale: &str, headers: &HeaderMap, body: Body) -> Result<Checked, Problem> {
    let buyer = api.buyer(headers)?;
    let request = extract::request_id(headers)?;
    extract::is_json(headers)?;
    let bytes = Limited::new(body, super::BODY_LIMIT)
        .collect()
        .await
        .map_err(|error| match error.is::<LengthLimitError>() {
            true => Problem::new(
                Code::BodyTooLarge,
                format!("at most {} bytes are allowed", super::BODY_LIMIT),
            ),
            false => Problem::new(Code::InvalidBody, "the body did not arrive"),
        })?;
    let wish: Wish = extract::document(&bytes.to_bytes())?;
    let sale = api.sale(sale)?;
    let segment = segment_of(&sale, &wish.sku)?;
    if !(1..=QUANTITY_MAX).contains(&wish.quantity) {
        let detail = format!(
            "quantity = {}: must be a whole number from 1 to {QUANTITY_MAX}",
            wish.quantity
        );
        return Err(Problem::new(Code::InvalidQuantity, detail));
    }
    Ok(Checked {
        sale,
        segment,
        buyer,
        request,
        quantity: wish.quantity as u32,
    })
}

fn refused(problem: &Problem) -> PurchaseResult {
    match problem.code() {
        Code::NoSuchSale | Code::NoSuchSku => PurchaseResult::NotFound,
        _ => PurchaseResult::Invalid,
    }
}

async fn answer(
    api: &Api,
    sale: &OpenSale,
    segment: &Segment,
    request: &RequestId,
    quantity: u32,
    outcome: Outcome,
) -> Response {
    let verdict = match outcome {
        Outcome::Decided(verdict) => verdict,
        Outcome::SoldOutFromMemory => return problem::sold_out(),
        Outcome::Unknown => return unknown(segment, request),
        Outcome::Unavailable => {
            let problem = Problem::new(
                Code::Unavailable,
                "nothing was bought; send the same request again",
            );
            return problem.retry_after_ms(RETRY_SOON_MS).into_response();
        }
    };
    let problem = match verdict {
        Verdict::Accepted { order, .. } => {
            let standing = Standing::in_store(order.state);
            return found(StatusCode::CREATED, sale, segment, &order, standing);
        }
        Verdict::Replayed(order) => return replayed(api, sale, segment, request, &order).await,
        Verdict::SoldOut { remaining: 0, .. } => return problem::sold_out(),
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
        Verdict::KeyReused => {
            let detail =
                "this Idempotency-Key was used by the same buyer for another quantity of this sku";
            Problem::new(Code::KeyReused, detail)
        }
        Verdict::InvalidQuantity => {
            Problem::new(Code::InvalidQuantity, "quantity: must be at least 1")
        }
    };
    problem.into_response()
}

/// The order of a request that is sent again, and where it stands now. The ledger is asked: the store hears of a cancellation
/// or a payment after it, and another node may have told the buyer of it (INV-ORDER-5).
async fn replayed(
    api: &Api,
    sale: &OpenSale,
    segment: &Segment,
    request: &RequestId,
    order: &StoredOrder,
) -> Response {
    let settled = timeout(LEDGER_WAIT, api.engine.ledger().order(order.order)).await;
    let standing = match settled {
        Ok(Ok(Some(settled))) => api.waiting.tell(&FoundOrder::Settled(Box::new(settled))),
        // On its way into the ledger: nobody but the store has done anything to it yet.
        Ok(Ok(None)) => api.waiting.tell_stored(order),
        // It exists, but nobody can say how it stands.
        Ok(Err(_)) | Err(_) => return unknown(segment, request),
    };
    let mut response = found(StatusCode::OK, sale, segment, order, standing);
    let replayed = HeaderValue::from_static("true");
    response
        .headers_mut()
        .insert("idempotent-replayed", replayed);
    response
}

fn found(
    status: StatusCode,
    sale: &OpenSale,
    segment: &Segment,
    order: &StoredOrder,
    standing: Standing,
) -> Response {
    let price = Some((sale, segment.price_minor));
    let document = stored_document(&segment.id, order, standing, price);
    let mut response = (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        document.to_string(),
    )
        .into_response();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(standing));
    if status == StatusCode::CREATED
        && let Ok(location) = HeaderValue::try_from(format!("/v1/orders/{}", order.order))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The purchase may have happened: the caller polls, and never gives the money back on its own.
pub(super) fn unknown(segment: &Segment, request: &RequestId) -> Response {
    let mut key = String::with_capacity(request.as_str().len());
    for byte in request.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                key.push(char::from(byte))
            }
            other => key.push_str(&format!("%{other:02X}")),
        }
    }
    let poll = format!(
        "/v1/sales/{}/orders?sku={}&request_id={key}",
        segment.id.sale, segment.id.sku
    );
    let document = serde_json::json!({"object": "order", "status": "unknown", "poll": poll});
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::RETRY_AFTER, "1"),
    ];
    (StatusCode::ACCEPTED, headers, document.to_string()).into_response()
}
