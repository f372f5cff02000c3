//! Whether a segment can be trusted. Pure: what the ledger and the store say goes in, a cause for a rebuild comes out.

use stock::{Gate, SegmentStatus, words};

words! {
    /// Why a segment needs a rebuild.
    pub enum Cause {
        /// The ledger remembers it as open, the store does not know it.
        Lost = "lost",
        /// The store doubts it: another server answers than the one that sold, or a call died half way.
        Doubtful = "doubtful",
        /// It is frozen: somebody suspected an oversell, or a rebuild ended half way.
        Frozen = "frozen",
        /// Store and ledger are at different epochs: a rebuild ended before it reached the store, or one of the two is an old copy.
        EpochGap = "epoch_gap",
        /// It has gone back to a version that was passed before.
        VersionGap = "version_gap",
    }
}

/// The newest state of a segment that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Seen {
    epoch: u64,
    version: u64,
}

impl Seen {
    pub(super) fn learn(&mut self, counts: &SegmentStatus) {
        *self = Self {
            epoch: counts.epoch,
            version: counts.version,
        };
    }
}

/// What is wrong with a segment that the ledger has at `epoch` and the store counts so (`None`: does not know).
pub(super) fn diagnose(epoch: u64, counts: Option<&SegmentStatus>, seen: Seen) -> Option<Cause> {
    let Some(counts) = counts else {
        return Some(Cause::Lost);
    };
    if counts.needs_rebuild {
        Some(Cause::Doubtful)
    } else if counts.epoch != epoch {
        Some(Cause::EpochGap)
    } else if counts.gate == Gate::Frozen {
        Some(Cause::Frozen)
    } else if counts.epoch == seen.epoch && counts.version < seen.version {
        Some(Cause::VersionGap)
    } else {
        None
    }
}

/// Whether a segment that the ledger has at `epoch` needs a rebuild, as far as one look can tell.
pub(crate) fn doubts(epoch: u64, counts: &SegmentStatus) -> bool {
    diagnose(epoch, Some(counts), Seen::default()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SegmentId;
    use stock::SegmentSpec;

    fn counts(epoch: u64, version: u64) -> SegmentStatus {
        SegmentStatus {
            spec: SegmentSpec {
                id: SegmentId::first("s".parse().unwrap(), "k".parse().unwrap()),
                stock: 5,
                starts_at_ms: 0,
                ends_at_ms: 1,
                buyer_limit: 1,
                pay_within_ms: 1,
                durability: None,
            },
            gate: Gate::Open,
            epoch,
            version,
            available: 5,
            reserved: 0,
            sold: 0,
            restocked: 0,
            withdrawn: 0,
            accepted: 0,
            needs_rebuild: false,
        }
    }

    #[test]
    fn a_segment_that_moves_on_is_healthy() {
        let mut seen = Seen::default();
        for version in [1, 2, 2, 9] {
            assert_eq!(diagnose(3, Some(&counts(3, version)), seen), None);
            seen.learn(&counts(3, version));
        }
    }

    #[test]
    fn each_doubt_has_its_cause() {
        let mut seen = Seen::default();
        seen.learn(&counts(3, 9));
        assert_eq!(diagnose(3, None, seen), Some(Cause::Lost));
        let doubtful = SegmentStatus {
            needs_rebuild: true,
            ..counts(3, 9)
        };
        assert_eq!(diagnose(3, Some(&doubtful), seen), Some(Cause::Doubtful));
        let frozen = SegmentStatus {
            gate: Gate::Frozen,
            ..counts(3, 9)
        };
        assert_eq!(diagnose(3, Some(&frozen), seen), Some(Cause::Frozen));
        for epoch in [2, 4] {
            let gap = diagnose(epoch, Some(&counts(3, 9)), seen);
            assert_eq!(gap, Some(Cause::EpochGap));
        }
        let back = diagnose(3, Some(&counts(3, 8)), seen);
        assert_eq!(back, Some(Cause::VersionGap));
    }

    #[test]
    fn versions_of_another_epoch_are_not_compared() {
        let mut seen = Seen::default();
        seen.learn(&counts(3, 9));
        assert_eq!(diagnose(4, Some(&counts(4, 1)), seen), None);
    }

    #[test]
    fn a_paused_or_closed_segment_is_healthy() {
        for gate in [Gate::Paused, Gate::Closed] {
            let counts = SegmentStatus {
                gate,
                ..counts(1, 1)
            };
            assert_eq!(diagnose(1, Some(&counts), Seen::default()), None);
        }
    }
}
