//! `/admin/v1/sales/{sale}/dead-events`: what the shop could not be told, and its replay.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde_json::{Value, json};

use super::{
    Engine, PAGE_DEFAULT,
    extract::{OnSale, Page, row},
};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    ledger::{EventId, Revived},
};

/// Events in one answer.
const PAGE_MAX: u32 = 1_000;

pub(super) async fn list(
    State(engine): Engine,
    OnSale(sale): OnSale,
    page: Page,
) -> Result<Json<Value>, Problem> {
    let event = |text: &str| row(text, Code::InvalidRequest);
    let (after, limit) = page.read(PAGE_DEFAULT, PAGE_MAX, event)?;
    let ledger = engine.ledger();
    let page = ledger.dead_deliveries(&sale.id, after, limit).await?;
    Ok(Json(
        json!({"sale": sale.id, "dead_events": page.rows, "next": page.next}),
    ))
}

pub(super) async fn replay_all(
    State(engine): Engine,
    OnSale(sale): OnSale,
) -> Result<Json<Value>, Problem> {
    let due = engine
        .ledger()
        .revive_events(&sale.id, engine.now_ms())
        .await?;
    Ok(Json(json!({"sale": sale.id, "due": due})))
}

pub(super) async fn replay_one(
    State(engine): Engine,
    OnSale(sale): OnSale,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let (_, id) = extract::path(path)?;
    let id: EventId = row(&id, Code::NoSuchEvent)?;
    let revived = engine
        .ledger()
        .revive_event(&sale.id, id, engine.now_ms())
        .await?;
    match revived {
        Revived::Due => Ok(Json(json!({"id": id, "due": 1}))),
        Revived::Alive => Ok(Json(json!({"id": id, "due": 0}))),
        Revived::Unknown => {
            let detail = format!("sale {} has no event {id}", sale.id);
            Err(Problem::new(Code::NoSuchEvent, detail))
        }
    }
}
