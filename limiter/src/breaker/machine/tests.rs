//! Facts of the state machine, and properties that hold after any history.

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Trips on three failures in a row, or on half of at least four answers in a second.
fn config() -> BreakerConfig {
    BreakerConfig {
        slots: 10,
        slot: 100 * MS,
        min_requests: NonZeroU32::new(4).unwrap(),
        failure_ratio: 0.5,
        consecutive_failures: NonZeroU32::new(3),
        open_for: 100 * MS,
        open_for_max: 450 * MS,
        probe_deadline: 1000 * MS,
    }
}

/// A breaker and its own time.
struct Bench {
    core: BreakerCore,
    now: Instant,
}

impl Bench {
    fn new(config: BreakerConfig) -> Self {
        let now = Instant::now();
        Self {
            core: BreakerCore::new(config, now),
            now,
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn acquire(&mut self) -> Result<Ticket, Rejected> {
        self.core.try_acquire(self.now).0
    }

    fn record(&mut self, ticket: Ticket, outcome: Outcome) -> Option<Transition> {
        self.core.record(ticket, outcome, self.now)
    }

    fn request(&mut self, outcome: Outcome) -> Option<Transition> {
        let ticket = self.acquire().unwrap();
        self.record(ticket, outcome)
    }

    fn trip(&mut self) {
        while self.core.state() == State::Closed {
            self.request(Outcome::Failure);
        }
    }

    fn refused_for(&mut self) -> Duration {
        self.acquire().unwrap_err().retry_after
    }
}

#[test]
fn consecutive_failures_trip() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.request(Outcome::Failure), None);
    assert_eq!(bench.request(Outcome::Failure), None);
    assert_eq!(
        bench.request(Outcome::Failure),
        Some(Transition {
            from: State::Closed,
            to: State::Open
        })
    );
    assert_eq!(bench.refused_for(), 100 * MS);
}

#[test]
fn a_success_breaks_the_row() {
    let mut bench = Bench::new(BreakerConfig {
        failure_ratio: 1.0,
        ..config()
    });
    for _ in 0..100 {
        bench.request(Outcome::Failure);
        bench.request(Outcome::Failure);
        bench.request(Outcome::Success);
    }
    assert_eq!(bench.core.state(), State::Closed);
}

#[test]
fn the_ratio_trips_only_with_enough_answers() {
    let mut bench = Bench::new(BreakerConfig {
        consecutive_failures: None,
        ..config()
    });
    bench.request(Outcome::Failure);
    bench.request(Outcome::Success);
    assert_eq!(bench.request(Outcome::Failure), None);
    // The fourth answer makes two of four, yet a success never trips.
    assert_eq!(bench.request(Outcome::Success), None);
    assert!(bench.request(Outcome::Failure).is_some());
}

#[test]
fn failures_leave_the_window_with_their_slot() {
    let mut bench = Bench::new(BreakerConfig {
        consecutive_failures: None,
        ..config()
    });
    for _ in 0..3 {
        bench.request(Outcome::Failure);
    }
    bench.wait(1000 * MS);
    for _ in 0..3 {
        assert_eq!(bench.request(Outcome::Failure), None);
    }
    assert!(bench.request(Outcome::Failure).is_some());
}

#[test]
fn half_open_admits_exactly_one() {
    let mut bench = Bench::new(config());
    bench.trip();
    bench.wait(99 * MS);
    assert_eq!(bench.refused_for(), MS);
    bench.wait(MS);
    let (probe, transition) = bench.core.try_acquire(bench.now);
    assert!(probe.unwrap().is_probe());
    assert_eq!(transition.unwrap().to, State::HalfOpen);
    for _ in 0..100 {
        assert_eq!(bench.refused_for(), 1000 * MS);
    }
    assert_eq!(
        bench.record(probe.unwrap(), Outcome::Success),
        Some(Transition {
            from: State::HalfOpen,
            to: State::Closed
        })
    );
    assert!(!bench.acquire().unwrap().is_probe());
}

#[test]
fn failed_probes_double_the_open_time_up_to_the_cap() {
    let mut bench = Bench::new(config());
    bench.trip();
    for open_ms in [100, 200, 400, 450, 450] {
        assert_eq!(bench.refused_for(), open_ms * MS);
        bench.wait(open_ms * MS);
        let probe = bench.acquire().unwrap();
        assert_eq!(
            bench.record(probe, Outcome::Failure).unwrap().to,
            State::Open
        );
    }
}

#[test]
fn an_endpoint_that_fails_right_after_its_probe_keeps_backing_off() {
    let mut bench = Bench::new(config());
    bench.trip();
    bench.wait(100 * MS);
    bench.request(Outcome::Success);
    bench.trip();
    assert_eq!(bench.refused_for(), 200 * MS);
}

#[test]
fn a_whole_good_window_forgets_the_backing_off() {
    let mut bench = Bench::new(config());
    bench.trip();
    bench.wait(100 * MS);
    bench.request(Outcome::Success);
    bench.wait(1001 * MS);
    bench.trip();
    assert_eq!(bench.refused_for(), 100 * MS);
}

