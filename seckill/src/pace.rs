//! How often the timers of a node read a segment: seldom while nothing happens in it. Pure: readings and ticks go in.

use stock::{Gate, SegmentStatus};

/// So many readings without a change, and a segment is at rest.
const REST_AFTER: u32 = 4;
/// A segment at rest is read at every second tick while it sells: other nodes' orders wait a second for settlement at most. Before
/// its window, after it and while paused nobody buys.
const SELLING: u64 = 2;
const NOT_SELLING: u64 = 4;

/// What the last readings of a segment said.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Last>,
    /// Readings in a row that said the same.
    same: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    epoch: u64,
    version: u64,
    accepted: u64,
    /// Whether the gate is open, and the window.
    is_open: bool,
    window: std::ops::Range<u64>,
}

impl Pace {
    /// Learns from a reading. Answers whether orders may have been accepted since the one before.
    pub(crate) fn learn(&mut self, snapshot: &SegmentStatus) -> bool {
        let now = Last {
            epoch: snapshot.epoch,
            version: snapshot.version,
            accepted: snapshot.accepted,
            is_open: snapshot.gate == Gate::Open,
            window: snapshot.spec.starts_at_ms..snapshot.spec.ends_at_ms,
        };
        let before = self.last.replace(now.clone());
        self.same = match before == Some(now.clone()) {
            true => self.same.saturating_add(1),
            false => 0,
        };
        let orders = |last: &Last| (last.epoch, last.accepted);
        before.is_none_or(|before| orders(&before) != orders(&now))
    }

    /// The segment did not answer: it is read at every tick until it does.
    pub(crate) fn disturb(&mut self) {
        self.same = 0;
    }

    /// Whether the segment is read at this tick.
    pub(crate) fn is_due(&self, tick: u64, now_ms: u64) -> bool {
        let Some(last) = self.last.as_ref().filter(|_| self.same >= REST_AFTER) else {
            return true;
        };
        let is_selling = last.is_open && last.window.contains(&now_ms);
        tick.is_multiple_of(if is_selling { SELLING } else { NOT_SELLING })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SegmentId;
    use stock::SegmentSpec;

    const ON: u64 = 15;

    fn reading(version: u64, accepted: u64) -> SegmentStatus {
        SegmentStatus {
            spec: SegmentSpec {
                id: SegmentId {
                    sale: "s".parse().unwrap(),
                    sku: "k".parse().unwrap(),
                    index: 0,
                },
                stock: 5,
                starts_at_ms: 10,
                ends_at_ms: 20,
                buyer_limit: 1,
                pay_within_ms: 1,
                durability: None,
            },
            gate: Gate::Open,
            epoch: 1,
            version,
            available: 5 - accepted,
            reserved: accepted,
            sold: 0,
            restocked: 0,
            withdrawn: 0,
            accepted,
            needs_rebuild: false,
        }
    }

    fn due(pace: &Pace, now_ms: u64) -> usize {
        (0..8).filter(|tick| pace.is_due(*tick, now_ms)).count()
    }

    #[test]
    fn a_segment_in_which_nothing_happens_is_read_seldom_until_something_does() {
        let mut pace = Pace::default();
        assert!(pace.learn(&reading(1, 0)), "nobody knows what was before");
        for _ in 0..REST_AFTER {
            assert_eq!(due(&pace, ON), 8);
            assert!(!pace.learn(&reading(1, 0)));
        }
        assert_eq!([due(&pace, ON), due(&pace, 9), due(&pace, 20)], [4, 2, 2]);
        assert!(pace.learn(&reading(2, 1)));
        assert_eq!(due(&pace, ON), 8);
        assert!(!pace.learn(&reading(3, 1)), "a return is no order");
    }

    #[test]
    fn a_rebuilt_segment_may_have_orders_and_a_silent_one_is_asked_at_every_tick() {
        let mut pace = Pace::default();
        for _ in 0..=REST_AFTER {
            pace.learn(&reading(1, 0));
        }
        pace.disturb();
        assert_eq!(due(&pace, ON), 8);
        let mut rebuilt = reading(1, 0);
        rebuilt.epoch = 2;
        assert!(pace.learn(&rebuilt));
    }
}
