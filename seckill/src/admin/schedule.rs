//! A sale's document: read with its version, edited while it is a draft, published, and its window moved afterwards.
//!
//! The version is an entity tag (RFC 9110): `GET` answers it as `ETag`, and every change names it in `If-Match`.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use super::{
    Admin, Engine, Payable, bad,
    extract::{Document, Stored},
    sales::checked,
};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    engine::SaleEngine,
    ids::SaleId,
    ledger::{Edited, Published},
    sale::{MoveRefused, NewSale, Sale, SaleState, Stage, check_move},
};

/// What may be changed of a sale that is published.
const MOVABLE: [&str; 2] = ["starts_at_ms", "ends_at_ms"];

/// A sale with where it stands on this node.
pub(super) fn document_of(engine: &SaleEngine, sale: &Sale) -> Value {
    let mut document = json!(sale);
    let now_ms = engine.now_ms();
    document["now_ms"] = now_ms.into();
    document["state"] = json!(sale.state_at(now_ms));
    document["warm"] = engine.is_warm(&sale.id).into();
    document
}

/// [`document_of`] as an answer, with the version as its entity tag.
pub(super) fn shown(engine: &SaleEngine, sale: &Sale) -> Response {
    let mut response = axum::Json(document_of(engine, sale)).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", sale.rules.version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

pub(super) async fn show(State(engine): Engine, Stored(sale): Stored) -> Result<Response, Problem> {
    Ok(shown(&engine, &sale))
}

/// `PUT`: the whole document of a draft.
pub(super) async fn replace(
    State(Admin {
        engine, payable, ..
    }): State<Admin>,
    Stored(known): Stored,
    headers: HeaderMap,
    Document(new): Document<NewSale>,
) -> Result<Response, Problem> {
    let version = version(&headers)?;
    edit(&engine, payable.as_deref(), &known, version, new).await
}

/// `PATCH`: some fields, as a JSON merge patch (RFC 7396); of a published sale those of its window.
pub(super) async fn change(
    State(Admin {
        engine, payable, ..
    }): State<Admin>,
    Stored(known): Stored,
    headers: HeaderMap,
    Document(patch): Document<Map<String, Value>>,
) -> Result<Response, Problem> {
    let version = version(&headers)?;
    // A document that was made from another version is not looked at: its fields may be right for that one.
    if version != known.rules.version {
        return Err(stale(known.rules.version));
    }
    let fixed = patch.keys().find(|key| !MOVABLE.contains(&key.as_str()));
    if let (Stage::Published, Some(field)) = (known.rules.stage, fixed) {
        let detail = format!(
            "{field}: of a published sale only {} can be changed",
            MOVABLE.join(" and ")
        );
        return Err(Problem::new(Code::NotEditable, detail));
    }
    let mut whole = json!(NewSale::from(&known));
    for (field, value) in patch {
        whole[field] = value;
    }
    let new: NewSale = serde_json::from_value(whole)
        .map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))?;
    if known.rules.stage == Stage::Draft {
        return edit(&engine, payable.as_deref(), &known, version, new).await;
    }
    let wanted = checked(&engine, &new, None)?;
    let (starts, ends) = (wanted.starts_at_ms, wanted.ends_at_ms);
    check_move(&known, starts, ends, engine.now_ms())
        .map_err(|refused| not_movable((starts, ends), refused))?;
    let moved = engine.move_window(&known.id, version, starts, ends).await?;
    answer(&engine, &known, moved)
}

pub(super) async fn publish(
    State(Admin {
        engine, payable, ..
    }): State<Admin>,
    Stored(known): Stored,
) -> Result<Response, Problem> {
    // Payments may have been configured, or otherwise, since the draft was made.
    if known.rules.stage == Stage::Draft {
        checked(&engine, &NewSale::from(&known), payable.as_deref())?;
    }
    match engine.publish(&known.id).await? {
        Published::Done(sale) | Published::Already(sale) => Ok(shown(&engine, &sale)),
        Published::Ended => Err(Problem::new(
            Code::Ended,
            "its window is over, or it was closed",
        )),
        Published::Unknown => Err(gone(&known.id)),
    }
}

async fn edit(
    engine: &SaleEngine,
    payable: Option<&Payable>,
    known: &Sale,
    version: u64,
    new: NewSale,
) -> Result<Response, Problem> {
    let state = known.state_at(engine.now_ms());
    if state != SaleState::Draft {
        return Err(forbidden(state));
    }
    let mut sale = checked(engine, &new, payable)?;
    if sale.id != known.id {
        let allowed = format!("{}, as in the path", known.id);
        return Err(bad("id", sale.id, allowed));
    }
    // Publishing is a step of its own.
    sale.rules.stage = Stage::Draft;
    let edited = engine.edit_draft(&sale, version).await?;
    answer(engine, known, edited)
}

fn answer(engine: &SaleEngine, known: &Sale, edited: Edited) -> Result<Response, Problem> {
    match edited {
        Edited::Done(sale) => Ok(shown(engine, &sale)),
        Edited::Stale { version } => Err(stale(version)),
        Edited::Forbidden(state) => Err(forbidden(state)),
        Edited::Unknown => Err(gone(&known.id)),
    }
}

/// The version that a change was made from.
fn version(headers: &HeaderMap) -> Result<u64, Problem> {
    let Some(given) = extract::one(headers, &header::IF_MATCH)? else {
        return Err(Problem::new(
            Code::VersionRequired,
            "send the sale's version as If-Match: \"N\"; GET answers it as ETag",
        ));
    };
    given.trim().trim_matches('"').parse().map_err(|_| {
        let detail = format!("If-Match: {given}: must be the version of the sale, as in \"3\"");
        Problem::new(Code::InvalidRequest, detail)
    })
}

fn stale(version: u64) -> Problem {
    let detail = format!("the sale is at version {version}; read it again");
    Problem::new(Code::VersionConflict, detail)
}

fn forbidden(state: SaleState) -> Problem {
    match state {
        SaleState::Ended => Problem::new(Code::Ended, "a sale that has ended stays as it is"),
        SaleState::Draft | SaleState::Scheduled | SaleState::Open | SaleState::Paused => {
            Problem::new(
                Code::NotEditable,
                format!("the sale is {state}; only drafts can be edited as a whole"),
            )
        }
    }
}

fn gone(id: &SaleId) -> Problem {
    Problem::new(Code::NoSuchSale, format!("the ledger has no sale {id}"))
}

fn not_movable((starts, ends): (u64, u64), refused: MoveRefused) -> Problem {
    match refused {
        MoveRefused::State(state) => forbidden(state),
        MoveRefused::Started => Problem::new(
            Code::NotEditable,
            "starts_at_ms: the window has begun, or begins in a moment",
        ),
        MoveRefused::Empty => bad("ends_at_ms", ends, "later than starts_at_ms"),
        MoveRefused::StartBefore(now) => bad("starts_at_ms", starts, format!("at least {now}")),
        MoveRefused::EndBefore(soon) => {
            let allowed = format!("at least {soon}; close the sale to end it at once");
            bad("ends_at_ms", ends, allowed)
        }
    }
}

#[cfg(test)]
mod tests;
