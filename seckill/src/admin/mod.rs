//! The sale part of the admin API: what operators, the command line and the load tester call. Loopback only, by default.

mod dead_events;
mod dead_letters;
mod lists;
mod lottery;
mod payable;
mod restock;
mod schedule;
mod slots;
mod tokens;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRef, Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    response::Response,
    routing,
};
use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    engine::{EngineError, SaleEngine},
    ids::SaleId,
    ledger::{Created, GateMoved},
    reconcile::{ReconcileError, Reconciler},
    sale::{Admission, FieldProblem, NewSale, Sale},
    settlement::replay::Replayer,
    stock::StockCounts,
    store::{Gate, QueueDepth, Snapshot},
};

pub use self::payable::Payable;

/// What the handlers share.
#[derive(Clone)]
struct Admin {
    engine: Arc<SaleEngine>,
    reconciler: Reconciler,
    payable: Option<Arc<Payable>>,
    replayer: Replayer,
}

impl FromRef<Admin> for Arc<SaleEngine> {
    fn from_ref(admin: &Admin) -> Self {
        admin.engine.clone()
    }
}

impl FromRef<Admin> for Option<Arc<Payable>> {
    fn from_ref(admin: &Admin) -> Self {
        admin.payable.clone()
    }
}

impl FromRef<Admin> for Reconciler {
    fn from_ref(admin: &Admin) -> Self {
        admin.reconciler.clone()
    }
}

impl FromRef<Admin> for Replayer {
    fn from_ref(admin: &Admin) -> Self {
        admin.replayer.clone()
    }
}

type Engine = State<Arc<SaleEngine>>;

/// Rows of one page at most.
const PAGE_MAX: u32 = 10_000;
const PAGE_DEFAULT: u32 = 1_000;
/// A sale of a thousand skus has about 100 KiB.
const BODY_LIMIT: usize = 1 << 20;

/// The routes below `/admin/v1/sales`.
pub fn router(engine: Arc<SaleEngine>, reconciler: Reconciler, payable: Option<Payable>) -> Router {
    let clock = engine.clone();
    let replayer = Replayer::new(
        engine.store().clone(),
        engine.ledger().clone(),
        Arc::new(move || clock.now_ms()),
    );
    Router::new()
        .route("/admin/v1/sales", routing::get(list).post(create))
        .route(
            "/admin/v1/sales/{sale}",
            routing::get(schedule::show)
                .put(schedule::replace)
                .patch(schedule::change),
        )
        .route(
            "/admin/v1/sales/{sale}/publish",
            routing::post(schedule::publish),
        )
        .route(
            "/admin/v1/sales/{sale}/pause",
            routing::post(|e, s| set_gate(e, s, Gate::Paused)),
        )
        .route(
            "/admin/v1/sales/{sale}/resume",
            routing::post(|e, s| set_gate(e, s, Gate::Open)),
        )
        .route(
            "/admin/v1/sales/{sale}/close",
            routing::post(|e, s| set_gate(e, s, Gate::Closed)),
        )
        .route(
            "/admin/v1/sales/{sale}/lists/{list}",
            routing::get(lists::show).put(lists::change),
        )
        .route("/admin/v1/sales/{sale}/draw", routing::post(lottery::draw))
        .route(
            "/admin/v1/sales/{sale}/draw/rounds",
            routing::post(lottery::call_reserve),
        )
        .route("/admin/v1/sales/{sale}/slots", routing::get(slots::report))
        .route(
            "/admin/v1/sales/{sale}/checkin",
            routing::post(slots::check_in),
        )
        .route(
            "/admin/v1/sales/{sale}/tokens",
            routing::post(tokens::issue),
        )
        .route(
            "/admin/v1/sales/{sale}/restock",
            routing::post(restock::restock),
        )
        .route("/admin/v1/sales/{sale}/report", routing::get(report))
        .route("/admin/v1/sales/{sale}/orders", routing::get(orders))
        .route(
            "/admin/v1/sales/{sale}/reconcile",
            routing::get(compare_sale).post(reconcile_sale),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-events",
            routing::get(dead_events::list),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-events/replay",
            routing::post(dead_events::replay_all),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-events/{event}/replay",
            routing::post(dead_events::replay_one),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-letters",
            routing::get(dead_letters::list),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-letters/replay",
            routing::post(dead_letters::replay_page),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-letters/{letter}/replay",
            routing::post(dead_letters::replay_one),
        )
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Admin {
            engine,
            reconciler,
            payable: payable.map(Arc::new),
            replayer,
        })
}

