//! The admin listener: life, readiness, metrics, and the admin API behind a token. Runs on the control runtime.
//!
//! `/live`, `/ready` and `/metrics` are open to everybody who reaches the address; `/admin/*` asks for the bearer token when one is
//! configured, answers no web page, and draws from one token bucket, so that nobody can try tokens quickly.

mod metrics_page;
pub mod openapi;
mod readiness;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN, RETRY_AFTER},
};
use http_body::Body as _;
use http_body_util::Limited;
use limiter::rate::{RateQuota, admin_guard};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tower::ServiceExt;

pub use self::readiness::{Part, PartState, Readiness};
use crate::{
    http::{Problem, target::host_of},
    meters,
    route::Late,
};

/// A script that reads pages of orders makes a few hundred calls a second; guessing a token of 128 bits at this rate takes longer
/// than there is time.
const CALLS_PER_SECOND: u32 = 1_000;
const BURST: u32 = 2_000;

/// A sale of ten thousand skus fits.
const BODY_MAX: usize = 1 << 20;

/// The whole listener's router. `own` and `late`, of which the second is there once the services run, carry their full paths, which all
/// begin with `/admin/`.
pub fn router(
    token: Option<String>,
    readiness: Readiness,
    metrics: PrometheusHandle,
    own: Router,
    late: Option<Late>,
) -> Router {
    let open = Router::new()
        .route("/live", get(async || "live\n"))
        .merge(readiness::router(readiness.clone()))
        .route(
            "/metrics",
            get(async move |asked: HeaderMap| metrics_page::answer(&asked, meters::page(&metrics))),
        );
    let quota = RateQuota::try_new(
        NonZeroU32::new(CALLS_PER_SECOND).unwrap_or(NonZeroU32::MIN),
        Duration::from_secs(1),
        NonZeroU32::new(BURST).unwrap_or(NonZeroU32::MIN),
    )
    .expect("the constants are within the quota's range");
    let guarded = own
        .merge(openapi::router())
        // A wrong path needs the token too: what exists is nobody's business.
        .fallback(move |request| answer_late(late, readiness, request))
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(middleware::from_fn(bound_body))
        .layer(middleware::from_fn_with_state(
            token.clone().map(Arc::from),
            check_token,
        ))
        // Before the token: a page that has found it out is still refused.
        .layer(middleware::from_fn_with_state(token.is_some(), check_site))
        // Outermost: a wrong token costs a call as well.
        .layer(admin_guard::<Body>(quota, |limited| {
            Problem::AdminLimited(limited.retry_after).into_response()
        }));
    open.fallback(
        async move |request: Request| match request.uri().path().starts_with("/admin/") {
            true => match guarded.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            false => Problem::NotFound.into_response(),
        },
    )
}

/// What the services beside the edge answer, once they run; before that, why they do not.
async fn answer_late(late: Option<Late>, readiness: Readiness, request: Request) -> Response {
    let Some(late) = late else {
        return Problem::NotFound.into_response();
    };
    if let Some(router) = late.get() {
        let answered = router.clone().oneshot(request).await;
        return answered.unwrap_or_else(|never| match never {});
    }
    let reason = readiness.starting().unwrap_or_default();
    let document = json!({
        "type": "https://penstock.dev/problems/not_ready", "title": "Not started yet", "status": 503, "code": "not_ready",
        "detail": format!("nothing was done, because sales and payments have not started: {reason}"),
    });
    let headers = [
        (CONTENT_TYPE, "application/problem+json"),
        (RETRY_AFTER, "1"),
    ];
    let status = StatusCode::SERVICE_UNAVAILABLE;
    (status, headers, document.to_string()).into_response()
}

/// A router for the guarded paths that refuses what it does not have in the words of this listener.
pub fn with_refusals(router: Router) -> Router {
    router
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
}

/// Refuses what a web page in the operator's browser sends, from any site. A browser says so itself (`Origin`,
/// `Sec-Fetch-Site`), except to a name that the page's owner has pointed at this address: then both are of one site. Without a token
/// the address is a loopback one, so only names that cannot be pointed anywhere pass; a token is what such a page does not have.
async fn check_site(State(has_token): State<bool>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let site = head.headers.get("sec-fetch-site");
    let is_page = head.headers.contains_key(ORIGIN)
        || site.is_some_and(|site| site != "none" && site != "same-origin");
    let is_host_fine = has_token || host_of(&head).is_some_and(is_own_name);
    if is_page || !is_host_fine {
        return Problem::CrossSite.into_response();
    }
    next.run(Request::from_parts(head, body)).await
}

/// `localhost` or an address, with or without a port.
fn is_own_name(host: &str) -> bool {
    let is_name = |name: &str| {
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<Ipv4Addr>().is_ok()
            || name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'))
                .is_some_and(|name| name.parse::<Ipv6Addr>().is_ok())
    };
    is_name(host)
        || host
            .rsplit_once(':')
            .is_some_and(|(name, port)| port.parse::<u16>().is_ok() && is_name(name))
}

/// Refuses a body that is announced as too large, and cuts one off that turns out to be: axum's extractors answer 413.
async fn bound_body(request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > BODY_MAX as u64 {
        return Problem::BodyTooLarge.into_response();
    }
    next.run(request.map(|body| Body::new(Limited::new(body, BODY_MAX))))
        .await
}

async fn check_token(
    State(token): State<Option<Arc<str>>>,
    request: Request,
    next: Next,
) -> Response {
    // The scheme's name has no case (RFC 9110 11.1).
    let given = request.headers().get(AUTHORIZATION).and_then(|value| {
        let (scheme, given) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(given)
    });
    let is_allowed = match &token {
        None => true,
        Some(token) => given.is_some_and(|given| is_same(given, token.as_bytes())),
    };
    if !is_allowed {
        return Problem::Unauthorized.into_response();
    }
    next.run(request).await
}

/// Compares without telling by its time how far it came: both are hashed, and hashes of near values are not near.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let hash = |text| ring::digest::digest(&ring::digest::SHA256, text);
    hash(given).as_ref() == hash(token).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_pointed_elsewhere_are_its_own() {
        for own in [
            "localhost",
            "LOCALHOST:9900",
            "127.0.0.1",
            "127.0.0.1:9900",
            "[::1]",
            "[::1]:9900",
        ] {
            assert!(is_own_name(own), "{own}");
        }
        for foreign in [
            "",
            "evil.example",
            "evil.example:9900",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9900",
            "localhost:x",
        ] {
            assert!(!is_own_name(foreign), "{foreign}");
        }
    }
}
