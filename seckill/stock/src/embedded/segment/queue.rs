//! Which orders wait for settlement. Only what waits is here: an acknowledged order costs nothing.

use std::collections::BTreeMap;

/// An order on the queue that nobody has acknowledged yet.
#[derive(Clone, Copy, Default)]
struct Delivery {
    at_ms: u64,
    count: u32,
}

/// The queue of a segment, by the orders' indexes.
#[derive(Default)]
pub(super) struct Queue {
    unacked: BTreeMap<u32, Delivery>,
    /// Entries before this index were handed out at least once since the start.
    fresh_from: u32,
}

impl Queue {
    pub(super) fn push(&mut self, index: u32) {
        self.unacked.insert(index, Delivery::default());
    }

    /// Whether it waited.
    pub(super) fn remove(&mut self, index: u32) -> bool {
        self.unacked.remove(&index).is_some()
    }

    pub(super) fn holds(&self, index: u32) -> bool {
        self.unacked.contains_key(&index)
    }

    pub(super) fn len(&self) -> usize {
        self.unacked.len()
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        self.unacked.first_key_value().map(|(&index, _)| index)
    }

    /// Waiting entries from an index on, handed out or not.
    pub(super) fn from(&self, index: u32) -> impl Iterator<Item = u32> + '_ {
        self.unacked.range(index..).map(|(&index, _)| index)
    }

    /// Hands out: first what was taken long enough ago and never acknowledged, then what is new and before `limit`. Answers each
    /// with how often it was handed out.
    pub(super) fn pull(
        &mut self,
        max: usize,
        reclaim_after_ms: u64,
        now_ms: u64,
        limit: u32,
    ) -> Vec<(u32, u32)> {
        let is_stale =
            |delivery: &Delivery| now_ms.saturating_sub(delivery.at_ms) >= reclaim_after_ms;
        let known = self.unacked.range(..self.fresh_from);
        let reclaimed = known
            .filter(|(_, delivery)| is_stale(delivery))
            .map(|(&index, _)| index);
        let fresh = self
            .unacked
            .range(self.fresh_from..limit.max(self.fresh_from));
        let chosen: Vec<u32> = reclaimed
            .chain(fresh.map(|(&index, _)| index))
            .take(max)
            .collect();
        let mut entries = Vec::with_capacity(chosen.len());
        for index in chosen {
            let delivery = self.unacked.entry(index).or_default();
            *delivery = Delivery {
                at_ms: now_ms,
                count: delivery.count + 1,
            };
            self.fresh_from = self.fresh_from.max(index + 1);
            entries.push((index, delivery.count));
        }
        entries
    }
}
