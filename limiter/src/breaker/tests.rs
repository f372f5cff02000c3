//! The shared breaker: permits that are dropped, observers, threads.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::*;

fn config() -> BreakerConfig {
    BreakerConfig {
        consecutive_failures: NonZeroU32::new(2),
        ..BreakerConfig::default()
    }
}

fn tripped(now: Instant) -> Breaker {
    let breaker = Breaker::new(config(), now);
    while breaker.state() == State::Closed {
        breaker.try_acquire(now).unwrap().failure(now);
    }
    breaker
}

#[test]
fn a_dropped_probe_frees_its_place() {
    let now = Instant::now();
    let breaker = tripped(now);
    let later = now + config().open_for;
    let probe = breaker.try_acquire(later).unwrap();
    assert!(probe.is_probe());
    assert!(breaker.try_acquire(later).is_err());
    drop(probe);
    assert_eq!(breaker.state(), State::HalfOpen);
    breaker.try_acquire(later).unwrap().success(later);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn dropped_permits_neither_trip_nor_break_a_row() {
    let now = Instant::now();
    let breaker = Breaker::new(config(), now);
    for _ in 0..100 {
        drop(breaker.try_acquire(now).unwrap());
    }
    assert_eq!(breaker.state(), State::Closed);
    breaker.try_acquire(now).unwrap().failure(now);
    drop(breaker.try_acquire(now).unwrap());
    breaker.try_acquire(now).unwrap().failure(now);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn the_observer_hears_every_transition_in_order() {
    let now = Instant::now();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let breaker = Breaker::observed(config(), now, move |transition| {
        listener.lock().unwrap().push(transition);
    });
    breaker.try_acquire(now).unwrap().failure(now);
    breaker.try_acquire(now).unwrap().failure(now);
    let later = now + config().open_for;
    breaker.try_acquire(later).unwrap().success(later);
    use State::*;
    let expected = [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)]
        .map(|(from, to)| Transition { from, to });
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[test]
fn a_panicking_observer_does_not_break_the_breaker() {
    let now = Instant::now();
    let breaker = Breaker::observed(config(), now, |_| panic!("observer"));
    breaker.try_acquire(now).unwrap().failure(now);
    let trip = breaker.try_acquire(now).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| trip.failure(now)));
    assert!(result.is_err());
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.try_acquire(now).is_err());
}

#[test]
fn of_many_threads_one_gets_the_probe() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    for _ in 0..50 {
        let breaker = tripped(now);
        let probes = AtomicUsize::new(0);
        let hold = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    hold.wait();
                    let permit = breaker.try_acquire(later);
                    probes.fetch_add(permit.is_ok().into(), Ordering::Relaxed);
                    hold.wait();
                });
            }
        });
        assert_eq!(probes.into_inner(), 1);
    }
}
