//! Reading a sale, reading and polling an order, cancelling one.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    buy::unknown,
    extract,
    problem::{Code, Problem},
    segment_of,
};
use crate::{
    catalogue::OpenSale,
    engine::{EngineError, FoundOrder, status_of},
    ids::{OrderId, RequestId, SegmentId},
    ledger::Cancel,
    store::{Gate, StoredOrder},
};

/// How long a cancellation waits for an order that is still on its way into the ledger.
const SETTLE_WAIT: Duration = Duration::from_secs(2);
/// When a store or the ledger may be back.
const RETRY_MS: u64 = 1_000;

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        if let EngineError::TagTaken { .. } = error {
            return Problem::new(Code::SaleExists, error.to_string());
        }
        tracing::warn!(%error, "a request could not be answered");
        let detail = "stock or orders cannot be reached right now; ask again to see what holds";
        Problem::new(Code::Unavailable, detail).retry_after_ms(RETRY_MS)
    }
}

/// The order document for an order that is not in the ledger yet.
pub(super) fn stored_document(
    id: &SegmentId,
    order: &StoredOrder,
    price: Option<(&OpenSale, i64)>,
) -> Value {
    let mut document = json!({
        "id": order.order,
        "object": "order",
        "sale": id.sale,
        "sku": id.sku,
        "buyer": order.buyer,
        "quantity": order.quantity,
        "status": status_of(order.state),
        "created_at_ms": order.created_at_ms,
        "pay_by_ms": order.pay_by_ms,
    });
    if let Some((sale, price_minor)) = price {
        document["amount_minor"] = (price_minor * i64::from(order.quantity)).into();
        document["currency"] = sale.sale.currency.as_str().into();
    }
    document
}

fn document(api: &Api, found: &FoundOrder) -> Response {
    match found {
        FoundOrder::Settled(order) => Json(order.as_ref()).into_response(),
        FoundOrder::Accepted(id, order) => {
            let sale = api.engine.catalogue().sale(&id.sale);
            let price = sale
                .as_deref()
                .and_then(|open| Some((open, open.segment(&id.sku)?.price_minor)));
            Json(stored_document(id, order, price)).into_response()
        }
    }
}

fn no_such_order() -> Problem {
    Problem::new(Code::NoSuchOrder, "no order of this buyer has that id")
}

pub(super) async fn sale(
    State(api): State<Arc<Api>>,
    sale: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let open = api.sale(&extract::path(sale)?)?;
    let now_ms = api.engine.now_ms();
    let sale = &open.sale;
    let state = match sale.gate {
        Gate::Closed => "ended",
        _ if now_ms >= sale.ends_at_ms => "ended",
        Gate::Paused => "paused",
        Gate::Frozen => "frozen",
        Gate::Open if now_ms < sale.starts_at_ms => "scheduled",
        Gate::Open => "open",
    };
    let skus: Vec<Value> = sale
        .skus
        .iter()
        .map(|sku| json!({"sku": sku.sku, "price_minor": sku.price_minor}))
        .collect();
    Ok(Json(json!({
        "id": sale.id, "object": "sale", "state": state, "now_ms": now_ms,
        "starts_at_ms": sale.starts_at_ms, "ends_at_ms": sale.ends_at_ms, "pay_within_ms": sale.pay_within_ms,
        "buyer_limit": sale.buyer_limit, "currency": sale.currency, "skus": skus,
    }))
    .into_response())
}

#[derive(Deserialize)]
pub(super) struct Poll {
    sku: String,
    request_id: String,
}

pub(super) async fn poll(
    State(api): State<Arc<Api>>,
    sale: Result<Path<String>, PathRejection>,
    query: Result<Query<Poll>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let buyer = api.buyer(&headers)?;
    let Query(query) =
        query.map_err(|error| Problem::new(Code::InvalidRequest, error.body_text()))?;
    let request: RequestId = extract::id(&query.request_id, Code::InvalidRequest)?;
    let open = api.sale(&extract::path(sale)?)?;
    let segment = segment_of(&open, &query.sku)?;
    // Asked before the store is: what is being decided now may be there by the time it is looked for, never the other way.
    let is_deciding = segment.lane.is_deciding(&buyer, &request);
    match api
        .engine
        .order_by_request(&segment.id, &buyer, &request)
        .await?
    {
        Some(found) => Ok(document(&api, &found)),
        None if is_deciding => Ok(unknown(&segment, &request)),
        None => Err(no_such_order()),
    }
}

/// The order that the path names, if the header's buyer bought it. Somebody else's order and no order are one answer: ids must
/// not be guessed by asking.
async fn own_order(
    api: &Api,
    order: &str,
    headers: &HeaderMap,
) -> Result<(OrderId, FoundOrder), Problem> {
    let buyer = api.buyer(headers)?;
    let id: OrderId = extract::id(order, Code::NoSuchOrder)?;
    let found = api
        .engine
        .order(id)
        .await?
        .filter(|found| *found.buyer() == buyer);
    found.map(|found| (id, found)).ok_or_else(no_such_order)
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    order: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, found) = own_order(&api, &extract::path(order)?, &headers).await?;
    Ok(document(&api, &found))
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    order: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, found) = own_order(&api, &extract::path(order)?, &headers).await?;
    let ledger = api.engine.ledger();
    if matches!(found, FoundOrder::Accepted(..)) {
        let settled = ledger
            .await_order(id, SETTLE_WAIT)
            .await
            .map_err(EngineError::from)?;
        if settled.is_none() {
            let detail = "the order is on its way into the ledger; cancel it again";
            return Err(Problem::new(Code::InFlight, detail).retry_after_ms(RETRY_MS));
        }
    }
    let cancelled = ledger.cancel(id, found.buyer(), api.engine.now_ms()).await;
    match cancelled.map_err(EngineError::from)? {
        Cancel::Cancelled(order) | Cancel::AlreadyReleased(order) => {
            Ok(Json(order).into_response())
        }
        Cancel::NotCancellable(order) => {
            let detail = format!(
                "the order is {}; only reserved orders can be cancelled",
                order.status
            );
            Err(Problem::new(Code::NotCancellable, detail))
        }
        Cancel::Unknown => Err(no_such_order()),
    }
}
