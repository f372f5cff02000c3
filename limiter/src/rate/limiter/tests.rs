//! Facts and properties of the bucket: exact waits, exact rate, bounded memory.

use std::{
    collections::HashMap,
    num::{NonZeroU32, NonZeroUsize},
};

use proptest::prelude::*;

use super::*;

fn quota(rate: &str, burst: u32) -> RateQuota {
    let rate = settings::units::rate(rate).unwrap();
    RateQuota::try_new(rate.count, rate.per, NonZeroU32::new(burst).unwrap()).unwrap()
}

fn limiter(rate: &str, burst: u32, capacity: usize, start: Instant) -> RateLimiter {
    RateLimiter::new(
        quota(rate, burst),
        NonZeroUsize::new(capacity).unwrap(),
        start,
    )
}

fn is_allowed(decision: Decision) -> bool {
    matches!(decision, Decision::Allowed { .. })
}

/// All of the table.
fn sweep(limiter: &RateLimiter, now: Instant) {
    for _ in 0..16 {
        limiter.sweep_part(now);
    }
}

const ANN: RateKey = RateKey::from_bits(1);
const BOB: RateKey = RateKey::from_bits(2);

#[test]
fn burst_passes_then_the_wait_is_told() {
    let t0 = Instant::now();
    let limiter = limiter("10/s", 3, 64, t0);
    for remaining in [2, 1, 0] {
        assert_eq!(limiter.check(ANN, t0), Decision::Allowed { remaining });
    }
    assert_eq!(
        limiter.check(ANN, t0),
        Decision::Limited(Limited {
            retry_after: Duration::from_millis(100),
            quota: quota("10/s", 3),
        })
    );
}

#[test]
fn one_client_does_not_spend_another_ones_tokens() {
    let t0 = Instant::now();
    let limiter = limiter("1/s", 1, 64, t0);
    assert!(is_allowed(limiter.check(ANN, t0)));
    assert!(!is_allowed(limiter.check(ANN, t0)));
    assert!(is_allowed(limiter.check(BOB, t0)));
}

#[test]
fn refusals_cost_no_tokens() {
    let t0 = Instant::now();
    let limiter = limiter("1/s", 1, 64, t0);
    assert!(is_allowed(limiter.check(ANN, t0)));
    for _ in 0..1000 {
        assert!(!is_allowed(limiter.check(ANN, t0)));
    }
    assert!(is_allowed(limiter.check(ANN, t0 + Duration::from_secs(1))));
}

#[test]
fn two_limiters_on_one_thread_keep_their_own_time() {
    let t0 = Instant::now();
    let late = t0 + Duration::from_secs(3600);
    let (old, new) = (limiter("1/s", 1, 64, t0), limiter("1/s", 1, 64, late));
    assert!(is_allowed(old.check(ANN, late)));
    assert!(is_allowed(new.check(ANN, late)));
    assert!(!is_allowed(old.check(ANN, late)));
    assert!(!is_allowed(new.check(ANN, late)));
}

#[test]
fn time_before_the_start_is_the_start() {
    let t0 = Instant::now() + Duration::from_secs(60);
    let limiter = limiter("1/s", 1, 64, t0);
    assert!(is_allowed(limiter.check(ANN, Instant::now())));
    assert!(!is_allowed(limiter.check(ANN, t0)));
}

#[test]
fn decisions_are_counted() {
    let t0 = Instant::now();
    let limiter = limiter("1/s", 2, 64, t0);
    for _ in 0..5 {
        limiter.check(ANN, t0);
    }
    assert_eq!(
        limiter.counts(),
        RateCounts {
            allowed: 2,
            limited: 3,
            evicted: 0
        }
    );
}

#[test]
fn sweep_frees_refilled_buckets_and_only_those() {
    let t0 = Instant::now();
    let limiter = limiter("1/s", 10, 64, t0);
    limiter.check(ANN, t0);
    for _ in 0..10 {
        limiter.check(BOB, t0);
    }
    assert_eq!(limiter.keys(), 2);
    sweep(&limiter, t0 + Duration::from_secs(5));
    assert_eq!(limiter.keys(), 1);
    // Bob's debt is still known: five of ten are back.
    assert_eq!(
        limiter.check(BOB, t0 + Duration::from_secs(5)),
        Decision::Allowed { remaining: 4 }
    );
    sweep(&limiter, t0 + Duration::from_secs(60));
    assert_eq!(limiter.keys(), 0);
}

#[test]
fn a_flood_of_keys_stays_within_the_bound_and_frees_no_abuser() {
    let t0 = Instant::now();
    let limiter = limiter("1/s", 100, 1000, t0);
    assert_eq!(limiter.capacity(), 1024);
    while is_allowed(limiter.check(ANN, t0)) {}
    for key in 10..100_010 {
        assert!(is_allowed(limiter.check(RateKey::from_bits(key), t0)));
    }
    assert!(limiter.keys() <= limiter.capacity());
    assert!(limiter.counts().evicted > 90_000);
    assert!(!is_allowed(limiter.check(ANN, t0)));
}

