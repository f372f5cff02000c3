//! The guard on an axum router: so many through, then the caller's own refusal.

use std::num::NonZeroU32;

use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use tower::ServiceExt;

use super::super::retry_after_field;
use super::*;

fn refuse(limited: Limited) -> Response<Body> {
    Response::builder()
        .status(StatusCode::TOO_MANY_REQUESTS)
        .header("retry-after", retry_after_field(limited.retry_after))
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn guard_refuses_beyond_the_burst() {
    let hour = Duration::from_secs(3600);
    let quota = RateQuota::try_new(NonZeroU32::MIN, hour, NonZeroU32::new(2).unwrap()).unwrap();
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(admin_guard(quota, refuse));
    let ask = || router.clone().oneshot(Request::new(Body::empty()));

    assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
    assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
    let refusal = ask().await.unwrap();
    assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait_s: u64 = refusal.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3590..=3600).contains(&wait_s), "{wait_s}");
}
