//! The six keys of a segment. They share one hash tag, so they live in one slot and one function may touch them all.

use fred::types::Value;

use crate::ids::SegmentId;

/// Which keys there are, in the order in which `library/` takes them.
const PARTS: [&str; 6] = ["meta", "buyers", "requests", "orders", "restocks", "stream"];

/// The keys of one segment, ready to be sent.
pub(super) struct SegmentKeys {
    /// The cluster slot of all of them.
    pub(super) slot: u16,
    keys: [String; 6],
}

impl SegmentKeys {
    pub(super) fn new(segment: &SegmentId) -> Self {
        // Sale and sku are checked names: they hold no brace that could end the tag early.
        let keys = PARTS.map(|part| format!("penstock:{{{segment}}}:{part}"));
        let slot = fred::util::redis_keyslot(keys[0].as_bytes());
        Self { slot, keys }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.keys.iter().map(Value::from)
    }

    /// How many there are, as `FCALL` wants to be told.
    pub(super) fn count() -> &'static str {
        "6"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SaleId, SkuId};

    #[test]
    fn all_keys_of_a_segment_share_one_slot() {
        let segment = SegmentId {
            sale: SaleId::try_new("spring.2026").unwrap(),
            sku: SkuId::try_new("shoe_42").unwrap(),
            index: 7,
        };
        let keys = SegmentKeys::new(&segment);
        assert_eq!(keys.keys[0], "penstock:{spring.2026:shoe_42:7}:meta");
        for key in &keys.keys {
            assert_eq!(fred::util::redis_keyslot(key.as_bytes()), keys.slot);
        }
        assert_eq!(keys.values().count().to_string(), SegmentKeys::count());
    }
}
