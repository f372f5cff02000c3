//! The permits of requests that wait: bounded per node and per buyer, counted, and free again however the request ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use metrics::{Counter, Gauge};
use stock::words;

use crate::{ids::BuyerId, locks::Locked};

words! {
    /// What is waited for; the `kind` label.
    pub(in crate::api) enum Kind {
        /// The next change of an order.
        Order = "order",
        /// The order of a request.
        Request = "request",
        /// An event stream.
        Events = "events",
    }
}

words! {
    /// How a wait ended; the `outcome` label.
    pub(in crate::api) enum End {
        /// The order changed.
        Changed = "changed",
        /// The time was over.
        Unchanged = "unchanged",
        /// The process stops.
        Drained = "drained",
        /// The client left.
        Left = "left",
        /// The buyer has its share of permits, so that none began.
        RefusedBuyer = "refused_buyer",
        /// The node has given all of its permits.
        RefusedNode = "refused_node",
    }
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The buyer has its share.
    Buyer,
    /// The node is full.
    Node,
}

/// All permits of a node.
pub(super) struct WaitPermits {
    per_node: usize,
    per_buyer: usize,
    /// A `std` lock: held for one look into a map.
    taken: Mutex<Taken>,
    meters: [Meters; Kind::ALL.len()],
}

#[derive(Default)]
struct Taken {
    all: usize,
    buyers: HashMap<BuyerId, usize>,
}

struct Meters {
    waiting: Gauge,
    outcomes: [Counter; End::ALL.len()],
}

/// One taken permit. Dropped, it is free again; if nobody said how the wait ended, the client left.
pub(in crate::api) struct WaitPermit {
    permits: Arc<WaitPermits>,
    kind: Kind,
    buyer: BuyerId,
    end: End,
}

impl WaitPermits {
    pub(super) fn new(per_node: usize, per_buyer: usize) -> Self {
        let meters = |kind: Kind| Meters {
            waiting: metrics::gauge!("penstock_order_waiters", "kind" => kind.as_str()),
            outcomes: End::ALL.map(|end| {
                let labels = [("kind", kind.as_str()), ("outcome", end.as_str())];
                metrics::counter!("penstock_order_waits_total", &labels)
            }),
        };
        metrics::gauge!("penstock_order_waiters_max").set(per_node as f64);
        Self {
            per_node,
            per_buyer,
            taken: Mutex::default(),
            meters: Kind::ALL.map(meters),
        }
    }

    pub(super) fn enter(self: &Arc<Self>, kind: Kind, buyer: &BuyerId) -> Result<WaitPermit, Full> {
        let meters = &self.meters[kind as usize];
        let mut taken = self.taken.locked();
        if taken
            .buyers
            .get(buyer)
            .is_some_and(|own| *own >= self.per_buyer)
        {
            meters.outcomes[End::RefusedBuyer as usize].increment(1);
            return Err(Full::Buyer);
        }
        if taken.all >= self.per_node {
            meters.outcomes[End::RefusedNode as usize].increment(1);
            return Err(Full::Node);
        }
        taken.all += 1;
        *taken.buyers.entry(buyer.clone()).or_default() += 1;
        meters.waiting.increment(1.0);
        Ok(WaitPermit {
            permits: self.clone(),
            kind,
            buyer: buyer.clone(),
            end: End::Left,
        })
    }
}

impl WaitPermit {
    /// Frees the permit and counts how the wait ended.
    pub(in crate::api) fn end(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for WaitPermit {
    fn drop(&mut self) {
        let mut taken = self.permits.taken.locked();
        taken.all -= 1;
        if let Some(own) = taken.buyers.get_mut(&self.buyer) {
            *own -= 1;
            if *own == 0 {
                taken.buyers.remove(&self.buyer);
            }
        }
        drop(taken);
        let meters = &self.permits.meters[self.kind as usize];
        meters.waiting.decrement(1.0);
        meters.outcomes[self.end as usize].increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buyer(name: &str) -> BuyerId {
        BuyerId::try_new(name).unwrap()
    }

    #[test]
    fn places_are_bounded_per_buyer_and_per_node_and_free_again_when_dropped() {
        let permits = Arc::new(WaitPermits::new(3, 2));
        let enter = |name: &str| permits.enter(Kind::Order, &buyer(name));
        let (first, second) = (enter("ann").ok().unwrap(), enter("ann").ok().unwrap());
        assert_eq!(enter("ann").err(), Some(Full::Buyer));
        let other = enter("bob").ok().unwrap();
        assert_eq!(enter("cat").err(), Some(Full::Node));
        drop(first);
        let third = enter("cat").ok().unwrap();
        second.end(End::Changed);
        drop((other, third));
        let taken = permits.taken.locked();
        assert!(taken.all == 0 && taken.buyers.is_empty());
    }
}
