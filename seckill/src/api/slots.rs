//! Slots for buyers: what is free, until when a booking can be cancelled, and the code to show at the store.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api, extract,
    orders::own_order,
    problem::{Code, Problem},
};
use crate::{
    engine::{EngineError, FoundOrder, SaleEngine, new_code},
    ids::SegmentId,
    ledger::OrderStatus,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    store: Option<String>,
}

/// `GET /v1/sales/{sale}/slots`: all slots that can still be booked, two seconds old at most.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    sale: Result<Path<String>, PathRejection>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let wanted = extract::query(query)?;
    let open = api.sale(&extract::path(sale)?)?;
    let rules = open.sale.rules.slots.as_ref();
    let rules = rules.ok_or_else(|| Problem::new(Code::NoSlots, "this sale has no slots"))?;
    let now_ms = api.engine.now_ms();
    let free = api.engine.free_units(&open.sale.id);
    let slots: Vec<Value> = rules
        .slots()
        .into_iter()
        .filter(|slot| slot.starts_at_ms > now_ms)
        .filter(|slot| {
            wanted
                .store
                .as_ref()
                .is_none_or(|store| *store == slot.store)
        })
        .map(|slot| {
            json!({
                "sku": slot.sku, "store": slot.store, "starts_at_ms": slot.starts_at_ms,
                "ends_at_ms": slot.ends_at_ms, "capacity": rules.capacity,
                "free": free.get(&slot.sku).copied().unwrap_or(0),
                "cancel_until_ms": rules.cancel_until_ms(&slot),
            })
        })
        .collect();
    Ok(Json(
        json!({"object": "slots", "sale": open.sale.id, "now_ms": now_ms, "slots": slots}),
    ))
}

/// `POST /v1/orders/{order}/code`: a new code, in place of an older one. It is told here once and kept nowhere.
pub(super) async fn code(
    State(api): State<Arc<Api>>,
    order: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (id, found) = own_order(&api, &extract::path(order)?, &headers).await?;
    let FoundOrder::Settled(order) = found else {
        let detail = "the booking is on its way into the ledger; ask again";
        return Err(Problem::new(Code::InFlight, detail).retry_after_ms(1_000));
    };
    let open = api.engine.sale(&order.segment.sale)?;
    let has_slots = open.is_some_and(|open| open.sale.rules.slots.is_some());
    if !has_slots {
        return Err(Problem::new(Code::NoSlots, "this sale has no slots"));
    }
    let is_booked = match order.status {
        OrderStatus::Paid => true,
        OrderStatus::Reserved => order.amount_minor == 0,
        OrderStatus::Paying | OrderStatus::Released | OrderStatus::Refused => false,
    };
    if !is_booked {
        let detail = format!(
            "the booking is {}; a code needs one that stands",
            order.status
        );
        return Err(Problem::new(Code::NotBooked, detail));
    }
    let code = new_code(rand::random());
    let sale = &order.segment.sale;
    match api.engine.set_code(sale, id, &code).await? {
        true => Ok((
            StatusCode::CREATED,
            Json(json!({"object": "checkin_code", "order": id, "code": code})),
        )),
        false => Err(Problem::new(
            Code::CodeLocked,
            "the booking was used, or too many codes were made for it",
        )),
    }
}

/// What keeps a booking from being cancelled now, if anything does.
pub(super) fn not_cancellable(
    engine: &SaleEngine,
    segment: &SegmentId,
) -> Result<Option<Problem>, EngineError> {
    let open = engine.sale(&segment.sale)?;
    let rules = open
        .as_deref()
        .and_then(|open| open.sale.rules.slots.as_ref());
    let slot = rules.and_then(|rules| Some((rules, rules.slot(&segment.sku)?)));
    let until_ms = slot.map(|(rules, slot)| rules.cancel_until_ms(&slot));
    let passed = until_ms.filter(|until_ms| engine.now_ms() >= *until_ms);
    Ok(passed.map(|until_ms| {
        let detail = format!("bookings of this slot could be cancelled until {until_ms}");
        Problem::new(Code::NotCancellable, detail)
    }))
}

#[cfg(test)]
mod tests;
