//! `/admin/v1/sales/{sale}/dead-events`: what the shop could not be told, and its replay.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Engine, PAGE_DEFAULT, extract::OnSale, page_limit};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    ledger::{EventId, Revived},
};

/// Events in one answer.
const PAGE_MAX: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

fn event(text: &str, otherwise: Code) -> Result<EventId, Problem> {
    text.parse()
        .map_err(|error: String| Problem::new(otherwise, error))
}

pub(super) async fn list(
    State(engine): Engine,
    OnSale(sale): OnSale,
    query: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let page = extract::query(query)?;
    let limit = page_limit(page.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let after = match page.after.as_str() {
        "" => None,
        text => Some(event(text, Code::InvalidRequest)?),
    };
    let page = engine
        .ledger()
        .dead_deliveries(&sale.id, after, limit)
        .await?;
    Ok(Json(
        json!({"sale": sale.id, "dead_events": page.events, "next": page.next}),
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
    let id = event(&id, Code::NoSuchEvent)?;
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
