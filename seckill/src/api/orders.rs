//! Reading a sale, reading an order or polling for one (with a wait, if the caller wishes), cancelling one.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use stock::{Gate, StoredOrder};
use tokio::time::Instant;

use super::{
    Api,
    buy::unknown,
    extract,
    problem::{Code, Problem},
    slots, stock_of,
    waiting::{
        End, Held, Kind, WaitPermit,
        wait_params::{self, PREFERENCE_APPLIED, WaitParams, WaitQuery},
    },
};
use crate::{
    catalogue::OpenSale,
    engine::{EngineError, FoundOrder},
    ids::{BuyerId, OrderId, RequestId, SegmentId},
    ledger::{Cancel, LedgerError, RequestKey, Standing, WatchKey},
    sale::SaleState,
    sku_stock::SegmentRuntime,
};

/// How long a cancellation waits for an order that is still on its way into the ledger.
pub(super) const SETTLE_WAIT: Duration = Duration::from_secs(2);
/// When a store or the ledger may be back.
pub(super) const RETRY_MS: u64 = 1_000;
/// How often a request that waits looks whether its purchase is still being decided.
const DECIDING_POLL: Duration = Duration::from_millis(20);

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        if let EngineError::TagTaken { .. } = error {
            return Problem::new(Code::SaleExists, error.to_string());
        }
        // One line a request would be a flood; the workers that read sales and queues log that store or ledger is away.
        tracing::debug!(%error, "a request could not be answered");
        let detail = "stock or orders cannot be reached right now; ask again to see what holds";
        Problem::new(Code::Unavailable, detail).retry_after_ms(RETRY_MS)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        EngineError::from(error).into()
    }
}

/// The order document for an order that is not in the ledger yet.
pub(super) fn stored_document(
    id: &SegmentId,
    order: &StoredOrder,
    standing: Standing,
    price: Option<(&OpenSale, i64)>,
) -> Value {
    let mut document = json!({
        "id": order.order,
        "object": "order",
        "sale": id.sale,
        "sku": id.sku,
        "buyer": order.buyer,
        "quantity": order.quantity,
        "status": standing.status,
        "created_at_ms": order.created_at_ms,
        "pay_by_ms": order.pay_by_ms,
    });
    if let Some((sale, price_minor)) = price {
        document["amount_minor"] = (price_minor * i64::from(order.quantity)).into();
        document["currency"] = sale.sale.currency.as_str().into();
    }
    if let Some(metadata) = &order.metadata {
        document["metadata"] = json!(metadata);
    }
    document
}

/// The order document: the order as read, standing as is to be told.
pub(super) fn order_document(api: &Api, found: &FoundOrder, standing: Standing) -> Value {
    match found {
        FoundOrder::Settled(order) => {
            let mut document = json!(order.as_ref());
            document["status"] = json!(standing.status);
            document
        }
        FoundOrder::Accepted(id, order) => {
            let sale = api.engine.catalogue().sale(&id.sale);
            let price = sale
                .as_deref()
                .and_then(|open| Some((open, open.stock(&id.sku)?.price_minor)));
            stored_document(id, order, standing, price)
        }
    }
}

/// The order, or 304 if the caller has it as it stands.
fn answer(api: &Api, params: &WaitParams, found: &FoundOrder, standing: Standing) -> Response {
    let mut response = match params.has_copy_of(standing) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Json(order_document(api, found, standing)).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, wait_params::etag(standing));
    // A copy may be kept, and is good for nothing but asking whether it still holds.
    let private = HeaderValue::from_static("private, no-cache");
    headers.insert(header::CACHE_CONTROL, private);
    applied(&mut response, params);
    response
}

/// Acknowledges a preferred wait.
fn applied(response: &mut Response, params: &WaitParams) {
    if let Some(seconds) = params.applied_s {
        let value = HeaderValue::try_from(format!("wait={seconds}"));
        let value = value.expect("digits are visible ASCII");
        response.headers_mut().insert(PREFERENCE_APPLIED, value);
    }
}

