//! What an operator reads of a sale: its account, its orders, and whether store and ledger agree.

use axum::{Json, extract::State};
use serde_json::{Value, json};
use stock::{QueueDepth, SegmentStatus};

use super::{
    Admin, Engine, PAGE_DEFAULT, PAGE_MAX,
    extract::{OnSale, Page},
};
use crate::{
    api::problem::{Code, Problem},
    engine::{EngineError, SaleEngine},
    ids::SaleId,
    reconcile::ReconcileError,
    sale::Sale,
    sku_stock::StockCounts,
};

/// Counts of all segments of a sale.
async fn counts(
    engine: &SaleEngine,
    sale: &Sale,
) -> Result<(Vec<SegmentStatus>, Vec<QueueDepth>), EngineError> {
    let (mut snapshots, mut depths) = (Vec::new(), Vec::new());
    for sku in &sale.skus {
        for segment in sale.segments_of(&sku.sku) {
            snapshots.push(engine.store().snapshot(&segment).await?);
            depths.push(engine.store().depth(&segment).await?);
        }
    }
    Ok((snapshots, depths))
}

pub(super) async fn report(
    State(engine): Engine,
    OnSale(sale): OnSale,
) -> Result<Json<Value>, Problem> {
    let (snapshots, depths) = counts(&engine, &sale).await?;
    let ledger = engine.ledger().report(&sale.id).await?;
    let ledger = ledger.ok_or_else(|| {
        Problem::new(
            Code::NoSuchSale,
            format!("the ledger has no sale {}", sale.id),
        )
    })?;
    let moving = engine.ledger().units_in_transfer(&sale.id).await?;
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
        "sale": sale.id,
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

pub(super) async fn orders(
    State(engine): Engine,
    OnSale(sale): OnSale,
    page: Page,
) -> Result<Json<Value>, Problem> {
    let (after, limit) = page.read(PAGE_DEFAULT, PAGE_MAX, |text| {
        text.parse()
            .map_err(|_| Problem::new(Code::InvalidRequest, "after: must be an order id"))
    })?;
    let found = engine.ledger().orders_page(&sale, after, limit).await?;
    let rows: Vec<Value> = found
        .rows
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
pub(super) async fn compare_sale(
    State(admin): State<Admin>,
    OnSale(sale): OnSale,
) -> Result<Json<Value>, Problem> {
    let findings = admin
        .reconciler
        .run(&sale)
        .await
        .map_err(|error| not_reconciled(&sale.id, &error))?;
    Ok(Json(
        json!({"sale": sale.id, "ok": findings.is_empty(), "findings": findings}),
    ))
}

/// Mends what can be mended, then looks.
pub(super) async fn reconcile_sale(
    State(admin): State<Admin>,
    OnSale(sale): OnSale,
) -> Result<Json<Value>, Problem> {
    let (reconciler, now_ms) = (&admin.reconciler, admin.engine.now_ms());
    let failed = |error| not_reconciled(&sale.id, &error);
    let repairs = reconciler.repair(&sale, now_ms).await.map_err(failed)?;
    let findings = reconciler.run(&sale).await.map_err(failed)?;
    Ok(Json(
        json!({"sale": sale.id, "ok": findings.is_empty(), "findings": findings, "repairs": repairs}),
    ))
}

fn not_reconciled(sale: &SaleId, error: &ReconcileError) -> Problem {
    tracing::warn!(%sale, %error, "a sale was not reconciled");
    Problem::new(Code::Unavailable, error.to_string()).retry_after_ms(1_000)
}
