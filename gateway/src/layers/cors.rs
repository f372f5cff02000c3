//! The layer that lets pages of other origins call a route (the Fetch standard's CORS protocol): answers preflights, and marks answers,
//! refusals included, as readable.

use std::future::ready;

use futures_util::{FutureExt, future::Either};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN, VARY,
    },
};

use super::Handle;
use crate::exchange::{Body, Exchange};

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

/// Answers preflights and marks answers, on routes that allow other origins.
#[derive(Debug)]
pub(super) struct Cors<S> {
    inner: S,
}

impl<S> Cors<S> {
    /// Around the other layers.
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Handle> Handle for Cors<S> {
    fn handle(&self, exchange: Exchange) -> impl Future<Output = Response<Body>> {
        let headers = &exchange.head.headers;
        // `None`: this route is for its own origin only.
        let origin = exchange
            .route
            .as_ref()
            .filter(|route| !route.allow_origins.is_empty())
            .map(|route| allowed_origin(headers, &route.allow_origins));
        let Some(origin) = origin else {
            return Either::Left(self.inner.handle(exchange));
        };
        let is_preflight = exchange.head.method == Method::OPTIONS
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if is_preflight {
            return Either::Right(Either::Left(ready(preflight(origin))));
        }
        let answer = self.inner.handle(exchange);
        // Mapped: an async block would have room for the future twice, where it is captured and where it is awaited.
        Either::Right(Either::Right(answer.map(move |mut response| {
            mark(response.headers_mut(), origin);
            response
        })))
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

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::layers::testing::{Echo, route};

    async fn ask(method: Method, origin: &str, allowed: &[&'static str]) -> Response<Body> {
        let request = Request::builder()
            .method(method)
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let mut exchange = Exchange::for_test(request.body("").unwrap());
        exchange.route = Some(route(|route| {
            route.allow_origins = allowed
                .iter()
                .map(|origin| HeaderValue::from_static(origin))
                .collect();
        }));
        Cors::new(Echo).handle(exchange).await
    }

    #[tokio::test]
    async fn a_preflight_ends_here_and_an_answer_is_marked() {
        let shop = "https://shop.example";
        let preflight = ask(Method::OPTIONS, shop, &[shop]).await;
        assert_eq!(preflight.status(), 204);
        assert_eq!(preflight.headers()["access-control-allow-origin"], shop);
        let answer = ask(Method::POST, shop, &[shop]).await;
        assert_eq!(answer.headers()["access-control-allow-origin"], shop);
        assert_eq!(answer.headers()["vary"], "origin");
    }

    #[tokio::test]
    async fn other_origins_may_not_read() {
        let stranger = ask(
            Method::POST,
            "https://evil.example",
            &["https://shop.example"],
        )
        .await;
        assert!(
            !stranger
                .headers()
                .contains_key("access-control-allow-origin")
        );
        // A route without origins knows nothing of CORS: the shop behind it answers by itself.
        let own = ask(Method::OPTIONS, "https://a.example", &[]).await;
        assert_eq!(own.status(), 200);
        assert!(!own.headers().contains_key("vary"));
    }
}
