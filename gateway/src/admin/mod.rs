//! The admin listener: life, readiness, metrics, and the admin API behind a token. Runs on the control runtime.
//!
//! `/live`, `/ready` and `/metrics` are open to whoever reaches the address; `/admin/*` asks for the bearer token when one is
//! configured, answers no web page, and draws from one token bucket, so that nobody can try tokens quickly.

mod metrics_page;
pub mod openapi;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, ORIGIN},
};
use http_body::Body as _;
use http_body_util::Limited;
use limiter::rate::{RateQuota, admin_guard};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use crate::{
    http::{Problem, target::host_of},
    meters,
};

/// A script that reads pages of orders makes a few hundred calls a second; guessing a token of 128 bits at this rate takes longer
/// than there is time.
const CALLS_PER_SECOND: u32 = 1_000;
const BURST: u32 = 2_000;

/// A sale of ten thousand skus fits.
const BODY_MAX: usize = 1 << 20;

/// A part's own word on whether it is ready.
pub type ReadyCheck = Arc<dyn Fn() -> bool + Send + Sync>;

/// Whether the process wants requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    is_draining: AtomicBool,
    parts: Vec<(&'static str, ReadyCheck)>,
}

impl Readiness {
    /// Ready when all of these parts are.
    pub fn new(parts: Vec<(&'static str, ReadyCheck)>) -> Self {
        Self {
            inner: Arc::new(Inner {
                is_draining: AtomicBool::new(false),
                parts,
            }),
        }
    }

    /// Says no from now on.
    pub fn start_draining(&self) {
        self.inner.is_draining.store(true, Ordering::Relaxed);
    }

    /// What is in the way.
    pub fn missing(&self) -> Vec<&'static str> {
        let draining = self
            .inner
            .is_draining
            .load(Ordering::Relaxed)
            .then_some("draining");
        let parts = self.inner.parts.iter().filter(|(_, is_ready)| !is_ready());
        draining
            .into_iter()
            .chain(parts.map(|(name, _)| *name))
            .collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("missing", &self.missing())
            .finish()
    }
}

/// The whole listener's router. `extra` carries its full paths, which all begin with `/admin/`.
pub fn router(
    token: Option<String>,
    readiness: Readiness,
    metrics: PrometheusHandle,
    extra: Router,
) -> Router {
    let open = Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(async move || ready(&readiness)))
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
    let guarded = extra
        .merge(openapi::router())
        // A wrong path needs the token too: what exists is nobody's business.
        .route(
            "/admin/{*path}",
            axum::routing::any(async || Problem::NotFound),
        )
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
    open.merge(guarded).fallback(async || Problem::NotFound)
}

fn ready(readiness: &Readiness) -> Response {
    let missing = readiness.missing();
    let status = match missing.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (
        status,
        Json(json!({ "ready": missing.is_empty(), "missing": missing })),
    )
        .into_response()
}

/// Refuses what a web page in the operator's browser sends, whoever made that page. A browser says so itself (`Origin`,
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
