//! What this node has told about orders lately, so that it never tells less (INV-ORDER-5): of two requests that overlap, the one that
//! read first may answer last.
//!
//! Two generations of a bounded size: reads overlap for milliseconds, so what is forgotten after tens of thousands of other
//! orders is not missed.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{ids::OrderId, ledger::Standing};

/// Orders in one generation; an entry has about 64 bytes.
const GENERATION: usize = 32_768;

/// The memory.
pub(super) struct Told {
    /// A `std` lock: held for one look into two maps.
    generations: Mutex<Generations>,
    size: usize,
}

#[derive(Default)]
struct Generations {
    young: HashMap<OrderId, Standing>,
    old: HashMap<OrderId, Standing>,
}

impl Default for Told {
    fn default() -> Self {
        Self::with_size(GENERATION)
    }
}

impl Told {
    fn with_size(size: usize) -> Self {
        Self {
            generations: Mutex::default(),
            size,
        }
    }

    /// The later of what was read and what was told, which is told now.
    pub(super) fn latest(&self, order: OrderId, read: Standing) -> Standing {
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let told = generations
            .young
            .get(&order)
            .or(generations.old.get(&order));
        let latest = told.map_or(read, |told| told.latest(read));
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
    fn an_older_reading_is_answered_with_what_was_told() {
        let told = Told::with_size(2);
        let order = |n| OrderId::new(1, 1, n);
        let paid = standing(3, OrderStatus::Paid);
        told.latest(order(1), paid);
        let late = standing(1, OrderStatus::Reserved);
        assert_eq!(told.latest(order(1), late), paid);
        // A generation later it is still known; touched, it stays.
        told.latest(order(2), late);
        told.latest(order(3), late);
        assert_eq!(told.latest(order(1), late), paid);
    }

    #[test]
    fn the_memory_is_bounded() {
        let told = Told::with_size(8);
        for n in 0..1_000 {
            told.latest(OrderId::new(1, 1, n), standing(1, OrderStatus::Reserved));
        }
        let generations = told.generations.lock().unwrap();
        assert!(generations.young.len() <= 8 && generations.old.len() <= 8);
    }

    #[test]
    fn a_payment_that_came_to_nothing_is_told() {
        let told = Told::default();
        let order = OrderId::new(1, 1, 1);
        told.latest(order, standing(2, OrderStatus::Paying));
        let again = standing(3, OrderStatus::Reserved);
        assert_eq!(told.latest(order, again), again);
    }
}
