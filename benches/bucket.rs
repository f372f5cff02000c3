//! The token bucket's decision: ours beside the naive map behind one mutex, and governor's own default store.
//!
//! `many` spreads the checks over 10,000 clients, as a sale does; `one` is the worst case of a single client on all cores.
//! The clock is an argument or a constant, so only the decision is timed.

use std::{
    collections::HashMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    num::{NonZeroU32, NonZeroUsize},
    sync::Mutex,
    time::Duration,
};

use benches::threads::{THREADS, time_on_threads};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use governor::{
    clock::FakeRelativeClock, middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use limiter::rate::{RateKey, RateLimiter, RateQuota};
use tokio::time::Instant;

const CLIENTS: [(&str, u64); 2] = [("many", 10_000), ("one", 1)];

/// High enough that every check is allowed, which is the longer way through the code.
const RATE: u32 = 100_000_000;

/// The bucket one writes first: a map behind a mutex, tokens as a float.
struct NaiveBuckets {
    buckets: Mutex<HashMap<IpAddr, (f64, Instant)>>,
    rate: f64,
    burst: f64,
}

impl NaiveBuckets {
    fn check(&self, ip: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().expect("no check panics");
        let (tokens, at) = buckets.entry(ip).or_insert((self.burst, now));
        let refilled = *tokens + now.saturating_duration_since(*at).as_secs_f64() * self.rate;
        *tokens = refilled.min(self.burst);
        *at = now;
        let is_allowed = *tokens >= 1.0;
        if is_allowed {
            *tokens -= 1.0;
        }
        is_allowed
    }
}

/// The client of a round: a fixed walk that visits all of them in no order a prefetcher could guess.
fn client(thread: u64, round: u64, clients: u64) -> IpAddr {
    let number = (thread << 20 ^ round).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Ipv4Addr::from((number % clients) as u32).into()
}

fn checks(criterion: &mut Criterion) {
    let rate = NonZeroU32::new(RATE).expect("not zero");
    let start = Instant::now();
    for (spread, clients) in CLIENTS {
        let mut group = criterion.benchmark_group(format!("bucket/{spread}"));
        group.throughput(Throughput::Elements(1));
        for threads in THREADS {
            let quota = RateQuota::try_new(rate, Duration::from_secs(1), rate).expect("in range");
            let ours = RateLimiter::new(quota, NonZeroUsize::new(65_536).expect("not zero"), start);
            group.bench_function(BenchmarkId::new("penstock", threads), |bencher| {
                bencher.iter_custom(|iterations| {
                    time_on_threads(threads, iterations, |thread, round| {
                        let key = RateKey::from_ip(client(thread, round, clients));
                        let now = start + Duration::from_nanos(round * 100);
                        black_box(ours.check(key, now));
                    })
                });
            });

            let governor = governor::RateLimiter::<
                IpAddr,
                DefaultKeyedStateStore<IpAddr>,
                FakeRelativeClock,
                StateInformationMiddleware,
            >::new(
                governor::Quota::per_second(rate),
                DefaultKeyedStateStore::default(),
                FakeRelativeClock::default(),
            );
            group.bench_function(BenchmarkId::new("governor-dashmap", threads), |bencher| {
                bencher.iter_custom(|iterations| {
                    time_on_threads(threads, iterations, |thread, round| {
                        let _ = black_box(governor.check_key(&client(thread, round, clients)));
                    })
                });
            });

            let naive = NaiveBuckets {
                buckets: Mutex::default(),
                rate: f64::from(RATE),
                burst: f64::from(RATE),
            };
            group.bench_function(BenchmarkId::new("naive-mutex-map", threads), |bencher| {
                bencher.iter_custom(|iterations| {
                    time_on_threads(threads, iterations, |thread, round| {
                        let now = start + Duration::from_nanos(round * 100);
                        black_box(naive.check(client(thread, round, clients), now));
                    })
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, checks);
criterion_main!(benches);
