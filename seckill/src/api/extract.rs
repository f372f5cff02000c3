//! Reading ids and bodies out of requests, each failure as a problem that names what, where and what is allowed.

use std::{str::FromStr, sync::Arc};

use axum::{
    body::Bytes,
    extract::{
        Path, Query,
        rejection::{BytesRejection, FailedToBufferBody, PathRejection, QueryRejection},
    },
};
use http::{HeaderMap, HeaderName, header};
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};
use crate::{
    catalogue::OpenSale,
    engine::SaleEngine,
    ids::{InvalidId, RequestId, SaleId},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The caller's idempotency key.
pub(super) fn request_id(headers: &HeaderMap) -> Result<RequestId, Problem> {
    match one(headers, &IDEMPOTENCY_KEY)? {
        None => Err(Problem::new(
            Code::MissingKey,
            "send a header Idempotency-Key that is unique for each purchase",
        )),
        Some(text) => {
            RequestId::try_new(text).map_err(|e| Problem::new(Code::InvalidRequest, e.to_string()))
        }
    }
}

/// A header's one value. Two values would let two hops see two different buyers.
pub(crate) fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::new(
            Code::InvalidRequest,
            format!("the header {name} may stand only once"),
        ));
    }
    let text = first.map(|value| value.to_str()).transpose();
    text.map_err(|_| {
        Problem::new(
            Code::InvalidRequest,
            format!("the header {name} must be visible ASCII"),
        )
    })
}

/// The sale of an id, as this node sells it.
pub(crate) fn sale(engine: &SaleEngine, id: &str) -> Result<Arc<OpenSale>, Problem> {
    let found = match SaleId::try_new(id) {
        Ok(id) => engine.sale(&id)?,
        Err(_) => None,
    };
    found.ok_or_else(|| no_such_sale(id))
}

/// The refusal of an id that no sale has.
pub(crate) fn no_such_sale(id: &str) -> Problem {
    Problem::new(Code::NoSuchSale, format!("no sale has the id {id:?}"))
}

/// An id out of the path or the query.
pub(crate) fn id<T: FromStr<Err = InvalidId>>(text: &str, otherwise: Code) -> Result<T, Problem> {
    text.parse()
        .map_err(|error: InvalidId| Problem::new(otherwise, error.to_string()))
}

/// A part of the path. Percent-encoding that is not UTF-8 names nothing that exists.
pub(crate) fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Problem> {
    path.map(|Path(found)| found)
        .map_err(|rejection| Problem::new(Code::InvalidRequest, rejection.body_text()))
}

/// The parameters of the query.
pub(crate) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query
        .map(|Query(found)| found)
        .map_err(|rejection| Problem::new(Code::InvalidRequest, rejection.body_text()))
}

/// A body of bounded length.
pub(crate) fn body(body: Result<Bytes, BytesRejection>, limit: usize) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Problem::new(
                Code::BodyTooLarge,
                format!("at most {limit} bytes are allowed"),
            )
        }
        _ => Problem::new(Code::InvalidBody, "the body did not arrive"),
    })
}

/// Whether a body is declared as JSON.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    match media_type.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Problem::new(
            Code::UnsupportedMediaType,
            "send the body as content-type: application/json",
        )),
    }
}

/// A JSON document.
pub(crate) fn document<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would take `["shoe", 1]` for the object that it stands for.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(
            Code::InvalidBody,
            "the body must be a JSON object",
        ));
    }
    serde_json::from_slice(body).map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))
}
