//! An answer on its way out, with the headers that Stripe's SDKs read.

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::{
    answer::Answer,
    request::IDEMPOTENCY_KEY,
    version::{self, STRIPE_VERSION},
};

static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The response to a request with the headers `asked`.
pub(super) fn respond(answer: Answer, asked: &HeaderMap, request_id: &str) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status)
        .expect("statuses come from the table in error.rs or from a stored answer");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(&REQUEST_ID, id);
    }
    if let Some(key) = asked.get(&IDEMPOTENCY_KEY) {
        headers.insert(&IDEMPOTENCY_KEY, key.clone());
    }
    headers.insert(&STRIPE_VERSION, version::spoken(asked));
    if answer.is_replayed {
        headers.insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(should_retry) = answer.should_retry {
        let value = if should_retry { "true" } else { "false" };
        headers.insert(&SHOULD_RETRY, HeaderValue::from_static(value));
    }
    if let Some(after) = answer.retry_after {
        // Rounded up: a client that comes a moment early is refused again.
        let seconds = after.as_millis().div_ceil(1000).max(1);
        if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
            headers.insert(RETRY_AFTER, seconds);
        }
    }
    if answer.status == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        let mut answer = Answer::new(503, String::new());
        answer.retry_after = Some(Duration::from_millis(1_001));
        let response = respond(answer, &HeaderMap::new(), "req_1");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[&REQUEST_ID], "req_1");
    }
}
