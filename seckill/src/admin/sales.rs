//! Sales are listed and created, opened and shut.

use axum::{Json, extract::State, response::Response};
use http::StatusCode;
use serde_json::{Value, json};
use stock::Gate;

use super::{
    Admin, Engine, Payable,
    extract::{Document, Stored},
    invalid,
    pending::NotDone,
    schedule,
};
use crate::{
    api::problem::{Code, Problem},
    engine::SaleEngine,
    ledger::{Created, GateMoved},
    sale::{Admission, NewSale, Problems, Sale},
};

pub(super) async fn list(State(engine): Engine) -> Result<Json<Value>, Problem> {
    // From the ledger: drafts are known to nobody else.
    let mut sales = engine.ledger().sales().await?;
    sales.sort_by(|a, b| (a.starts_at_ms, &a.id).cmp(&(b.starts_at_ms, &b.id)));
    let documents: Vec<Value> = sales
        .iter()
        .map(|sale| schedule::document_of(&engine, sale))
        .collect();
    Ok(Json(json!({"sales": documents})))
}

pub(super) async fn create(
    State(Admin {
        engine, payable, ..
    }): State<Admin>,
    Document(new): Document<NewSale>,
) -> Result<Response, NotDone> {
    let sale = checked(&engine, &new, payable.as_deref())?;
    let status = match engine.create_sale(sale.clone()).await? {
        Created::New => StatusCode::CREATED,
        Created::Same => StatusCode::OK,
        Created::Conflict => {
            let detail = format!(
                "sale {} exists with other content; choose another id",
                sale.id
            );
            return Err(Problem::new(Code::SaleExists, detail).into());
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
    let mut problems = Problems(payable.map_or_else(Vec::new, |payable| payable.problems(&sale)));
    let capabilities = engine.capabilities();
    let levels = capabilities.durability;
    if let Some(level) = sale.durability.filter(|level| !levels.contains(level)) {
        let names: Vec<&str> = levels.iter().map(|level| level.as_str()).collect();
        let names = names.join(" or ");
        let allowed = format!("{names}: the store that is configured keeps no other");
        problems.add("durability", level.as_str(), allowed);
    }
    if sale.carts && !capabilities.carts {
        let allowed = "false: the store that is configured decides no carts";
        problems.add("carts", true, allowed);
    }
    if sale.rules.admission == Admission::Token && engine.tokens().is_empty() {
        let allowed = "another one while no seckill.token_keys are configured";
        problems.add("admission", sale.rules.admission.as_str(), allowed);
    }
    if sale.rules.slots.is_some() && !engine.has_checkin_key() {
        let allowed = "left out while no seckill.checkin_key_file is configured";
        problems.add("slots", "…", allowed);
    }
    match problems.0.is_empty() {
        true => Ok(sale),
        false => Err(invalid(problems.0)),
    }
}

pub(super) async fn set_gate(
    State(engine): Engine,
    Stored(sale): Stored,
    gate: Gate,
) -> Result<Response, NotDone> {
    let id = sale.id.clone();
    let problem = match engine.set_gate(&id, gate).await? {
        GateMoved::Set => return Ok(schedule::shown(&engine, &Sale { gate, ..sale })),
        GateMoved::Draft => {
            Problem::new(Code::NotEditable, "a draft sells nothing; publish it first")
        }
        GateMoved::Closed => {
            Problem::new(Code::Ended, "a closed sale stays closed; create a new one")
        }
        GateMoved::Unknown => {
            Problem::new(Code::NoSuchSale, format!("the ledger has no sale {id}"))
        }
    };
    Err(problem.into())
}
