//! The admin listener: life, readiness, metrics, and the admin API behind a token. Runs on the control runtime.
//!
//! `/live`, `/ready` and `/metrics` are open to whoever reaches the address; `/admin/*` asks for the bearer token when one is
//! configured, and everything under it draws from one token bucket, so that nobody can try tokens quickly.

use std::{
    fmt,
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
    StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use limiter::rate::{Limited, RateQuota, admin_guard, retry_after_field};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

/// A script that reads pages of orders makes a few hundred calls a second; guessing a token of 128 bits at this rate takes longer
/// than there is time.
const CALLS_PER_SECOND: u32 = 1_000;
const BURST: u32 = 2_000;

/// Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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
    extra: Option<Router>,
) -> Router {
    let open = Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(async move || ready(&readiness)))
        .route(
            "/metrics",
            get(async move || ([(CONTENT_TYPE, METRICS_TYPE)], metrics.render())),
        );
    let quota = RateQuota::try_new(
        NonZeroU32::new(CALLS_PER_SECOND).unwrap_or(NonZeroU32::MIN),
        Duration::from_secs(1),
        NonZeroU32::new(BURST).unwrap_or(NonZeroU32::MIN),
    )
    .expect("the constants are within the quota's range");
    let guarded = extra
        .unwrap_or_default()
        // A wrong path needs the token too: what exists is nobody's business.
        .route("/admin/{*path}", axum::routing::any(async || not_found()))
        .layer(middleware::from_fn_with_state(
            token.map(Arc::from),
            check_token,
        ))
        // Outermost: a wrong token costs a call as well.
        .layer(admin_guard::<Body>(quota, refuse));
    open.merge(guarded).fallback(async || not_found())
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

async fn check_token(
    State(token): State<Option<Arc<str>>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let is_allowed = match &token {
        None => true,
        Some(token) => given.is_some_and(|given| is_same(given, token.as_bytes())),
    };
    if is_allowed {
        return next.run(request).await;
    }
    let mut response = problem(401, "unauthorized", "a bearer token is needed");
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    response
}

/// Compares without telling by its time how far it came: both are hashed, and hashes of near values are not near.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let hash = |text| ring::digest::digest(&ring::digest::SHA256, text);
    hash(given).as_ref() == hash(token).as_ref()
}

fn refuse(limited: Limited) -> http::Response<Body> {
    let mut response = problem(429, "limited", "too many calls of the admin API");
    response
        .headers_mut()
        .insert(RETRY_AFTER, retry_after_field(limited.retry_after));
    response
}

fn not_found() -> Response {
    problem(404, "not_found", "no such path")
}

fn problem(status: u16, code: &str, detail: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let document = json!({
        "type": format!("https://penstock.dev/problems/{code}"),
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    (
        status,
        [(CONTENT_TYPE, "application/problem+json")],
        document.to_string(),
    )
        .into_response()
}