fn sale_of(engine: &SaleEngine, id: &str) -> Result<(SaleId, Sale), Problem> {
    let found = SaleId::try_new(id).ok().and_then(|id| {
        engine
            .catalogue()
            .sale(&id)
            .map(|open| (id, open.sale.clone()))
    });
    found.ok_or_else(|| Problem::new(Code::NoSuchSale, format!("no sale has the id {id:?}")))
}

/// Operators' clients do not all send a content type, so only the content counts here. (A web page cannot reach this: see the
/// gateway's admin listener.)
fn document<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    extract::document(&extract::body(body, BODY_LIMIT)?)
}

fn invalid(problems: Vec<FieldProblem>) -> Problem {
    let told: Vec<String> = problems
        .iter()
        .map(|p| format!("{} = {:?}: must be {}", p.field, p.value, p.allowed))
        .collect();
    Problem::new(Code::InvalidDocument, told.join("; ")).with_problems(&problems)
}

async fn list(State(engine): Engine) -> Result<Json<Value>, Problem> {
    // From the ledger: drafts are known to nobody else.
    let mut sales = engine.ledger().sales().await.map_err(EngineError::from)?;
    sales.sort_by(|a, b| (a.starts_at_ms, &a.id).cmp(&(b.starts_at_ms, &b.id)));
    let documents: Vec<Value> = sales
        .iter()
        .map(|sale| schedule::document_of(&engine, sale))
        .collect();
    Ok(Json(json!({"sales": documents})))
}

async fn create(
    State(engine): Engine,
    State(payable): State<Option<Arc<Payable>>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let sale = checked(&engine, &document::<NewSale>(body)?, payable.as_deref())?;
    let status = match engine.create_sale(sale.clone()).await? {
        Created::New => StatusCode::CREATED,
        Created::Same => StatusCode::OK,
        Created::Conflict => {
            let detail = format!(
                "sale {} exists with other content; choose another id",
                sale.id
            );
            return Err(Problem::new(Code::SaleExists, detail));
        }
    };
    let mut shown = schedule::shown(&engine, &sale);
    *shown.status_mut() = status;
    Ok(shown)
}

/// A sale whose document is right and whose orders can be paid.
fn checked(engine: &SaleEngine, new: &NewSale, payable: Option<&Payable>) -> Result<Sale, Problem> {
    let sale = new.check().map_err(invalid)?;
    let mut problems = payable.map_or_else(Vec::new, |payable| payable.problems(&sale));
    if sale.rules.admission == Admission::Token && engine.tokens().is_empty() {
        problems.push(FieldProblem {
            field: "admission".to_owned(),
            value: sale.rules.admission.as_str().to_owned(),
            allowed: "another one while no seckill.token_keys are configured".to_owned(),
        });
    }
    if sale.rules.slots.is_some() && !engine.has_checkin_key() {
        problems.push(FieldProblem {
            field: "slots".to_owned(),
            value: "…".to_owned(),
            allowed: "left out while no seckill.checkin_key is configured".to_owned(),
        });
    }
    match problems.is_empty() {
        true => Ok(sale),
        false => Err(invalid(problems)),
    }
}

async fn set_gate(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
    gate: Gate,
) -> Result<Response, Problem> {
    let sale = schedule::kept(&engine, &extract::path(sale)?).await?;
    let id = sale.id.clone();
    match engine.set_gate(&id, gate).await? {
        GateMoved::Set => Ok(schedule::shown(&engine, &Sale { gate, ..sale })),
        GateMoved::Draft => Err(Problem::new(
            Code::NotEditable,
            "a draft sells nothing; publish it first",
        )),
        GateMoved::Closed => Err(Problem::new(
            Code::Ended,
            "a closed sale stays closed; create a new one",
        )),
        GateMoved::Unknown => Err(Problem::new(
            Code::NoSuchSale,
            format!("the ledger has no sale {id}"),
        )),
    }
}

/// Counts of all segments of a sale.
async fn counts(
    engine: &SaleEngine,
    sale: &Sale,
) -> Result<(Vec<Snapshot>, Vec<QueueDepth>), EngineError> {
    let (mut snapshots, mut depths) = (Vec::new(), Vec::new());
    for sku in &sale.skus {
        for segment in sale.segments_of(&sku.sku) {
            snapshots.push(engine.store().snapshot(&segment).await?);
            depths.push(engine.store().depth(&segment).await?);
        }
    }
    Ok((snapshots, depths))
}

