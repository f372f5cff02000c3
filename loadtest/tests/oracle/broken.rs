//! Models with one rule taken out are caught, every one of them with every seed.

use std::collections::BTreeMap;

use loadtest::history::Level;
use loadtest::oracle::judge;

use super::holds::allowed;
use super::model::{Flaw, history};
use super::tale::case;

const SEEDS: u64 = 10;

/// The seeds with which a flaw is not caught; prints which rules catch it.
fn missed(flaw: Flaw) -> Vec<(Flaw, u64)> {
    let mut missed = Vec::new();
    let mut rules = BTreeMap::new();
    for seed in 0..SEEDS {
        let verdict = judge(
            &case(&history(seed, Some(flaw)), Level::Durable),
            &allowed(),
        );
        for found in &verdict.violations {
            *rules.entry(found.rule.name()).or_insert(0) += 1;
        }
        if verdict.held {
            missed.push((flaw, seed));
        }
    }
    let caught = SEEDS - missed.len() as u64;
    println!("{flaw:?}: caught in {caught} of {SEEDS}: {rules:?}");
    missed
}

#[test]
fn every_flaw_is_caught_with_every_seed() {
    let missed: Vec<(Flaw, u64)> = std::thread::scope(|scope| {
        let halves = Flaw::ALL.chunks(Flaw::ALL.len().div_ceil(2));
        let threads: Vec<_> = halves
            .map(|flaws| scope.spawn(|| flaws.iter().copied().flat_map(missed).collect::<Vec<_>>()))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.flatten().collect()
    });
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
