//! Reading ids and bodies out of requests, each failure as a problem that names what, where and what is allowed.

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::rejection::{BytesRejection, FailedToBufferBody},
};
use http::{HeaderMap, HeaderName, header};
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};
use crate::ids::{BuyerId, InvalidId, RequestId};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Who buys.
pub(super) fn buyer(headers: &HeaderMap, name: &HeaderName) -> Result<BuyerId, Problem> {
    match one(headers, name)? {
        None => Err(Problem::new(
            Code::Unauthenticated,
            format!("the header {name} does not name a buyer"),
        )),
        Some(text) => BuyerId::try_new(text)
            .map_err(|e| Problem::new(Code::InvalidRequest, format!("{name}: {e}"))),
    }
}

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
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
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

/// An id out of the path or the query.
pub(super) fn id<T: FromStr<Err = InvalidId>>(text: &str, otherwise: Code) -> Result<T, Problem> {
    text.parse()
        .map_err(|error: InvalidId| Problem::new(otherwise, error.to_string()))
}

/// A JSON body.
pub(super) fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let body = body.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Problem::new(
                Code::BodyTooLarge,
                format!("at most {} bytes are allowed", super::BODY_LIMIT),
            )
        }
        _ => Problem::new(Code::InvalidBody, "the body did not arrive"),
    })?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "send the body as content-type: application/json",
        ));
    }
    serde_json::from_slice(&body)
        .map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))
}
