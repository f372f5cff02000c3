//! The state of one segment in memory: decides, and applies what was decided. Pure: time comes in, nothing goes out.
//!
//! Live traffic and replay after a restart take the same road: a decision becomes an [`Event`], and only
//! [`Segment::apply`] changes anything.

use std::collections::BTreeMap;

use ahash::{AHashMap, AHashSet};

use super::record::Event;
use crate::{
    ids::{BuyerId, OrderId, RequestId},
    store::{
        Confirm, Gate, Lookup, OrderState, Position, Purchase, QueueDepth, QueueEntry, Release,
        SegmentSpec, Snapshot, StoredOrder, Verdict,
    },
};

/// A request by its scope: the segment is implied.
type RequestKey = (BuyerId, RequestId);

/// An order on the queue that nobody has acknowledged yet.
#[derive(Clone, Copy, Default)]
struct Delivery {
    at_ms: u64,
    count: u32,
}

/// One segment. Orders are never removed: a released one is the tombstone that a late retry must find.
pub(super) struct Segment {
    spec: SegmentSpec,
    gate: Gate,
    epoch: u64,
    version: u64,
    available: u64,
    reserved: u64,
    sold: u64,
    restocked: u64,
    /// In order of acceptance; an order's place in the queue is its index here + 1.
    orders: Vec<StoredOrder>,
    by_id: AHashMap<OrderId, u32>,
    by_request: AHashMap<RequestKey, u32>,
    held: AHashMap<BuyerId, u32>,
    restocks: AHashSet<String>,
    unacked: BTreeMap<u32, Delivery>,
    /// Entries before this index were handed out at least once since the start.
    fresh_from: u32,
}

impl Segment {
    pub(super) fn new(spec: SegmentSpec) -> Self {
        Self {
            available: spec.stock,
            spec,
            gate: Gate::Open,
            epoch: 1,
            version: 1,
            reserved: 0,
            sold: 0,
            restocked: 0,
            orders: Vec::new(),
            by_id: AHashMap::new(),
            by_request: AHashMap::new(),
            held: AHashMap::new(),
            restocks: AHashSet::new(),
            unacked: BTreeMap::new(),
            fresh_from: 0,
        }
    }

    /// Decides one purchase. Changes nothing: an acceptance is returned as the event to apply and to write down.
    pub(super) fn decide(
        &self,
        epoch: u64,
        now_ms: u64,
        purchase: &Purchase,
    ) -> Result<Event, Verdict> {
        if purchase.quantity == 0 {
            return Err(Verdict::InvalidQuantity);
        }
        let key = (purchase.buyer.clone(), purchase.request.clone());
        if let Some(&index) = self.by_request.get(&key) {
            let record = &self.orders[index as usize];
            return Err(if record.fingerprint == purchase.fingerprint {
                Verdict::Replayed(record.clone())
            } else {
                Verdict::KeyReused
            });
        }
        if self.gate == Gate::Frozen {
            return Err(Verdict::Frozen);
        }
        if epoch != self.epoch {
            return Err(Verdict::StaleEpoch {
                current: self.epoch,
            });
        }
        if self.gate == Gate::Closed || now_ms >= self.spec.ends_at_ms {
            return Err(Verdict::Ended);
        }
        if self.gate == Gate::Paused {
            return Err(Verdict::Paused);
        }
        if now_ms < self.spec.starts_at_ms {
            return Err(Verdict::NotStarted {
                starts_at_ms: self.spec.starts_at_ms,
                now_ms,
            });
        }
        let held = self.held.get(&purchase.buyer).copied().unwrap_or(0);
        // In u64: two u32 cannot overflow it, whatever a caller asks for.
        if u64::from(held) + u64::from(purchase.quantity) > u64::from(self.spec.buyer_limit) {
            return Err(Verdict::BuyerLimit {
                held,
                limit: self.spec.buyer_limit,
            });
        }
        if self.available < u64::from(purchase.quantity) {
            return Err(Verdict::SoldOut {
                remaining: self.available,
                version: self.version,
                accepted: self.orders.len() as u64,
            });
        }
        Ok(Event::Bought {
            order: StoredOrder {
                order: purchase.order,
                buyer: purchase.buyer.clone(),
                request: purchase.request.clone(),
                quantity: purchase.quantity,
                fingerprint: purchase.fingerprint,
                state: OrderState::Reserved,
                created_at_ms: now_ms,
                pay_by_ms: now_ms.saturating_add(self.spec.pay_within_ms),
            },
        })
    }

