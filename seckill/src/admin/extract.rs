//! What admin handlers take out of a request: the sale that the path names, and the body as a document. What is wrong is a problem.

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use http::request::Parts;
use serde::{Deserialize, de::DeserializeOwned};

use super::{Admin, BODY_LIMIT};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    engine::SaleEngine,
    ids::SaleId,
    sale::Sale,
};

/// A sale as the ledger has it, drafts included.
pub(super) struct Stored(pub(super) Sale);

/// A sale as this node sells it.
pub(super) struct OnSale(pub(super) Sale);

/// Which page of a list is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

/// The body. Operators' clients do not all send a content type, so only the content counts here. (A web page cannot reach this: see the
/// gateway's admin listener.)
pub(super) struct Document<T>(pub(super) T);

/// The part of the path that names the sale, whatever else the path has.
#[derive(Deserialize)]
struct InPath {
    sale: String,
}

impl FromRequestParts<Admin> for Stored {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let InPath { sale } = extract::path(Path::from_request_parts(parts, admin).await)?;
        stored_sale(&admin.engine, &sale).await.map(Self)
    }
}

impl FromRequestParts<Admin> for OnSale {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let InPath { sale } = extract::path(Path::from_request_parts(parts, admin).await)?;
        let open = extract::sale(&admin.engine, &sale)?;
        Ok(Self(open.sale.clone()))
    }
}

impl FromRequestParts<Admin> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        extract::query(Query::from_request_parts(parts, admin).await)
    }
}

impl Page {
    /// What the page begins after, if it is not the first, and how many rows it has.
    pub(super) fn read<T>(
        self,
        default: u32,
        max: u32,
        row: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Result<(Option<T>, usize), Problem> {
        let limit = self.limit.unwrap_or(default);
        if !(1..=max).contains(&limit) {
            let detail = format!("limit = {limit}: must be from 1 to {max}");
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
        let after = Some(self.after).filter(|after| !after.is_empty());
        let after = after.as_deref().map(row).transpose()?;
        Ok((after, limit as usize))
    }
}

/// The name of a row, as it stands in a path or as the cursor of a page.
pub(super) fn row<T: FromStr<Err = String>>(text: &str, otherwise: Code) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::new(otherwise, error))
}

impl<T: DeserializeOwned> FromRequest<Admin> for Document<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, admin: &Admin) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, admin).await;
        extract::document(&extract::body(body, BODY_LIMIT)?).map(Self)
    }
}

/// The sale of an id as the ledger has it.
pub(super) async fn stored_sale(engine: &SaleEngine, id: &str) -> Result<Sale, Problem> {
    let parsed = SaleId::try_new(id).map_err(|_| extract::no_such_sale(id))?;
    let found = engine.ledger().sale(&parsed).await?;
    found.ok_or_else(|| extract::no_such_sale(id))
}
