//! The layer that lets pages of other origins call a route (the Fetch standard's CORS protocol): answers preflights, and marks answers,
//! refusals included, as readable.

use std::future::ready;

use futures_util::future::Either;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN, VARY,
    },
};
use tower_layer::Layer;

use super::Handle;
use crate::{body::Body, exchange::Exchange};

/// What a page may send: what the sale API reads.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-none-match, last-event-id, penstock-entitlement, prefer",
);

/// What a page may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE");

/// What a page may read beside the few headers that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, idempotent-replayed, location, preference-applied, ratelimit, ratelimit-policy, retry-after",
);

/// Chromium's own bound: two hours.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Makes [`Cors`].
#[derive(Clone, Copy, Debug)]
pub struct CorsLayer;

/// Answers preflights and marks answers, on routes that allow other origins.
#[derive(Debug)]
pub struct Cors<S> {
    inner: S,
}

impl<S> Layer<S> for CorsLayer {
    type Service = Cors<S>;

    fn layer(&self, inner: S) -> Cors<S> {
        Cors { inner }
    }
}

impl<S: Handle> Handle for Cors<S> {
    fn handle<'a>(&'a self, exchange: Exchange<'a>) -> impl Future<Output = Response<Body>> + 'a {
        let allowed: &[HeaderValue] = exchange.route.map_or(&[], |route| &route.allow_origins);
        if allowed.is_empty() {
            return Either::Left(self.inner.handle(exchange));
        }
        let origin = allowed_origin(&exchange.head.headers, allowed);
        let is_preflight = exchange.head.method == Method::OPTIONS
            && exchange
                .head
                .headers
                .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if is_preflight {
            return Either::Right(Either::Left(ready(preflight(origin))));
        }
        let answer = self.inner.handle(exchange);
        Either::Right(Either::Right(async move {
            let mut response = answer.await;
            mark(response.headers_mut(), origin);
            response
        }))
    }
}

/// What `Access-Control-Allow-Origin` says to this request; `None` if its origin may not read the answer, or it has none.
fn allowed_origin(headers: &HeaderMap, allowed: &[HeaderValue]) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let any = HeaderValue::from_static("*");
    if allowed.contains(&any) {
        // No cookie is ever needed here, so nothing is allowed with credentials.
        return Some(any);
    }
    allowed.contains(origin).then(|| origin.clone())
}

/// A preflight costs no token of a limit and reaches no handler.
fn preflight(origin: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::EMPTY);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if origin.is_some() {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }
    mark(headers, origin);
    response
}

fn mark(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    // Caches keep the answers to different origins apart.
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}
