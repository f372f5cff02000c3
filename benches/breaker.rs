//! What a breaker adds to every request: permit and outcome while closed, the refusal while open; beside a naive breaker
//! that keeps every answer of the window in a list.

use std::{collections::VecDeque, hint::black_box, sync::Mutex, time::Duration};

use benches::threads::{THREADS, time_on_threads};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use limiter::breaker::{Breaker, BreakerConfig, State};
use tokio::time::Instant;

/// Time between two requests: 100,000 a second.
const STEP_NS: u64 = 10_000;

/// The exact window one writes first. Memory and time grow with the traffic in it.
struct NaiveBreaker {
    answers: Mutex<VecDeque<(Instant, bool)>>,
    window: Duration,
}

impl NaiveBreaker {
    fn record(&self, is_failure: bool, now: Instant) -> bool {
        let mut answers = self.answers.lock().expect("no record panics");
        answers.push_back((now, is_failure));
        while let Some((at, _)) = answers.front() {
            if now.saturating_duration_since(*at) <= self.window {
                break;
            }
            answers.pop_front();
        }
        // The naive part: counting anew for each failure only, or it would not finish.
        is_failure
            && answers.iter().filter(|(_, is_failure)| *is_failure).count() * 2 > answers.len()
    }
}

fn closed(criterion: &mut Criterion) {
    let start = Instant::now();
    let mut group = criterion.benchmark_group("breaker/closed");
    group.throughput(Throughput::Elements(1));
    for threads in THREADS {
        let breaker = Breaker::new(BreakerConfig::default(), start);
        group.bench_function(BenchmarkId::new("penstock", threads), |bencher| {
            bencher.iter_custom(|iterations| {
                time_on_threads(threads, iterations, |_, round| {
                    let now = start + Duration::from_nanos(round * STEP_NS);
                    if let Ok(permit) = breaker.try_acquire(now) {
                        permit.success(now);
                    }
                })
            });
        });

        let naive = NaiveBreaker {
            answers: Mutex::default(),
            window: BreakerConfig::default().window(),
        };
        group.bench_function(BenchmarkId::new("naive-list", threads), |bencher| {
            bencher.iter_custom(|iterations| {
                time_on_threads(threads, iterations, |_, round| {
                    let now = start + Duration::from_nanos(round * STEP_NS);
                    black_box(naive.record(round % 1000 == 0, now));
                })
            });
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let start = Instant::now();
    let breaker = Breaker::new(BreakerConfig::default(), start);
    while breaker.state() == State::Closed {
        if let Ok(permit) = breaker.try_acquire(start) {
            permit.failure(start);
        }
    }
    let mut group = criterion.benchmark_group("breaker/open");
    group.throughput(Throughput::Elements(1));
    for threads in THREADS {
        group.bench_function(BenchmarkId::new("penstock", threads), |bencher| {
            bencher.iter_custom(|iterations| {
                time_on_threads(threads, iterations, |_, _| {
                    let _ = black_box(breaker.try_acquire(start));
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, closed, open);
criterion_main!(benches);
