//! The six keys of a segment. They share one hash tag, so they live in one slot and one function may touch them all.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use fred::{bytes_utils::Str, types::Value};

use crate::ids::SegmentId;

/// Which keys there are, in the order in which `library/` takes them.
const PARTS: [&str; 6] = ["meta", "buyers", "requests", "orders", "restocks", "stream"];
/// Segments whose keys are kept at hand. Sales are made by operators, so this is only reached by a node that has lived long; it
/// then forgets all and begins anew.
const KEPT: usize = 16_384;

/// The keys of one segment, ready to be sent.
pub(super) struct SegmentKeys {
    /// The cluster slot of all of them.
    pub(super) slot: u16,
    keys: [Str; 6],
}

impl SegmentKeys {
    fn new(segment: &SegmentId) -> Self {
        // Sale and sku are checked names: they hold no brace that could end the tag early.
        let keys = PARTS.map(|part| Str::from(format!("penstock:{{{segment}}}:{part}")));
        let slot = fred::util::redis_keyslot(keys[0].as_bytes());
        Self { slot, keys }
    }

    /// The keys as arguments; they share their text with this.
    pub(super) fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.keys.iter().cloned().map(Value::String)
    }

    /// How many there are, as `FCALL` wants to be told.
    pub(super) fn count() -> &'static str {
        "6"
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
        assert_eq!(keys.values().count().to_string(), SegmentKeys::count());
    }

    #[test]
    fn the_keys_of_a_segment_are_made_once() {
        let cache = KeyCache::default();
        let (one, other) = (cache.of(&segment(1)), cache.of(&segment(2)));
        assert!(Arc::ptr_eq(&one, &cache.of(&segment(1))));
        assert!(Arc::ptr_eq(&other, &cache.of(&segment(2))));
        assert_ne!(one.slot, other.slot);
    }
}
