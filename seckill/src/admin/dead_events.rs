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

use super::{Engine, PAGE_DEFAULT, page_limit, sale_of};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    engine::EngineError,
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
    sale: Result<Path<String>, PathRejection>,
    query: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let page = extract::query(query)?;
    let limit = page_limit(page.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let after = match page.after.as_str() {
        "" => None,
        text => Some(event(text, Code::InvalidRequest)?),
    };
    let (sale, _) = sale_of(&engine, &extract::path(sale)?)?;
    let page = engine
        .ledger()
        .dead_deliveries(&sale, after, limit)
        .await
        .map_err(EngineError::from)?;
    Ok(Json(
        json!({"sale": sale, "dead_events": page.events, "next": page.next}),
    ))
}

pub(super) async fn replay_all(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let (sale, _) = sale_of(&engine, &extract::path(sale)?)?;
    let due = engine
        .ledger()
        .revive_events(&sale, engine.now_ms())
        .await
        .map_err(EngineError::from)?;
    Ok(Json(json!({"sale": sale, "due": due})))
}

pub(super) async fn replay_one(
    State(engine): Engine,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let (sale, id) = extract::path(path)?;
    let (sale, _) = sale_of(&engine, &sale)?;
    let id = event(&id, Code::NoSuchEvent)?;
    let revived = engine
        .ledger()
        .revive_event(&sale, id, engine.now_ms())
        .await
        .map_err(EngineError::from)?;
    match revived {
        Revived::Due => Ok(Json(json!({"id": id, "due": 1}))),
        Revived::Alive => Ok(Json(json!({"id": id, "due": 0}))),
        Revived::Unknown => {
            let detail = format!("sale {sale} has no event {id}");
            Err(Problem::new(Code::NoSuchEvent, detail))
        }
    }
}