#[test]
fn a_probe_without_answer_fails_at_its_deadline() {
    let mut bench = Bench::new(config());
    bench.trip();
    bench.wait(100 * MS);
    let lost = bench.acquire().unwrap();
    bench.wait(1000 * MS);
    let (answer, transition) = bench.core.try_acquire(bench.now);
    assert_eq!(answer.unwrap_err().retry_after, 200 * MS);
    assert_eq!(
        transition,
        Some(Transition {
            from: State::HalfOpen,
            to: State::Open
        })
    );
    // Its answer comes after all, during the next probe: too late to count.
    bench.wait(200 * MS);
    let _probe = bench.acquire().unwrap();
    assert_eq!(bench.record(lost, Outcome::Success), None);
    assert_eq!(bench.core.state(), State::HalfOpen);
}

#[test]
fn a_cancelled_probe_frees_its_place_and_does_not_close() {
    let mut bench = Bench::new(config());
    bench.trip();
    bench.wait(100 * MS);
    let probe = bench.acquire().unwrap();
    bench.core.cancel(probe);
    assert_eq!(bench.core.state(), State::HalfOpen);
    let next = bench.acquire().unwrap();
    assert!(next.is_probe());
    assert!(bench.acquire().is_err());
    // The first probe's ticket is spent: it cannot free the second one's place.
    bench.core.cancel(probe);
    assert!(bench.acquire().is_err());
}

#[test]
fn outcomes_from_before_the_trip_are_ignored() {
    let mut bench = Bench::new(config());
    let early: Vec<_> = (0..10).map(|_| bench.acquire().unwrap()).collect();
    bench.trip();
    bench.wait(100 * MS);
    let _probe = bench.acquire().unwrap();
    for ticket in early {
        assert_eq!(bench.record(ticket, Outcome::Success), None);
        assert_eq!(bench.record(ticket, Outcome::Failure), None);
    }
    assert_eq!(bench.core.state(), State::HalfOpen);
    assert_eq!(bench.refused_for(), 1000 * MS);
}

#[test]
fn cancelled_requests_count_neither_way() {
    let mut bench = Bench::new(config());
    bench.request(Outcome::Failure);
    bench.request(Outcome::Failure);
    bench.request(Outcome::Cancelled);
    assert!(bench.request(Outcome::Failure).is_some());
}

/// One move of a history.
#[derive(Clone, Debug)]
enum Move {
    Acquire,
    /// The outstanding ticket at this index (modulo) ends so.
    End(usize, Outcome),
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let outcome = prop_oneof![
        2 => Just(Outcome::Success),
        4 => Just(Outcome::Failure),
        1 => Just(Outcome::Cancelled),
    ];
    let one = prop_oneof![
        5 => Just(Move::Acquire),
        4 => (any::<usize>(), outcome).prop_map(|(at, outcome)| Move::End(at, outcome)),
        3 => (0u64..300).prop_map(Move::Wait),
        1 => (1000u64..3000).prop_map(Move::Wait),
    ];
    prop::collection::vec(one, 1..300)
}

proptest! {
    #[test]
    fn any_history_keeps_the_promises(moves in moves()) {
        let mut bench = Bench::new(config());
        let mut tickets: Vec<Ticket> = Vec::new();
        // Until when the last refusal said nothing would be let through.
        let mut refused_until: Option<Instant> = None;
        // The probe that is out, and since when.
        let mut probe: Option<(Ticket, Instant)> = None;
        for step in moves {
            let before = bench.core.state();
            match step {
                Move::Wait(wait_ms) => bench.wait(Duration::from_millis(wait_ms)),
                Move::Acquire => match bench.acquire() {
                    Ok(ticket) => {
                        prop_assert!(refused_until.is_none_or(|until| bench.now >= until));
                        prop_assert_eq!(ticket.is_probe(), before != State::Closed);
                        if ticket.is_probe() {
                            prop_assert!(probe.is_none(), "two probes out");
                            probe = Some((ticket, bench.now));
                        }
                        tickets.push(ticket);
                    }
                    Err(rejected) => {
                        prop_assert!(before != State::Closed);
                        prop_assert!(rejected.retry_after > Duration::ZERO);
                        if bench.core.state() == State::Open {
                            prop_assert!(rejected.retry_after <= config().open_for_max);
                            refused_until = Some(bench.now + rejected.retry_after);
                        }
                    }
                },
                Move::End(..) if tickets.is_empty() => {}
                Move::End(at, outcome) => {
                    let ticket = tickets.swap_remove(at % tickets.len());
                    let is_probe = probe.is_some_and(|(out, _)| out == ticket);
                    let change = bench.record(ticket, outcome);
                    if before != State::Closed && !is_probe {
                        prop_assert_eq!(change, None, "a late outcome changed the state");
                    }
                    if is_probe {
                        let to = match outcome {
                            Outcome::Success => State::Closed,
                            Outcome::Failure => State::Open,
                            Outcome::Cancelled => State::HalfOpen,
                        };
                        prop_assert_eq!(bench.core.state(), to);
                        probe = None;
                    }
                }
            }
            if bench.core.state() != State::HalfOpen {
                // Answered, or given up at its deadline.
                if let Some((_, since)) = probe.take() {
                    prop_assert!(bench.now >= since + config().probe_deadline);
                }
            }
            if bench.core.state() == State::Closed {
                refused_until = None;
            }
        }
        // Never wedged: once every deadline has passed, two askings let a request through.
        bench.wait(config().probe_deadline);
        let first = bench.acquire();
        bench.wait(config().open_for_max);
        prop_assert!(first.is_ok() || bench.acquire().is_ok());
    }
}
