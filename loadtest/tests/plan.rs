//! Properties of the plan: exact totals, order of time, nothing before T0, and one plan per seed.

use std::collections::HashSet;
use std::time::Duration;

use loadtest::Scenario;
use loadtest::plan::{Job, Kind, Plan};
use loadtest::scenario::{Sale, Shape};
use proptest::prelude::*;

fn scenario(shape: Shape) -> Scenario {
    let mut s = Scenario::new("http://127.0.0.1:1", shape);
    s.sale = Some(Sale {
        id: "drop".into(),
        skus: vec!["shoe".into()],
        ..Sale::default()
    });
    s
}

fn all_jobs(s: &Scenario, threads: usize) -> Vec<Vec<Job>> {
    let plan = Plan::new(s);
    (0..threads)
        .map(|thread| {
            let mut schedule = plan.schedule(thread, threads);
            std::iter::from_fn(|| schedule.pop_due(u64::MAX)).collect()
        })
        .collect()
}

fn shapes() -> impl Strategy<Value = Shape> {
    let duration = (50u64..20_000).prop_map(Duration::from_millis);
    let constant = (0.5f64..3000.0, duration.clone())
        .prop_map(|(rate, duration)| Shape::Constant { rate, duration });
    let ramp = (0.0f64..2000.0, 1.0f64..2000.0, duration.clone())
        .prop_map(|(from, to, duration)| Shape::Ramp { from, to, duration });
    let spike = (
        duration,
        0.0f64..=1.0,
        0.01f64..=1.0,
        0u64..3000,
        0.0f64..300.0,
    )
        .prop_map(
            |(duration, steep, within, warm_up_ms, warm_up_rate)| Shape::Spike {
                duration,
                // From the even share to all of it.
                first_share: (within + steep * (1.0 - within)).min(1.0),
                first_within: duration.mul_f64(within),
                warm_up: Duration::from_millis(warm_up_ms),
                warm_up_rate,
            },
        );
    prop_oneof![constant, ramp, spike]
}

prop_compose! {
    fn scenarios()(
        shape in shapes(),
        seed in any::<u64>(),
        poisson in any::<bool>(),
        buyers in 1u32..3000,
        share in 0.0f64..0.9,
        bots in 0u32..5,
        burst in 0u32..20,
        percent in 0.0f64..100.0,
    ) -> Scenario {
        let mut s = scenario(shape);
        s.seed = seed;
        s.profile.poisson = poisson;
        s.buyers.count = buyers;
        s.page_views.share = share;
        s.bots.count = bots;
        s.bots.burst = burst;
        s.retry.percent = percent;
        s
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn totals_are_exact_and_every_purchase_comes_once(s in scenarios(), threads in 1usize..4) {
        let plan = Plan::new(&s);
        let jobs: Vec<Job> = all_jobs(&s, threads).concat();
        let of = |kind: Kind| jobs.iter().filter(|job| job.kind == kind).count() as u64;
        prop_assert_eq!(of(Kind::Page), plan.pages + plan.warm_up);
        prop_assert_eq!(of(Kind::Buy), u64::from(plan.purchases()));
        let distinct: HashSet<u32> =
            jobs.iter().filter(|job| job.kind == Kind::Buy).map(|job| job.number).collect();
        prop_assert_eq!(distinct.len() as u64, u64::from(plan.purchases()));
        prop_assert!(distinct.iter().all(|number| *number < plan.purchases()));
        if let Shape::Spike { .. } = s.profile.shape {
            prop_assert_eq!(plan.arrivals - plan.pages, u64::from(s.buyers.count));
        }
    }

    #[test]
    fn time_never_runs_backwards_and_purchases_never_come_before_t0(s in scenarios()) {
        let plan = Plan::new(&s);
        let jobs = all_jobs(&s, 1).remove(0);
        prop_assert!(jobs.windows(2).all(|two| two[0].planned_ns <= two[1].planned_ns));
        for job in &jobs {
            match job.kind {
                Kind::Page => {}
                _ => prop_assert!(job.planned_ns >= plan.t0_ns),
            }
            if job.kind == Kind::Buy && job.number >= plan.bot_purchases {
                prop_assert!(job.planned_ns <= plan.t0_ns + plan.length_ns);
            }
        }
    }

    #[test]
    fn the_plan_depends_on_the_seed_and_not_on_the_threads(s in scenarios(), threads in 2usize..4) {
        let mut one = all_jobs(&s, 1).concat();
        let mut many = all_jobs(&s, threads).concat();
        one.sort_unstable();
        many.sort_unstable();
        prop_assert_eq!(one, many);
    }

    #[test]
    fn nothing_is_handed_out_early(s in scenarios(), now_ns in 0u64..20_000_000_000) {
        let mut schedule = Plan::new(&s).schedule(0, 1);
        while let Some(job) = schedule.pop_due(now_ns) {
            prop_assert!(job.planned_ns <= now_ns);
        }
        prop_assert!(schedule.next_due_ns().is_none_or(|due| due > now_ns));
    }
}

#[test]
fn a_spike_brings_the_asked_share_in_the_first_window() {
    for poisson in [false, true] {
        let mut s = scenario(Shape::Spike {
            duration: Duration::from_secs(10),
            first_share: 0.6,
            first_within: Duration::from_secs(1),
            warm_up: Duration::from_secs(2),
            warm_up_rate: 10.0,
        });
        s.buyers.count = 20_000;
        s.profile.poisson = poisson;
        let jobs = all_jobs(&s, 1).remove(0);
        let early = jobs
            .iter()
            .filter(|job| job.kind == Kind::Buy && job.planned_ns < 3_000_000_000)
            .count();
        assert!((11_700..12_300).contains(&early), "{early}");
        assert_eq!(jobs.iter().filter(|job| job.kind == Kind::Page).count(), 20);
    }
}

#[test]
fn random_spacing_has_the_spread_of_a_poisson_process() {
    let mut s = scenario(Shape::Constant {
        rate: 1000.0,
        duration: Duration::from_secs(20),
    });
    s.profile.poisson = true;
    s.buyers.count = 1_000_000;
    let jobs = all_jobs(&s, 1).remove(0);
    let gaps: Vec<f64> = jobs
        .windows(2)
        .map(|two| (two[1].planned_ns - two[0].planned_ns) as f64 / 1e6)
        .collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    // Exponential gaps: the standard deviation equals the mean.
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    assert!(
        (variance.sqrt() / mean - 1.0).abs() < 0.05,
        "{}",
        variance.sqrt()
    );
}

#[test]
fn half_of_the_retries_come_at_the_same_instant() {
    let mut s = scenario(Shape::Constant {
        rate: 1000.0,
        duration: Duration::from_secs(4),
    });
    s.retry.percent = 50.0;
    let jobs = all_jobs(&s, 1).remove(0);
    let first = |number: u32| {
        let found = jobs
            .iter()
            .find(|j| j.kind == Kind::Buy && j.number == number);
        found.unwrap().planned_ns
    };
    let copies: Vec<&Job> = jobs.iter().filter(|j| j.kind == Kind::BuyAgain).collect();
    let at_once = copies
        .iter()
        .filter(|copy| first(copy.number) == copy.planned_ns)
        .count();
    assert!((1850..2150).contains(&copies.len()), "{}", copies.len());
    assert!((850..1150).contains(&at_once), "{at_once}");
}
