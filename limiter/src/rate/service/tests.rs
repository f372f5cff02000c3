//! The layer on a mock service: what reaches it, what is answered without it.

use std::num::{NonZeroU32, NonZeroUsize};

use http::StatusCode;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower_test::mock::{self, Spawn};

use super::super::{ConstantKey, RateLimitLayer, RateQuota, retry_after_field};
use super::*;

type Mock = mock::Mock<Request<()>, Response<()>>;
type Handle = mock::Handle<Request<()>, Response<()>>;
type Refuse = fn(Limited) -> Response<()>;

fn refuse(limited: Limited) -> Response<()> {
    Response::builder()
        .status(StatusCode::TOO_MANY_REQUESTS)
        .header("retry-after", retry_after_field(limited.retry_after))
        .body(())
        .unwrap()
}

fn limited_mock(burst: u32) -> (Spawn<RateLimit<Mock, ConstantKey, Refuse>>, Handle) {
    let quota = RateQuota::try_from_rate("1/s".parse().unwrap(), NonZeroU32::new(burst).unwrap());
    let limiter = RateLimiter::new(quota.unwrap(), NonZeroUsize::MIN, Instant::now());
    mock::spawn_layer(RateLimitLayer::new(
        Arc::new(limiter),
        ConstantKey,
        refuse as Refuse,
    ))
}

#[tokio::test(start_paused = true)]
async fn allowed_requests_reach_the_service() {
    let (mut service, mut handle) = limited_mock(1);
    assert_ready_ok!(service.poll_ready());
    let mut answer = tokio_test::task::spawn(service.call(Request::new(())));
    assert_pending!(answer.poll());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(Response::new(()));
    assert_eq!(assert_ready_ok!(answer.poll()).status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_ready_at_once_and_never_reaches_the_service() {
    let (mut service, mut handle) = limited_mock(1);
    assert_ready_ok!(service.poll_ready());
    let _first = service.call(Request::new(()));
    handle.next_request().await.unwrap();
    assert_ready_ok!(service.poll_ready());
    let mut second = tokio_test::task::spawn(service.call(Request::new(())));
    let refusal = assert_ready_ok!(second.poll());
    assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refusal.headers()["retry-after"], "1");
    assert_pending!(handle.poll_request());
}

#[tokio::test(start_paused = true)]
async fn waiting_as_told_lets_the_next_one_in() {
    let (mut service, mut handle) = limited_mock(1);
    assert_ready_ok!(service.poll_ready());
    let _first = service.call(Request::new(()));
    handle.next_request().await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_ready_ok!(service.poll_ready());
    let _second = service.call(Request::new(()));
    assert!(handle.next_request().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn inner_errors_pass_through() {
    let (mut service, mut handle) = limited_mock(1);
    assert_ready_ok!(service.poll_ready());
    let mut answer = tokio_test::task::spawn(service.call(Request::new(())));
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_error("broken");
    assert_eq!(assert_ready_err!(answer.poll()).to_string(), "broken");
}

#[tokio::test(start_paused = true)]
async fn dropped_answers_do_not_give_the_token_back() {
    let (mut service, _handle) = limited_mock(1);
    assert_ready_ok!(service.poll_ready());
    drop(service.call(Request::new(())));
    assert_ready_ok!(service.poll_ready());
    let mut second = tokio_test::task::spawn(service.call(Request::new(())));
    assert_eq!(
        assert_ready_ok!(second.poll()).status(),
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inner_services() {
    let (mut service, mut handle) = limited_mock(1);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
}
