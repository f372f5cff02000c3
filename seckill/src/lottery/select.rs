//! The first few of many ranks, in memory bounded by the few.

use std::collections::BinaryHeap;

use super::Ranking;

/// Keeps the entries of the lowest ranks.
pub struct Selection {
    ranking: Ranking,
    most: usize,
    /// The highest rank on top, so that it can be replaced.
    lowest: BinaryHeap<([u8; 32], String)>,
}

impl Selection {
    /// The first `most` of a ranking.
    pub fn new(ranking: Ranking, most: usize) -> Self {
        Self {
            ranking,
            most,
            lowest: BinaryHeap::new(),
        }
    }

    /// Takes one entry, in any order.
    pub fn add(&mut self, entry: &str) {
        let rank = self.ranking.rank(entry);
        if self.lowest.len() < self.most {
            self.lowest.push((rank, entry.to_owned()));
        } else if let Some(mut top) = self.lowest.peek_mut()
            && (rank, entry) < (top.0, top.1.as_str())
        {
            *top = (rank, entry.to_owned());
        }
    }

    /// The entries by ascending rank.
    pub fn finish(self) -> Vec<String> {
        let sorted = self.lowest.into_sorted_vec();
        sorted.into_iter().map(|(_, entry)| entry).collect()
    }
}
