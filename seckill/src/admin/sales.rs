//! Sales are listed and created, opened and shut.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    response::Response,
};
use http::StatusCode;
use serde_json::{Value, json};
use stock::Gate;

use super::{Engine, Payable, document, invalid, schedule};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    engine::{EngineError, SaleEngine},
    ledger::{Created, GateMoved},
    sale::{Admission, FieldProblem, NewSale, Sale},
};

pub(super) async fn list(State(engine): Engine) -> Result<Json<Value>, Problem> {
    // From the ledger: drafts are known to nobody else.
    let mut sales = engine.ledger().sales().await.map_err(EngineError::from)?;
    sales.sort_by(|a, b| (a.starts_at_ms, &a.id).cmp(&(b.starts_at_ms, &b.id)));
    let documents: Vec<Value> = sales
        .iter()
        .map(|sale| schedule::document_of(&engine, sale))
        .collect();
    Ok(Json(json!({"sales": documents})))
}

pub(super) async fn create(
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
pub(super) fn checked(
    engine: &SaleEngine,
    new: &NewSale,
    payable: Option<&Payable>,
) -> Result<Sale, Problem> {
    let sale = new.check().map_err(invalid)?;
    let mut problems = payable.map_or_else(Vec::new, |payable| payable.problems(&sale));
    let levels = engine.levels();
    if let Some(level) = sale.durability.filter(|level| !levels.contains(level)) {
        let names: Vec<&str> = levels.iter().map(|level| level.name()).collect();
        problems.push(FieldProblem {
            field: "durability".to_owned(),
            value: level.name().to_owned(),
            allowed: format!(
                "{}: the store that is configured keeps no other",
                names.join(" or ")
            ),
        });
    }
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
            allowed: "left out while no seckill.checkin_key_file is configured".to_owned(),
        });
    }
    match problems.is_empty() {
        true => Ok(sale),
        false => Err(invalid(problems)),
    }
}

pub(super) async fn set_gate(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
    gate: Gate,
) -> Result<Response, Problem> {
    let sale = schedule::stored_sale(&engine, &extract::path(sale)?).await?;
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