/// Answers for an order that was found: at once if there is news for the caller or no wait, else when there is. `held` is how
/// long the caller has waited already.
async fn answer_with_news(
    api: &Api,
    params: &WaitParams,
    mut found: FoundOrder,
    mut held: Duration,
) -> Result<Response, Problem> {
    let mut standing = api.waiting.serve(&found);
    if let Some(wait) = params.wait.filter(|_| !params.is_answered_by(standing)) {
        let permit = api.waiting.enter(Kind::Order, found.buyer())?;
        let began = Instant::now();
        let (ledger, deadline) = (api.engine.ledger(), began + wait.saturating_sub(held));
        standing = api
            .waiting
            .until_change(ledger, params, deadline, &mut found, permit)
            .await;
        held += began.elapsed();
    }
    let mut response = answer(api, params, &found, standing);
    response.extensions_mut().insert(Held::For(held));
    Ok(response)
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
    let state = match (sale.gate, sale.state_at(now_ms)) {
        (Gate::Frozen, SaleState::Paused) => "frozen",
        (_, state) => state.as_str(),
    };
    let skus: Vec<Value> = sale
        .skus
        .iter()
        .map(|sku| {
            // As last read, two seconds ago at most; null while a segment does not answer.
            let counts = open.stock(&sku.sku).and_then(|stock| stock.counts());
            json!({"sku": sku.sku, "price_minor": sku.price_minor, "available": counts.map(|counts| counts.available)})
        })
        .collect();
    Ok(Json(json!({
        "id": sale.id, "object": "sale", "state": state, "now_ms": now_ms,
        "starts_at_ms": sale.starts_at_ms, "ends_at_ms": sale.ends_at_ms, "pay_within_ms": sale.pay_within_ms,
        "buyer_limit": sale.buyer_limit, "order_limit": sale.rules.order_limit, "admission": sale.rules.admission, "currency": sale.currency,
        "carts": sale.carts, "skus": skus,
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
    waiting: Result<Query<WaitQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let buyer = api.buyer(&headers)?;
    let query = extract::query(query)?;
    let params = WaitParams::read(&headers, &extract::query(waiting)?, api.waiting.max_wait())?;
    let request: RequestId = extract::id(&query.request_id, Code::InvalidRequest)?;
    let open = api.sale(&extract::path(sale)?)?;
    let stock = stock_of(&open, &query.sku)?;
    let segment = stock.home(&buyer);
    let mut looked = look(&api, segment, &buyer, &request).await?;
    let mut held = Duration::ZERO;
    if let (None, Some(wait)) = (&looked.found, params.wait) {
        let permit = api.waiting.enter(Kind::Request, &buyer)?;
        let began = Instant::now();
        looked = until_known(
            &api,
            segment,
            &buyer,
            &request,
            looked,
            began + wait,
            permit,
        )
        .await?;
        held = began.elapsed();
    }
    match looked.found {
        Some(found) => answer_with_news(&api, &params, found, held).await,
        None => {
            let mut response = match looked.is_deciding {
                true => unknown(&segment.id, &request, None),
                false => no_such_order().into_response(),
            };
            applied(&mut response, &params);
            response.extensions_mut().insert(Held::For(held));
            Ok(response)
        }
    }
}

/// What is known of a request.
struct Looked {
    found: Option<FoundOrder>,
    /// Whether it was being decided here just before it was looked for.
    is_deciding: bool,
}

async fn look(
    api: &Api,
    segment: &SegmentRuntime,
    buyer: &BuyerId,
    request: &RequestId,
) -> Result<Looked, Problem> {
    // Asked before the store is: what is being decided now may be there by the time it is looked for, never the other way.
    let is_deciding = segment.in_flight.is_deciding(buyer, request);
    let found = api
        .engine
        .order_by_request(&segment.id, buyer, request)
        .await?;
    Ok(Looked { found, is_deciding })
}

/// Waits until a request is known: it reaches the ledger, by whichever node, or this node has decided it.
async fn until_known(
    api: &Api,
    segment: &SegmentRuntime,
    buyer: &BuyerId,
    request: &RequestId,
    first: Looked,
    deadline: Instant,
    permit: WaitPermit,
) -> Result<Looked, Problem> {
    let key = WatchKey::Request(Box::new(RequestKey {
        sale: segment.id.sale.clone(),
        sku: segment.id.sku.clone(),
        buyer: buyer.clone(),
        request: request.clone(),
    }));
    let mut subscription = api.engine.ledger().subscribe(key, None);
    let decided_here = async {
        if !first.is_deciding {
            std::future::pending::<()>().await;
        }
        // A look into memory; a decision takes milliseconds.
        while segment.in_flight.is_deciding(buyer, request) {
            tokio::time::sleep(DECIDING_POLL).await;
        }
    };
    let end = tokio::select! {
        biased;
        order = subscription.after(None) => {
            permit.end(End::Changed);
            let found = FoundOrder::Settled(Box::new((*order).clone()));
            return Ok(Looked { found: Some(found), is_deciding: false });
        }
        () = decided_here => End::Changed,
        () = api.waiting.drained() => End::Drained,
        () = tokio::time::sleep_until(deadline) => End::Unchanged,
    };
    permit.end(end);
    // The store may know what the ledger does not yet.
    look(api, segment, buyer, request).await
}

/// The order that the path names, if the header's buyer bought it. Somebody else's order and no order are one answer: ids must
/// not be guessed by asking.
pub(super) async fn own_order(
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
    waiting: Result<Query<WaitQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = WaitParams::read(&headers, &extract::query(waiting)?, api.waiting.max_wait());
    let (_, found) = own_order(&api, &extract::path(order)?, &headers).await?;
    answer_with_news(&api, &params?, found, Duration::ZERO).await
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    order: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, found) = own_order(&api, &extract::path(order)?, &headers).await?;
    if let Some(problem) = slots::not_cancellable(&api.engine, found.segment())? {
        return Err(problem);
    }
    let ledger = api.engine.ledger();
    if matches!(found, FoundOrder::Accepted(..))
        && ledger.once_settled(id, SETTLE_WAIT).await.is_none()
    {
        let detail = "the order is on its way into the ledger; cancel it again";
        return Err(Problem::new(Code::InFlight, detail).retry_after_ms(RETRY_MS));
    }
    let cancelled = ledger.cancel(id, found.buyer(), api.engine.now_ms()).await;
    match cancelled? {
        Cancel::Cancelled(order) | Cancel::AlreadyReleased(order) => {
            let found = FoundOrder::Settled(Box::new(order));
            let standing = api.waiting.serve(&found);
            Ok(answer(&api, &WaitParams::default(), &found, standing))
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
