//! The allow and block lists of a sale, uploaded in pages.

use std::collections::HashSet;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Engine, bad,
    extract::{Document, stored_sale},
    invalid,
    pending::NotDone,
};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    engine::SaleEngine,
    ids::BuyerId,
    ledger::{ListChanged, ListName, ListSize, MAX_LISTED},
    sale::{Problems, Sale},
};

/// Buyers of one page: one statement that holds the list's row for some tens of milliseconds.
const PAGE_MAX: usize = 10_000;
/// Wrong buyers told of one page.
const TOLD_MAX: usize = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct Change {
    add: Vec<String>,
    remove: Vec<String>,
}

pub(super) async fn show(
    State(engine): Engine,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let (sale, list) = named(&engine, path).await?;
    let size = engine.ledger().list_size(&sale.id, list).await;
    Ok(Json(shown(&sale, list, size?)))
}

pub(super) async fn change(
    State(engine): Engine,
    path: Result<Path<(String, String)>, PathRejection>,
    Document(change): Document<Change>,
) -> Result<Json<Value>, NotDone> {
    let (sale, list) = named(&engine, path).await?;
    let given = change.add.len() + change.remove.len();
    if given > PAGE_MAX {
        let allowed = format!("at most {PAGE_MAX} buyers together; send several pages");
        return Err(bad("add, remove", given, allowed).into());
    }
    let mut problems = Problems::default();
    let mut seen = HashSet::new();
    let add = buyers("add", &change.add, &mut seen, &mut problems);
    let remove = buyers("remove", &change.remove, &mut seen, &mut problems);
    if !problems.0.is_empty() {
        problems.0.truncate(TOLD_MAX);
        return Err(invalid(problems.0).into());
    }
    match engine.change_list(&sale.id, list, &add, &remove).await? {
        ListChanged::Done {
            size,
            added,
            removed,
        } => {
            let mut document = shown(&sale, list, size);
            document["added"] = added.into();
            document["removed"] = removed.into();
            Ok(Json(document))
        }
        ListChanged::TooMany { entries } => {
            let allowed = format!("at most {MAX_LISTED} buyers on one list");
            Err(bad("add", entries, allowed).into())
        }
    }
}

async fn named(
    engine: &SaleEngine,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<(Sale, ListName), Problem> {
    let (sale, list) = extract::path(path)?;
    let found = ListName::UPLOADED
        .into_iter()
        .find(|known| known.as_str() == list);
    let list = found.ok_or_else(|| {
        let known = ListName::UPLOADED.map(ListName::as_str).join(" or ");
        Problem::new(
            Code::NotFound,
            format!("list {list:?}: the lists of a sale are {known}"),
        )
    })?;
    Ok((stored_sale(engine, &sale).await?, list))
}

/// Reads the buyers of one field. One that stands twice is taken once, unless it stands in the other field too.
fn buyers(
    field: &str,
    given: &[String],
    seen: &mut HashSet<BuyerId>,
    problems: &mut Problems,
) -> Vec<BuyerId> {
    let mut here = HashSet::new();
    for (index, text) in given.iter().enumerate() {
        let allowed = match BuyerId::try_new(text) {
            Ok(buyer) if seen.contains(&buyer) => "a buyer that is not in add as well".to_owned(),
            Ok(buyer) => {
                here.insert(buyer);
                continue;
            }
            Err(invalid) => invalid.to_string(),
        };
        problems.add(&format!("{field}[{index}]"), text, allowed);
    }
    seen.extend(here.iter().cloned());
    here.into_iter().collect()
}

fn shown(sale: &Sale, list: ListName, size: ListSize) -> Value {
    json!({"sale": sale.id, "list": list.as_str(), "version": size.version, "entries": size.entries})
}

#[cfg(test)]
mod tests;
