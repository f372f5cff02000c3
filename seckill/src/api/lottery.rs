//! Entering a lottery, one's own entry, and the draw for everybody to check.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api, admit, extract,
    problem::{Code, Problem},
};
use crate::{
    catalogue::OpenSale,
    ids::BuyerId,
    ledger::{Entered, Entry, ListName},
    lottery::{LotteryRules, Published, entry_of, is_hash, new_nonce},
};

/// Entries of one page: 67 bytes each.
const PAGE_MAX: usize = 10_000;

/// `POST /v1/sales/{sale}/entries`: once for each buyer, however often it is sent.
pub(super) async fn enter(
    State(api): State<Arc<Api>>,
    sale: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let buyer = api.buyer(&headers)?;
    let open = api.sale(&extract::path(sale)?)?;
    let rules = rules_of(&open)?;
    let (id, ledger) = (&open.sale.id, api.engine.ledger());
    let now_ms = api.engine.now_ms();
    let closed = || Problem::new(Code::EntriesClosed, "no entry is taken any more");
    // A buyer who entered in time is told so also later.
    if now_ms >= rules.closes_at_ms {
        let known = ledger.entry(id, &buyer).await?;
        let known = known.ok_or_else(closed)?;
        return Ok(Json(shown(&api, &open, &buyer, &known)).into_response());
    }
    if api.engine.admission().is_on(id, ListName::Block, &buyer) {
        return Err(admit::blocked());
    }
    let nonce = new_nonce(rand::random());
    let entry = Entry {
        entry: entry_of(id, &buyer, &nonce),
        nonce,
        at_ms: now_ms,
    };
    let entered = ledger.enter(id, &buyer, &entry).await;
    let (status, entry) = match entered? {
        Entered::New(entry) => (StatusCode::CREATED, entry),
        Entered::Before(entry) => (StatusCode::OK, entry),
        Entered::Closed => return Err(closed()),
    };
    Ok((status, Json(shown(&api, &open, &buyer, &entry))).into_response())
}

/// `GET /v1/sales/{sale}/entries`: the buyer's own.
pub(super) async fn own(
    State(api): State<Arc<Api>>,
    sale: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let buyer = api.buyer(&headers)?;
    let open = api.sale(&extract::path(sale)?)?;
    rules_of(&open)?;
    let entry = api.engine.ledger().entry(&open.sale.id, &buyer).await?;
    let entry = entry.ok_or_else(|| {
        Problem::new(
            Code::NoSuchEntry,
            "this buyer has not entered the sale's lottery",
        )
    })?;
    Ok(Json(shown(&api, &open, &buyer, &entry)))
}

/// `GET /v1/sales/{sale}/draw`: what was promised, and once it is drawn what to check it with.
pub(super) async fn draw(
    State(api): State<Arc<Api>>,
    sale: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let open = api.sale(&extract::path(sale)?)?;
    let rules = rules_of(&open)?;
    let (id, ledger) = (&open.sale.id, api.engine.ledger());
    let draw = ledger.draw(id).await?;
    // The seed is told when the draw is recorded, not a moment earlier.
    let draw = draw.filter(|draw| draw.drawn_at_ms.is_some());
    let state = match (&draw, api.engine.now_ms() < rules.closes_at_ms) {
        (Some(_), _) => "drawn",
        (None, true) => "open",
        (None, false) => "closed",
    };
    let mut published = Published {
        sale: id.clone(),
        commitment: rules.commitment.clone(),
        seed: String::new(),
        beacon_source: rules.beacon_source.clone(),
        beacon: String::new(),
        entries: 0,
        root: String::new(),
        rounds: Vec::new(),
    };
    if let Some(draw) = draw {
        published.seed = draw.seed;
        published.beacon = draw.beacon;
        published.entries = draw.entries;
        published.root = draw.root;
        published.rounds = ledger.draw_rounds(id).await?;
    }
    let mut document = json!(published);
    document["object"] = "draw".into();
    document["state"] = state.into();
    document["closes_at_ms"] = rules.closes_at_ms.into();
    document["winners"] = rules.winners.into();
    Ok(Json(document))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

/// `GET /v1/sales/{sale}/draw/entries`: all entries in their order, once it is drawn.
pub(super) async fn entries(
    State(api): State<Arc<Api>>,
    sale: Result<Path<String>, PathRejection>,
    query: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let page = extract::query(query)?;
    let limit = page.limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        let detail = format!("limit = {limit}: must be from 1 to {PAGE_MAX}");
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    if !page.after.is_empty() && !is_hash(&page.after) {
        return Err(Problem::new(
            Code::InvalidRequest,
            "after: must be an entry",
        ));
    }
    let open = api.sale(&extract::path(sale)?)?;
    rules_of(&open)?;
    let (id, ledger) = (&open.sale.id, api.engine.ledger());
    let draw = ledger.draw(id).await?;
    if draw.is_none_or(|draw| draw.drawn_at_ms.is_none()) {
        let detail = "the entries are published when the lottery is drawn";
        return Err(Problem::new(Code::NotDrawnYet, detail));
    }
    let found = ledger.entries(id, &page.after, limit).await?;
    let next = found.last().filter(|_| found.len() == limit).cloned();
    Ok(Json(json!({"entries": found, "next": next})))
}

fn rules_of(open: &OpenSale) -> Result<&LotteryRules, Problem> {
    let rules = open.sale.rules.lottery.as_ref();
    rules.ok_or_else(|| Problem::new(Code::NoLottery, "this sale has no lottery"))
}

fn shown(api: &Api, open: &OpenSale, buyer: &BuyerId, entry: &Entry) -> Value {
    let admission = api.engine.admission();
    let id = &open.sale.id;
    let status = match (
        admission.is_on(id, ListName::Drawn, buyer),
        admission.is_drawn(id),
    ) {
        (true, _) => "drawn",
        (false, true) => "not_drawn",
        (false, false) => "entered",
    };
    json!({
        "object": "entry", "sale": id, "buyer": buyer, "entry": entry.entry, "nonce": entry.nonce,
        "created_at_ms": entry.at_ms, "status": status,
    })
}

#[cfg(test)]
mod tests;