async fn report(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let (id, sale) = sale_of(&engine, &extract::path(sale)?)?;
    let (snapshots, depths) = counts(&engine, &sale).await?;
    let ledger = engine
        .ledger()
        .report(&id)
        .await
        .map_err(EngineError::from)?;
    let ledger = ledger
        .ok_or_else(|| Problem::new(Code::NoSuchSale, format!("the ledger has no sale {id}")))?;
    let moving = engine
        .ledger()
        .units_in_transfer(&id)
        .await
        .map_err(EngineError::from)?;
    let skus: Vec<Value> = sale
        .skus
        .iter()
        .map(|sku| {
            let segments = snapshots.iter().filter(|s| s.spec.id.sku == sku.sku);
            let sum = StockCounts::sum(segments.clone());
            let moving = moving.get(&sku.sku).copied().unwrap_or(0);
            let in_ledger = ledger.skus.iter().find(|line| line.sku == sku.sku);
            json!({
                "sku": sku.sku, "stock": sku.stock, "restocked": (sum.capacity + moving).saturating_sub(sku.stock),
                "segments": segments.count(), "in_transfer": moving, "available": sum.available,
                "reserved": sum.reserved, "sold": sum.sold, "ledger_sold": in_ledger.map(|line| line.sold),
            })
        })
        .collect();
    Ok(Json(json!({
        "sale": id,
        "state": sale.gate,
        "skus": skus,
        "accepted": snapshots.iter().map(|s| s.accepted).sum::<u64>(),
        "settled": ledger.settled,
        "paid": ledger.paid,
        "returned": ledger.returned,
        "refused": ledger.refused,
        "dead_letters": ledger.dead_letters,
        "queue_depth": depths.iter().map(|d| d.entries).sum::<u64>(),
        "outbox_pending": ledger.outbox_pending,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

/// How many rows a page has.
fn page_limit(asked: Option<u32>, default: u32, max: u32) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(default);
    match (1..=max).contains(&limit) {
        true => Ok(limit as usize),
        false => Err(Problem::new(
            Code::InvalidRequest,
            format!("limit = {limit}: must be from 1 to {max}"),
        )),
    }
}

async fn orders(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
    query: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(page) =
        query.map_err(|error| Problem::new(Code::InvalidRequest, error.body_text()))?;
    let (_, sale) = sale_of(&engine, &extract::path(sale)?)?;
    let limit = page_limit(page.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let after = match page.after.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| Problem::new(Code::InvalidRequest, "after: must be an order id"))?,
        ),
    };
    let found = engine
        .ledger()
        .orders_page(&sale, after, limit)
        .await
        .map_err(EngineError::from)?;
    let rows: Vec<Value> = found
        .orders
        .iter()
        .map(|order| {
            let mut row = json!(order);
            row["request_id"] = json!(order.request);
            row["reason"] = json!(order.reason);
            row
        })
        .collect();
    Ok(Json(json!({"orders": rows, "next": found.next})))
}

/// Looks, and changes nothing.
async fn compare_sale(
    State(engine): Engine,
    State(reconciler): State<Reconciler>,
    sale: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let (id, sale) = sale_of(&engine, &extract::path(sale)?)?;
    let findings = reconciler
        .run(&sale)
        .await
        .map_err(|error| not_reconciled(&id, &error))?;
    Ok(Json(
        json!({"sale": id, "ok": findings.is_empty(), "findings": findings}),
    ))
}

/// Mends what can be mended, then looks.
async fn reconcile_sale(
    State(engine): Engine,
    State(reconciler): State<Reconciler>,
    sale: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let (id, sale) = sale_of(&engine, &extract::path(sale)?)?;
    let failed = |error| not_reconciled(&id, &error);
    let repairs = reconciler
        .repair(&sale, engine.now_ms())
        .await
        .map_err(failed)?;
    let findings = reconciler.run(&sale).await.map_err(failed)?;
    Ok(Json(
        json!({"sale": id, "ok": findings.is_empty(), "findings": findings, "repairs": repairs}),
    ))
}

fn not_reconciled(sale: &SaleId, error: &ReconcileError) -> Problem {
    tracing::warn!(%sale, %error, "a sale was not reconciled");
    Problem::new(Code::Unavailable, error.to_string()).retry_after_ms(1_000)
}

#[cfg(test)]
mod tests;
