//! Slots for the people of a store: who came, and how each slot stands.

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Engine,
    extract::{Document, Stored},
};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    ids::OrderId,
    ledger::CheckIn,
    sale::{Sale, SlotRules},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    order: String,
    code: String,
}

/// `POST /admin/v1/sales/{sale}/checkin`
pub(super) async fn check_in(
    State(engine): Engine,
    Stored(sale): Stored,
    Document(shown): Document<Shown>,
) -> Result<Json<Value>, Problem> {
    rules_of(&sale)?;
    let order: OrderId = extract::id(&shown.order, Code::NoSuchOrder)?;
    match engine.check_in(&sale.id, order, &shown.code).await? {
        CheckIn::Done(order) => Ok(Json(json!({"checked_in": true, "order": order}))),
        CheckIn::Before { at_ms } => Err(Problem::new(
            Code::CheckedIn,
            format!("the booking was used at {at_ms} (unix milliseconds)"),
        )),
        CheckIn::Wrong { left } => Err(Problem::new(
            Code::WrongCode,
            format!("{left} tries are left at this code"),
        )),
        CheckIn::Locked => Err(Problem::new(
            Code::CodeLocked,
            "too many wrong codes; the buyer asks for a new one",
        )),
        CheckIn::NotBooked => Err(Problem::new(
            Code::NotBooked,
            "the booking was cancelled, given up after its grace, or is not paid",
        )),
        CheckIn::Unknown => Err(Problem::new(
            Code::NoSuchOrder,
            "no booking of this sale with that id has a code",
        )),
    }
}

/// `GET /admin/v1/sales/{sale}/slots`
pub(super) async fn report(
    State(engine): Engine,
    Stored(sale): Stored,
) -> Result<Json<Value>, Problem> {
    let rules = rules_of(&sale)?;
    let counts = engine.ledger().slot_counts(&sale.id).await?;
    let slots: Vec<Value> = rules
        .slots()
        .into_iter()
        .map(|slot| {
            let counts = counts.get(&slot.sku).cloned().unwrap_or_default();
            json!({
                "sku": slot.sku, "store": slot.store, "starts_at_ms": slot.starts_at_ms, "capacity": rules.capacity,
                "booked": counts.booked, "checked_in": counts.checked_in, "cancelled": counts.cancelled,
                "no_show": counts.no_show,
            })
        })
        .collect();
    Ok(Json(json!({"sale": sale.id, "slots": slots})))
}

fn rules_of(sale: &Sale) -> Result<&SlotRules, Problem> {
    let rules = sale.rules.slots.as_ref();
    rules.ok_or_else(|| Problem::new(Code::NoSlots, "this sale has no slots"))
}
