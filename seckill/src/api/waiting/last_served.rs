//! The newest version that this node has sent of each order lately, so that it never sends an older one (INV-ORDER-5): of two
//! requests that overlap, the one that read first may answer last.
//!
//! Two generations of a bounded size: reads overlap for milliseconds, so what is forgotten after tens of thousands of other
//! orders is not missed.

use std::{collections::HashMap, sync::Mutex};

use crate::{ids::OrderId, ledger::Standing};

use crate::locks::Locked;

/// Orders in one generation; an entry has about 64 bytes.
const GENERATION: usize = 32_768;

/// The memory.
pub(super) struct LastServed {
    /// A `std` lock: held for one look into two maps.
    generations: Mutex<Generations>,
    size: usize,
}

#[derive(Default)]
struct Generations {
    young: HashMap<OrderId, Standing>,
    old: HashMap<OrderId, Standing>,
}

impl Default for LastServed {
    fn default() -> Self {
        Self::with_size(GENERATION)
    }
}

impl LastServed {
    fn with_size(size: usize) -> Self {
        Self {
            generations: Mutex::default(),
            size,
        }
    }

    /// The later of what was read and what was sent before; it is sent now.
    pub(super) fn latest(&self, order: OrderId, read: Standing) -> Standing {
        let mut generations = self.generations.locked();
        let served = generations
            .young
            .get(&order)
            .or(generations.old.get(&order));
        let latest = served.map_or(read, |served| served.latest(read));
        if generations.young.len() >= self.size {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(order, latest);
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::OrderStatus;

    fn standing(version: u64, status: OrderStatus) -> Standing {
        Standing { version, status }
    }

    #[test]
    fn an_older_reading_is_answered_with_what_was_served() {
        let served = LastServed::with_size(2);
        let order = |n| OrderId::new(1, 1, n);
        let paid = standing(3, OrderStatus::Paid);
        served.latest(order(1), paid);
        let late = standing(1, OrderStatus::Reserved);
        assert_eq!(served.latest(order(1), late), paid);
        // A generation later it is still known; touched, it stays.
        served.latest(order(2), late);
        served.latest(order(3), late);
        assert_eq!(served.latest(order(1), late), paid);
    }

    #[test]
    fn the_memory_is_bounded() {
        let served = LastServed::with_size(8);
        for n in 0..1_000 {
            served.latest(OrderId::new(1, 1, n), standing(1, OrderStatus::Reserved));
        }
        let generations = served.generations.lock().unwrap();
        assert!(generations.young.len() <= 8 && generations.old.len() <= 8);
    }

    #[test]
    fn a_payment_that_came_to_nothing_is_served() {
        let served = LastServed::default();
        let order = OrderId::new(1, 1, 1);
        served.latest(order, standing(2, OrderStatus::Paying));
        let again = standing(3, OrderStatus::Reserved);
        assert_eq!(served.latest(order, again), again);
    }
}
