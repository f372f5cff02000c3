//! A set of buyers in about eight bytes each.
//!
//! A list may name millions, and every node keeps all of them in memory. Kept are 64-bit keyed hashes: a sorted array, and
//! beside it what changed since, which is merged into the array when it has grown to an eighth of it. The key is random in each
//! process, so nobody can look for names that collide; that one of a million listed buyers has the hash of a given stranger
//! has a chance of 1 to 18 billion billion / million, less than 10^-13.

use std::{hash::BuildHasher, sync::Arc};

use ahash::AHashSet;

use crate::ids::BuyerId;

/// Changes that are kept beside a short array before they are merged.
const MERGE_AT_LEAST: usize = 4096;

/// How buyers are hashed in this process: SipHash under a random key.
pub(super) type BuyerHash = std::hash::RandomState;

/// The set. Cloning shares the array.
#[derive(Debug, Clone, Default)]
pub(super) struct CompactSet {
    sorted: Arc<[u64]>,
    /// In the set, and not in the array.
    added: AHashSet<u64>,
    /// In the array, and not in the set.
    removed: AHashSet<u64>,
}

impl CompactSet {
    pub(super) fn contains(&self, hasher: &BuyerHash, buyer: &BuyerId) -> bool {
        let hash = hasher.hash_one(buyer);
        match self.sorted.binary_search(&hash) {
            Ok(_) => !self.removed.contains(&hash),
            Err(_) => self.added.contains(&hash),
        }
    }

    pub(super) fn set(&mut self, hasher: &BuyerHash, buyer: &BuyerId, is_listed: bool) {
        let hash = hasher.hash_one(buyer);
        let is_sorted = self.sorted.binary_search(&hash).is_ok();
        match (is_sorted, is_listed) {
            (true, true) => self.removed.remove(&hash),
            (true, false) => self.removed.insert(hash),
            (false, true) => self.added.insert(hash),
            (false, false) => self.added.remove(&hash),
        };
        let changes = self.added.len() + self.removed.len();
        if changes > MERGE_AT_LEAST.max(self.sorted.len() / 8) {
            self.merge();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.added.len() - self.removed.len()
    }

    /// Bytes on the heap, as far as they grow with the set.
    pub(super) fn bytes(&self) -> usize {
        // A hash set keeps its entries and one control byte for each place.
        let places = self.added.capacity() + self.removed.capacity();
        self.sorted.len() * 8 + places * 8 / 7 * 9
    }

    fn merge(&mut self) {
        let mut added: Vec<u64> = self.added.iter().copied().collect();
        added.sort_unstable();
        let mut merged = Vec::with_capacity(self.len());
        let mut added = added.into_iter().peekable();
        for &hash in self.sorted.iter() {
            while let Some(new) = added.next_if(|new| *new < hash) {
                merged.push(new);
            }
            if !self.removed.contains(&hash) {
                merged.push(hash);
            }
        }
        merged.extend(added);
        *self = Self {
            sorted: merged.into(),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn buyer(n: usize) -> BuyerId {
        BuyerId::try_new(&format!("buyer-{n}")).unwrap()
    }

    proptest! {
        // Each case is thousands of steps, so that the array is merged several times.
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn it_is_the_set_that_was_asked_for(steps in prop::collection::vec((0usize..12_000, prop::bool::weighted(0.8)), 15_000..25_000)) {
            let hasher = BuyerHash::new();
            let (mut compact, mut model) = (CompactSet::default(), HashSet::new());
            for (n, is_listed) in steps {
                compact.set(&hasher, &buyer(n), is_listed);
                match is_listed {
                    true => model.insert(n),
                    false => model.remove(&n),
                };
            }
            prop_assert_eq!(compact.len(), model.len());
            for n in 0..12_000 {
                prop_assert_eq!(compact.contains(&hasher, &buyer(n)), model.contains(&n), "{}", n);
            }
        }
    }

    #[test]
    fn a_million_buyers_take_less_than_twelve_megabytes() {
        let hasher = BuyerHash::new();
        let mut compact = CompactSet::default();
        for n in 0..1_000_000 {
            compact.set(&hasher, &buyer(n), true);
        }
        assert_eq!(compact.len(), 1_000_000);
        assert!(compact.bytes() < 12_000_000, "{} bytes", compact.bytes());
        assert!((0..1_000_000).all(|n| compact.contains(&hasher, &buyer(n))));
        assert!((1_000_000..1_100_000).all(|n| !compact.contains(&hasher, &buyer(n))));
    }
}
