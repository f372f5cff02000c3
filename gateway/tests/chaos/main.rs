//! Seeded chaos: real gateways over real stores sell a small stock while processes are killed and stopped and links are broken;
//! clients write down what they see, and [`loadtest::oracle`] judges the history.
//!
//! `make chaos` runs `CHAOS_RUNS` seeds (200), `make test` ten. Each run prints its seed and its verdict; a run that does not hold
//! leaves its history and the logs of its processes behind and says where. `CHAOS_SEED=n make chaos` begins at seed n; with
//! `CHAOS_RUNS=1` it repeats that run alone. The plan of a run (stock, clients, faults and their times) follows from the seed; how
//! the processes interleave does not, so a failure may need several repetitions to show again.
//!
//! [`plan`] says what a run does and [`draw`] decides it, [`goods`] what is sold, [`bench`] starts the processes, [`proxy`] stands in
//! every link, [`faults`] breaks and mends, [`clients`] buy,
//! [`market`] writes down, [`drain`] sells what is left, [`run`] is one run from first to last. [`cheats`] is the negative control. A new kind of
//! fault is a variant of [`plan::Break`], its arm in [`faults`] and its place in [`draw`].

// A failed step of a test is a failed test; clippy knows this of `#[test]` functions only, not of their helpers.
#![allow(clippy::unwrap_used)]

mod bench;

mod cheats;

mod clients;

mod drain;

mod draw;

mod faults;

mod goods;

mod market;

mod plan;

#[path = "../process.rs"]
mod process;

mod proxy;

mod run;

mod recorder;

mod wire;

/// Runs of `make test`.
const RUNS: u64 = 10;

/// Runs of two tests at once would share two cores and every deadline.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Err(_) => default,
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text}: must be a whole number")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_through_seeded_faults() {
    let first = number("CHAOS_SEED", 1);
    let runs = number("CHAOS_RUNS", RUNS);
    let _alone = ALONE.lock().await;
    let server = bench::Postgres::start().await;
    let mut broken = Vec::new();
    for seed in first..first + runs {
        let plan = plan::Plan::from_seed(seed);
        let ended = run::run(&plan, &server).await;
        println!("{plan}\nseed={seed} verdict={}", ended.verdict());
        if let Some(why) = ended.why() {
            println!("{why}\nrepeat: CHAOS_SEED={seed} CHAOS_RUNS=1 make chaos");
            broken.push(seed);
        }
    }
    assert!(broken.is_empty(), "seeds that did not hold: {broken:?}");
}
