//! Doing a published draw again. Used by `penstock lottery verify`; needs nothing but what is published.

use serde::{Deserialize, Serialize};

use super::{Ranking, Roll, Seed, Selection};
use crate::ids::SaleId;

/// A draw as `GET /v1/sales/{sale}/draw` publishes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The sale.
    pub sale: SaleId,
    /// SHA-256 of the seed, published before anybody entered.
    pub commitment: String,
    /// The seed, once drawn.
    pub seed: String,
    /// Where the beacon comes from; empty if there is none.
    pub beacon_source: String,
    /// The beacon, once drawn.
    pub beacon: String,
    /// How many entered.
    pub entries: u64,
    /// Root of the entries.
    pub root: String,
    /// Who was drawn when, by place.
    pub rounds: Vec<Round>,
}

/// The places of one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// 1 is the draw itself; the others call the reserve.
    pub round: u32,
    /// First place of it, from 0.
    pub first: u64,
    /// How many places.
    pub count: u64,
    /// When.
    pub at_ms: u64,
}

/// What doing it again led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What does not fit; empty if all does.
    pub faults: Vec<String>,
    /// The entries that won, by place.
    pub winners: Vec<String>,
}

/// Draws again, out of the published entries in ascending order.
pub fn verify<'a>(draw: &Published, entries: impl Iterator<Item = &'a str> + Clone) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(seed) = Seed::from_hex(&draw.seed) else {
        verdict
            .faults
            .push("the seed is not 64 hexadecimal digits".to_owned());
        return verdict;
    };
    if seed.commitment() != draw.commitment {
        let fault = format!("the seed has the commitment {}", seed.commitment());
        verdict.faults.push(fault);
    }
    if draw.beacon_source.is_empty() && !draw.beacon.is_empty() {
        verdict
            .faults
            .push("a beacon was used that was not announced".to_owned());
    }
    let mut roll = Roll::default();
    for entry in entries.clone() {
        if !roll.add(entry) {
            verdict
                .faults
                .push(format!("entry {entry} stands out of order or twice"));
            return verdict;
        }
    }
    let (count, root) = roll.finish();
    if (count, root.as_str()) != (draw.entries, draw.root.as_str()) {
        let fault = format!("the {count} entries have the root {root}");
        verdict.faults.push(fault);
    }
    let mut places = 0;
    for round in &draw.rounds {
        if round.first != places {
            let fault = format!(
                "round {} begins at {} and not at {places}",
                round.round, round.first
            );
            verdict.faults.push(fault);
        }
        places = places.saturating_add(round.count);
    }
    if places > count {
        verdict
            .faults
            .push(format!("{places} places were drawn of {count} entries"));
    }
    let ranking = Ranking::new(&seed, &draw.sale, count, &root, &draw.beacon);
    let mut selection = Selection::new(ranking, places.min(count) as usize);
    entries.for_each(|entry| selection.add(entry));
    verdict.winners = selection.finish();
    verdict
}