    /// Applies a decided (or replayed) event. Events that no longer fit the state are ignored: only decided events are written,
    /// so that happens to none of ours.
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Bought { order } => self.bought(order),
            Event::Released { order } => self.released(*order),
            Event::Confirmed { order } => self.confirmed(*order),
            Event::Restocked { id, units } => {
                self.restocks.insert(id.clone());
                self.available += units;
                self.restocked += units;
                self.version += 1;
            }
            Event::GateSet { gate } => {
                self.gate = *gate;
                self.version += 1;
            }
            Event::RulesSet { spec } => {
                // Stock is taken over once, when the segment is opened; later changes of it are restocks.
                self.spec = SegmentSpec {
                    stock: self.spec.stock,
                    ..spec.clone()
                };
                self.version += 1;
            }
            Event::Acked { positions } => {
                for minor in positions {
                    self.unacked.remove(&(minor.saturating_sub(1) as u32));
                }
            }
        }
        debug_assert_eq!(
            self.available + self.reserved + self.sold,
            self.spec.stock + self.restocked,
            "INV-STOCK-2"
        );
    }

    fn bought(&mut self, order: &StoredOrder) {
        let index =
            u32::try_from(self.orders.len()).expect("a segment holds fewer than 2^32 orders");
        let units = u64::from(order.quantity);
        assert!(
            units <= self.available,
            "INV-STOCK-1: journal sells more than there is"
        );
        self.available -= units;
        self.reserved += units;
        *self.held.entry(order.buyer.clone()).or_default() += order.quantity;
        self.by_id.insert(order.order, index);
        self.by_request
            .insert((order.buyer.clone(), order.request.clone()), index);
        self.unacked.insert(index, Delivery::default());
        self.orders.push(order.clone());
        self.version += 1;
    }

    fn released(&mut self, id: OrderId) {
        let Some(&index) = self.by_id.get(&id) else {
            return;
        };
        let order = &mut self.orders[index as usize];
        if order.state != OrderState::Reserved {
            return;
        }
        order.state = OrderState::Released;
        self.reserved -= u64::from(order.quantity);
        self.available += u64::from(order.quantity);
        if let Some(held) = self.held.get_mut(&order.buyer) {
            *held -= order.quantity;
            if *held == 0 {
                self.held.remove(&order.buyer);
            }
        }
        self.version += 1;
    }

    fn confirmed(&mut self, id: OrderId) {
        let Some(&index) = self.by_id.get(&id) else {
            return;
        };
        let order = &mut self.orders[index as usize];
        if order.state != OrderState::Reserved {
            return;
        }
        order.state = OrderState::Sold;
        self.reserved -= u64::from(order.quantity);
        self.sold += u64::from(order.quantity);
        self.version += 1;
    }

    /// What a release of this order would do.
    pub(super) fn decide_release(&self, id: OrderId) -> Release {
        match self.order(id).map(|order| order.state) {
            None => Release::Unknown,
            Some(OrderState::Reserved) => Release::Released,
            Some(OrderState::Released) => Release::AlreadyReleased,
            Some(OrderState::Sold) => Release::AlreadySold,
        }
    }

    /// What a confirmation of this order would do.
    pub(super) fn decide_confirm(&self, id: OrderId) -> Confirm {
        match self.order(id).map(|order| order.state) {
            None => Confirm::Unknown,
            Some(OrderState::Reserved) => Confirm::Confirmed,
            Some(OrderState::Released) => Confirm::AlreadyReleased,
            Some(OrderState::Sold) => Confirm::AlreadySold,
        }
    }

    /// Whether this restock was booked before.
    pub(super) fn has_restock(&self, id: &str) -> bool {
        self.restocks.contains(id)
    }

    /// Whether these rules are the ones in force (stock aside).
    pub(super) fn has_rules(&self, spec: &SegmentSpec) -> bool {
        self.spec
            == SegmentSpec {
                stock: self.spec.stock,
                ..spec.clone()
            }
    }

    fn order(&self, id: OrderId) -> Option<&StoredOrder> {
        self.by_id
            .get(&id)
            .map(|&index| &self.orders[index as usize])
    }

    /// Finds one order.
    pub(super) fn find(&self, lookup: &Lookup) -> Option<StoredOrder> {
        match lookup {
            Lookup::Order(id) => self.order(*id).cloned(),
            Lookup::Request(buyer, request) => self
                .by_request
                .get(&(buyer.clone(), request.clone()))
                .map(|&index| self.orders[index as usize].clone()),
        }
    }

    /// Orders accepted after a position.
    pub(super) fn accepted_after(
        &self,
        after: Position,
        max: usize,
    ) -> Vec<(Position, StoredOrder)> {
        let from = usize::try_from(after.minor).unwrap_or(usize::MAX);
        let orders = self.orders.iter().enumerate().skip(from).take(max);
        orders
            .map(|(index, order)| (position(index as u32), order.clone()))
            .collect()
    }

    /// Hands out entries: those taken long enough ago and never acknowledged first, then new ones.
    pub(super) fn pull(
        &mut self,
        max: usize,
        reclaim_after_ms: u64,
        now_ms: u64,
    ) -> Vec<QueueEntry> {
        let stale = |delivery: &Delivery| now_ms.saturating_sub(delivery.at_ms) >= reclaim_after_ms;
        let reclaimed = self
            .unacked
            .range(..self.fresh_from)
            .filter(|(_, d)| stale(d))
            .map(|(&index, _)| index);
        let fresh = self
            .unacked
            .range(self.fresh_from..)
            .map(|(&index, _)| index);
        let chosen: Vec<u32> = reclaimed.chain(fresh).take(max).collect();
        let mut entries = Vec::with_capacity(chosen.len());
        for index in chosen {
            let delivery = self
                .unacked
                .get_mut(&index)
                .expect("chosen from this map above");
            *delivery = Delivery {
                at_ms: now_ms,
                count: delivery.count + 1,
            };
            self.fresh_from = self.fresh_from.max(index + 1);
            entries.push(QueueEntry {
                position: position(index),
                deliveries: delivery.count,
                order: Ok(self.orders[index as usize].clone()),
            });
        }
        entries
    }

    /// How much waits.
    pub(super) fn depth(&self, now_ms: u64) -> QueueDepth {
        let oldest = self
            .unacked
            .first_key_value()
            .map(|(&index, _)| &self.orders[index as usize]);
        QueueDepth {
            entries: self.unacked.len() as u64,
            oldest_age_ms: oldest.map_or(0, |order| now_ms.saturating_sub(order.created_at_ms)),
        }
    }

    /// Units left, and the version they belong to.
    pub(super) fn remaining(&self) -> (u64, u64) {
        (self.available, self.version)
    }

    /// Counts now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            spec: self.spec.clone(),
            gate: self.gate,
            epoch: self.epoch,
            version: self.version,
            available: self.available,
            reserved: self.reserved,
            sold: self.sold,
            restocked: self.restocked,
            withdrawn: 0,
            accepted: self.orders.len() as u64,
            needs_rebuild: false,
        }
    }
}

fn position(index: u32) -> Position {
    Position {
        major: 0,
        minor: u64::from(index) + 1,
    }
}
