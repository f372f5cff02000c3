//! The six keys of a segment. They share one hash tag, so they live in one slot and one function may touch them all. The segments of
//! a sale with carts share the tag of their sale: one function may touch several of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use arc_swap::ArcSwap;
use fred::{bytes_utils::Str, types::Value};

use crate::{Durability, ids::SegmentId};

/// Which keys there are, in the order in which `library/` takes them.
const PARTS: [&str; SegmentKeys::COUNT] =
    ["meta", "buyers", "requests", "orders", "moves", "stream"];
/// Segments whose keys are kept at hand. Sales are made by operators, so this is only reached by a node that has lived long; it
/// then forgets all and begins anew.
const KEPT: usize = 16_384;

/// The keys of one segment, ready to be sent, and the durability of its writes.
pub(super) struct SegmentKeys {
    pub(super) segment: SegmentId,
    /// The cluster slot of all of them.
    pub(super) slot: u16,
    keys: [Str; Self::COUNT],
    /// A [`Level`] as a number.
    level: AtomicU8,
}

/// What is known of the durability that a segment's sale asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Nothing: this process has not seen its rules yet.
    Unknown,
    /// The sale names none: that of the store.
    OfStore,
    /// The sale's own.
    Own(Durability),
}

const LEVELS: [Level; 5] = [
    Level::Unknown,
    Level::OfStore,
    Level::Own(Durability::Fast),
    Level::Own(Durability::Replicated),
    Level::Own(Durability::Durable),
];

impl SegmentKeys {
    /// How many there are.
    pub(super) const COUNT: usize = 6;

    fn new(segment: &SegmentId) -> Self {
        // Sale and sku are checked names: they hold no brace that could end the tag early.
        let name = if segment.is_of_cart() {
            format!("{{{}}}:{}", segment.sale, segment.sku)
        } else {
            format!("{{{segment}}}")
        };
        let keys = PARTS.map(|part| Str::from(format!("penstock:{name}:{part}")));
        let slot = fred::util::redis_keyslot(keys[0].as_bytes());
        Self {
            segment: segment.clone(),
            slot,
            keys,
            level: AtomicU8::new(0),
        }
    }

    /// The keys as arguments; they share their text with this.
    pub(super) fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.keys.iter().cloned().map(Value::String)
    }

    pub(super) fn level(&self) -> Level {
        LEVELS[usize::from(self.level.load(Ordering::Relaxed))]
    }

    /// Remembers the durability that the segment's rules name.
    pub(super) fn learn(&self, durability: Option<Durability>) {
        let level = durability.map_or(Level::OfStore, Level::Own);
        let place = LEVELS.iter().position(|known| *known == level);
        let place = place.and_then(|place| u8::try_from(place).ok());
        self.level
            .store(place.expect("all levels are listed"), Ordering::Relaxed);
    }
}

type Known = HashMap<SegmentId, Arc<SegmentKeys>, ahash::RandomState>;

/// The keys of the segments in use, each made once.
#[derive(Default)]
pub(super) struct KeyCache {
    known: ArcSwap<Known>,
}

impl KeyCache {
    pub(super) fn of(&self, segment: &SegmentId) -> Arc<SegmentKeys> {
        if let Some(keys) = self.known.load().get(segment) {
            return Arc::clone(keys);
        }
        let keys = Arc::new(SegmentKeys::new(segment));
        self.known.rcu(|known| {
            let mut known = if known.len() < KEPT {
                Known::clone(known)
            } else {
                Known::default()
            };
            known.insert(segment.clone(), Arc::clone(&keys));
            known
        });
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SaleId, SkuId};

    fn segment(index: u16) -> SegmentId {
        SegmentId {
            sale: SaleId::try_new("spring.2026").unwrap(),
            sku: SkuId::try_new("shoe_42").unwrap(),
            index,
        }
    }

    #[test]
    fn all_keys_of_a_segment_share_one_slot() {
        let keys = SegmentKeys::new(&segment(7));
        assert_eq!(&*keys.keys[0], "penstock:{spring.2026:shoe_42:7}:meta");
        for key in &keys.keys {
            assert_eq!(fred::util::redis_keyslot(key.as_bytes()), keys.slot);
        }
        assert_eq!(keys.values().count(), SegmentKeys::COUNT);
    }

    #[test]
    fn all_skus_of_a_sale_with_carts_share_one_slot() {
        let of = |sku: &str| {
            let (sale, sku) = (segment(0).sale, SkuId::try_new(sku).unwrap());
            SegmentKeys::new(&SegmentId::of_cart(sale, sku))
        };
        let (shoe, lace) = (of("shoe"), of("lace"));
        assert_eq!(&*shoe.keys[0], "penstock:{spring.2026}:shoe:meta");
        assert_eq!(shoe.slot, lace.slot);
        assert!(shoe.keys.iter().all(|key| !lace.keys.contains(key)));
    }

    #[test]
    fn the_keys_of_a_segment_are_made_once() {
        let cache = KeyCache::default();
        let (one, other) = (cache.of(&segment(1)), cache.of(&segment(2)));
        assert!(Arc::ptr_eq(&one, &cache.of(&segment(1))));
        assert!(Arc::ptr_eq(&other, &cache.of(&segment(2))));
        assert_ne!(one.slot, other.slot);
    }

    #[test]
    fn a_level_is_unknown_until_it_is_learnt() {
        let keys = SegmentKeys::new(&segment(1));
        assert_eq!(keys.level(), Level::Unknown);
        for durability in [None, Some(Durability::Fast), Some(Durability::Durable)] {
            keys.learn(durability);
            let expected = durability.map_or(Level::OfStore, Level::Own);
            assert_eq!(keys.level(), expected);
        }
    }
}
