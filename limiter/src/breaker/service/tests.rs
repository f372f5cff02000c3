//! The layer on a mock service: answers, errors, cancelled requests, refusals.

use std::num::NonZeroU32;

use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_test::mock::{self, Spawn};

use super::super::{BreakerConfig, BreakerLayer, Outcome, State};
use super::*;

type Mock = mock::Mock<&'static str, u16>;
type Handle = mock::Handle<&'static str, u16>;
type Answer = Result<u16, tower::BoxError>;
type Service = CircuitBreaker<Mock, fn(&Answer) -> Outcome>;

fn by_status(answer: &Answer) -> Outcome {
    match answer {
        Ok(status) if *status < 500 => Outcome::Success,
        _ => Outcome::Failure,
    }
}

fn config() -> BreakerConfig {
    BreakerConfig {
        consecutive_failures: NonZeroU32::new(2),
        ..BreakerConfig::default()
    }
}

fn breaker_mock() -> (Spawn<Service>, Handle, Breaker) {
    let breaker = Breaker::new(config(), Instant::now());
    let classify = by_status as fn(&Answer) -> Outcome;
    let (service, handle) = mock::spawn_layer(BreakerLayer::new(breaker.clone(), classify));
    (service, handle, breaker)
}

async fn answer(service: &mut Spawn<Service>, handle: &mut Handle, status: u16) {
    assert_ready_ok!(service.poll_ready());
    let mut future = task::spawn(service.call("request"));
    assert_pending!(future.poll());
    handle.next_request().await.unwrap().1.send_response(status);
    assert_eq!(assert_ready_ok!(future.poll()), status);
}

async fn trip(service: &mut Spawn<Service>, handle: &mut Handle) {
    answer(service, handle, 500).await;
    answer(service, handle, 502).await;
}

#[tokio::test(start_paused = true)]
async fn answers_are_classified_and_passed_on() {
    let (mut service, mut handle, breaker) = breaker_mock();
    for status in [200, 404, 500, 200, 500] {
        answer(&mut service, &mut handle, status).await;
    }
    assert_eq!(breaker.state(), State::Closed);
    answer(&mut service, &mut handle, 500).await;
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn errors_are_passed_on_and_trip() {
    let (mut service, mut handle, breaker) = breaker_mock();
    for _ in 0..2 {
        assert_ready_ok!(service.poll_ready());
        let mut future = task::spawn(service.call("request"));
        handle.next_request().await.unwrap().1.send_error("refused");
        let error = assert_ready_err!(future.poll());
        assert!(matches!(error, BreakerError::Inner(inner) if inner.to_string() == "refused"));
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_ready_at_once_and_never_reaches_the_service() {
    let (mut service, mut handle, _breaker) = breaker_mock();
    trip(&mut service, &mut handle).await;
    assert_ready_ok!(service.poll_ready());
    let mut future = task::spawn(service.call("request"));
    match assert_ready!(future.poll()) {
        Err(BreakerError::Rejected(rejected)) => {
            assert_eq!(rejected.retry_after, config().open_for);
        }
        other => panic!("not rejected: {other:?}"),
    }
    assert_pending!(handle.poll_request());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_makes_room_for_the_next() {
    let (mut service, mut handle, breaker) = breaker_mock();
    trip(&mut service, &mut handle).await;
    tokio::time::advance(config().open_for).await;

    assert_ready_ok!(service.poll_ready());
    let mut probe = task::spawn(service.call("probe"));
    assert_pending!(probe.poll());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_ready_ok!(service.poll_ready());
    assert_ready_err!(task::spawn(service.call("too many")).poll());
    drop(probe);
    handle.next_request().await.unwrap();

    answer(&mut service, &mut handle, 200).await;
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn cancelled_requests_do_not_trip() {
    let (mut service, mut handle, breaker) = breaker_mock();
    for _ in 0..100 {
        assert_ready_ok!(service.poll_ready());
        drop(service.call("request"));
        handle.next_request().await.unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn errors_of_readiness_are_not_counted() {
    let (mut service, mut handle, breaker) = breaker_mock();
    handle.send_error("gone");
    assert!(matches!(
        assert_ready_err!(service.poll_ready()),
        BreakerError::Inner(_)
    ));
    assert_eq!(breaker.state(), State::Closed);
}
