//! Who waits for which order to reach the ledger, so that a settlement wakes those and nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use crate::{ids::OrderId, locks::Locked};

/// Settlement and the callers of every request meet here; a power of two, so that an order finds its shard by its low bits.
const SHARDS: usize = 16;

type Shard = HashMap<OrderId, Vec<Arc<Notify>>>;

/// The waiters of this process. As large as there are callers waiting: each takes itself out when it is dropped.
#[derive(Default)]
pub(super) struct Waiters {
    /// `std` locks: held for one look into a map.
    shards: [Mutex<Shard>; SHARDS],
}

/// One caller that waits for one order.
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    order: OrderId,
    bell: Arc<Notify>,
}

impl Waiters {
    /// Begins to listen. A wake between this and [`Waiter::woken`] is not lost.
    pub(super) fn listen(&self, order: OrderId) -> Waiter<'_> {
        let bell = Arc::new(Notify::new());
        let mut shard = self.shard(order);
        shard.entry(order).or_default().push(bell.clone());
        drop(shard);
        Waiter {
            waiters: self,
            order,
            bell,
        }
    }

    /// Wakes who waits for these orders.
    pub(super) fn wake(&self, orders: impl IntoIterator<Item = OrderId>) {
        for order in orders {
            let woken = self.shard(order).get(&order).cloned().unwrap_or_default();
            for bell in woken {
                // Keeps a permit if the waiter is not at its bell just now.
                bell.notify_one();
            }
        }
    }

    fn shard(&self, order: OrderId) -> MutexGuard<'_, Shard> {
        let place = order.as_u128() as usize % SHARDS;
        self.shards[place].locked()
    }
}

impl Waiter<'_> {
    /// Ends when the order was settled by this process.
    pub(super) async fn woken(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut shard = self.waiters.shard(self.order);
        if let Some(bells) = shard.get_mut(&self.order) {
            bells.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            if bells.is_empty() {
                shard.remove(&self.order);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn order(n: u64) -> OrderId {
        OrderId::new(1, 2, n)
    }

    // Every settlement used to wake every waiter, and each of them read the ledger again.
    #[test]
    fn only_the_waiters_of_a_settled_order_are_woken() {
        let waiters = Waiters::default();
        let all: Vec<_> = (0..64).map(|n| waiters.listen(order(n))).collect();
        let twin = waiters.listen(order(7));
        waiters.wake([order(7), order(1_000)]);
        for (n, waiter) in all.iter().enumerate() {
            assert_eq!(waiter.woken().now_or_never().is_some(), n == 7, "{n}");
        }
        assert!(twin.woken().now_or_never().is_some());
    }

    #[test]
    fn who_waits_no_longer_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let (one, other) = (waiters.listen(order(1)), waiters.listen(order(1)));
        drop(one);
        waiters.wake([order(1)]);
        assert!(other.woken().now_or_never().is_some());
        drop(other);
        assert!(
            waiters
                .shards
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }
}