#[test]
fn a_refilled_bucket_gives_up_its_place_without_loss() {
    let t0 = Instant::now();
    let limiter = limiter("1/s", 1, 8, t0);
    for second in 0..1000 {
        let now = t0 + Duration::from_secs(second);
        assert!(is_allowed(
            limiter.check(RateKey::from_bits(second.into()), now)
        ));
    }
    assert_eq!(limiter.counts().evicted, 0);
}

#[test]
fn concurrent_checks_admit_exactly_the_burst() {
    let t0 = Instant::now();
    let limiter = limiter("1/h", 500, 64, t0);
    let admitted: usize = std::thread::scope(|scope| {
        let check = || {
            (0..400)
                .filter(|_| is_allowed(limiter.check(ANN, t0)))
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(check)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(admitted, 500);
}

/// The textbook bucket in exact integers: tokens as nanoseconds of refill.
struct NaiveBucket {
    level_ns: u128,
    at_ns: u128,
}

proptest! {
    #[test]
    fn decisions_equal_a_naive_bucket(
        rate in 1u32..5000,
        burst in 1u32..50,
        steps in prop::collection::vec((0u64..3_000_000, 0u128..4), 1..400),
    ) {
        let t0 = Instant::now();
        let quota = RateQuota::try_new(
            NonZeroU32::new(rate).unwrap(),
            Duration::from_secs(1),
            NonZeroU32::new(burst).unwrap(),
        ).unwrap();
        let limiter = RateLimiter::new(quota, NonZeroUsize::new(1024).unwrap(), t0);
        let token = quota.interval().as_nanos();
        let full = token * u128::from(burst);
        let mut naive: HashMap<u128, NaiveBucket> = HashMap::new();
        let mut now_ns = 0u128;
        for (wait_us, key) in steps {
            now_ns += u128::from(wait_us) * 1000 / u128::from(rate);
            let bucket = naive.entry(key).or_insert(NaiveBucket { level_ns: full, at_ns: now_ns });
            bucket.level_ns = full.min(bucket.level_ns + now_ns - bucket.at_ns);
            bucket.at_ns = now_ns;
            let expected = if bucket.level_ns >= token {
                bucket.level_ns -= token;
                Decision::Allowed { remaining: (bucket.level_ns / token) as u32 }
            } else {
                let retry_after = Duration::from_nanos((token - bucket.level_ns) as u64);
                Decision::Limited(Limited { retry_after, quota })
            };
            let now = t0 + Duration::from_nanos(now_ns as u64);
            prop_assert_eq!(limiter.check(RateKey::from_bits(key), now), expected);
        }
    }

    #[test]
    fn the_wait_told_is_exact(rate in 1u32..5000, burst in 1u32..50, taken in 1u32..200) {
        let t0 = Instant::now();
        let quota = RateQuota::try_new(
            NonZeroU32::new(rate).unwrap(),
            Duration::from_secs(1),
            NonZeroU32::new(burst).unwrap(),
        ).unwrap();
        let limiter = RateLimiter::new(quota, NonZeroUsize::MIN, t0);
        for _ in 0..taken {
            if let Decision::Limited(limited) = limiter.check(ANN, t0) {
                let told = t0 + limited.retry_after;
                prop_assert!(!is_allowed(limiter.check(ANN, told - Duration::from_nanos(1))));
                prop_assert!(is_allowed(limiter.check(ANN, told)));
                return Ok(());
            }
        }
    }
}

#[test]
fn what_is_given_back_was_never_taken() {
    let t0 = Instant::now();
    let limiter = limiter("10/s", 3, 64, t0);
    for _ in 0..100 {
        assert!(is_allowed(limiter.check(ANN, t0)));
        limiter.give_back(ANN);
    }
    assert_eq!(limiter.counts().allowed, 0);
    for remaining in [2, 1, 0] {
        assert_eq!(limiter.check(ANN, t0), Decision::Allowed { remaining });
    }
    // A key that nobody has seen has nothing to give back.
    limiter.give_back(BOB);
    assert_eq!(limiter.counts().allowed, 3);
}

#[test]
fn a_sweep_in_parts_frees_all_that_a_whole_one_does() {
    let t0 = Instant::now();
    let limiter = limiter("10/s", 1, 1 << 16, t0);
    for key in 0..10_000 {
        limiter.check(RateKey::from_bits(key + 1), t0);
    }
    let held = limiter.keys();
    let later = t0 + Duration::from_secs(1);
    limiter.sweep_part(later);
    assert!(limiter.keys() > held / 2, "one part is a sixteenth");
    for _ in 0..15 {
        limiter.sweep_part(later);
    }
    assert_eq!(limiter.keys(), 0);
}
