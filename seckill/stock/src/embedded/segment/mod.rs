//! The state of one segment in memory: decides, and applies what was decided. Pure: time comes in, nothing goes out.
//!
//! Live traffic and replay after a restart take the same road: a decision becomes an [`Event`], and only
//! [`Segment::apply`] changes anything.

pub(super) mod chunks;
mod decide;
mod index;
pub(super) mod orders;
mod queue;
pub(super) mod texts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(super) use self::decide::beginning;
use self::{
    orders::{Orders, SharedOrders},
    queue::Queue,
};
use super::record::{Beginning, Event};
use crate::{
    Durability, Gate, Lookup, OrderState, Position, QueueDepth, QueueEntry, SegmentSpec,
    SegmentStatus, StoredOrder,
};

/// What a segment does, beside the operator's gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// The usual.
    Selling,
    /// Closed under a new epoch, its content still there. Snapshots on disks call it `Frozen`.
    #[serde(rename = "Frozen")]
    Fenced,
    /// Wiped; orders of the ledger are coming in.
    Loading,
    /// Long over and all settled: the orders are gone from memory, the counts stay, buyers are told "ended".
    Retired,
}

/// Everything about a segment that is not an order. Small: it is copied for each snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) spec: SegmentSpec,
    gate: Gate,
    phase: Phase,
    epoch: u64,
    version: u64,
    available: u64,
    reserved: u64,
    sold: u64,
    restocked: u64,
    withdrawn: u64,
    accepted: u64,
    restocks: BTreeMap<String, u64>,
    withdrawals: BTreeMap<String, u64>,
}

/// One segment. Orders are not removed while it sells: a released one is the tombstone that a late retry must find.
pub(super) struct Segment {
    head: Head,
    orders: Orders,
    queue: Queue,
    /// Orders before this index are on the disk. Kept up only for a `fast` segment, see [`Segment::pull`].
    synced: u32,
}

impl Head {
    fn new(spec: SegmentSpec) -> Self {
        Self {
            available: spec.stock,
            spec,
            gate: Gate::Open,
            phase: Phase::Selling,
            epoch: 1,
            version: 1,
            reserved: 0,
            sold: 0,
            restocked: 0,
            withdrawn: 0,
            accepted: 0,
            restocks: BTreeMap::new(),
            withdrawals: BTreeMap::new(),
        }
    }

    /// The state at the beginning of a rebuild: what `before` knew, without any order, with the moves of the ledger.
    fn rebuilt(before: Option<&Self>, beginning: &Beginning) -> Self {
        let Beginning {
            spec,
            epoch,
            restocks,
            withdrawals,
        } = beginning.clone();
        // Other nodes compare versions with what they remember, and a store that lost its data remembers nothing: so each epoch
        // starts above everything that an earlier one reached.
        let version = before
            .map_or(0, |before| before.version + 1)
            .max(epoch << 32);
        let restocked: u64 = restocks.values().sum();
        let withdrawn: u64 = withdrawals.values().sum();
        Self {
            available: (spec.stock + restocked).saturating_sub(withdrawn),
            gate: Gate::Frozen,
            phase: Phase::Loading,
            epoch,
            version,
            restocked,
            withdrawn,
            restocks,
            withdrawals,
            ..Self::new(spec)
        }
    }
}

impl Segment {
    pub(super) fn new(spec: SegmentSpec) -> Self {
        Self::with(Head::new(spec))
    }

    /// A segment that the store did not have, at the beginning of its rebuild.
    pub(super) fn begun(beginning: &Beginning) -> Self {
        Self::with(Head::rebuilt(None, beginning))
    }

    fn with(head: Head) -> Self {
        Self {
            head,
            orders: Orders::default(),
            queue: Queue::default(),
            synced: 0,
        }
    }

    /// A segment as a snapshot held it. `Err` says what does not fit.
    pub(super) fn load(head: Head, orders: SharedOrders) -> Result<Self, String> {
        let mut segment = Self {
            orders: Orders::load(orders)?,
            ..Self::with(head)
        };
        let (mut reserved, mut sold) = (0, 0);
        for index in 0..segment.orders.len() {
            let units = u64::from(segment.orders.record(index).quantity);
            match segment.orders.state(index) {
                OrderState::Reserved => reserved += units,
                OrderState::Sold => sold += units,
                OrderState::Released => {}
            }
            if !segment.orders.is_acked(index) {
                segment.queue.push(index);
            }
        }
        segment.synced = segment.orders.len();
        let head = &segment.head;
        let fits = head.phase == Phase::Retired
            || (head.reserved, head.sold, head.accepted)
                == (reserved, sold, u64::from(segment.orders.len()));
        if !fits || !segment.adds_up() {
            return Err(format!("the counts of {} do not add up", head.spec.id));
        }
        Ok(segment)
    }

    /// What a snapshot keeps of it.
    pub(super) fn shared(&self) -> (Head, SharedOrders) {
        (self.head.clone(), self.orders.shared())
    }

    /// INV-STOCK-2.
    fn adds_up(&self) -> bool {
        let head = &self.head;
        head.available + head.reserved + head.sold + head.withdrawn
            == head.spec.stock + head.restocked
    }

    /// Applies a decided (or replayed) event. Only decided events are written, so an event that does not fit means that the
    /// journal is not what was written.
    pub(super) fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Bought { order } | Event::Loaded { order } => self.take(order, event)?,
            Event::Released { index } => self.settle(*index, OrderState::Released)?,
            Event::Confirmed { index } => self.settle(*index, OrderState::Sold)?,
            Event::Restocked { id, units } => {
                self.head.restocks.insert(id.clone(), *units);
                self.head.available += units;
                self.head.restocked += units;
            }
            Event::Withdrawn { id, units } => {
                let left = self.head.available.checked_sub(*units);
                self.head.available = left.ok_or("more is withdrawn than there is")?;
                self.head.withdrawn += units;
                self.head.withdrawals.insert(id.clone(), *units);
            }
            Event::GateSet { gate } => self.head.gate = *gate,
            Event::RulesSet { spec } => {
                // Stock is taken over once, when the segment is opened; later changes of it are restocks.
                self.head.spec = SegmentSpec {
                    stock: self.head.spec.stock,
                    ..spec.clone()
                };
            }
            Event::Acked { indexes } => {
                for &index in indexes {
                    if self.queue.remove(index) {
                        self.orders.set_acked(index);
                    }
                }
                // Nothing that a buyer can see has changed.
                return Ok(());
            }
            Event::Fenced { epoch } => {
                self.head.epoch = *epoch;
                self.head.phase = Phase::Fenced;
            }
            Event::RebuildBegan(beginning) => {
                *self = Self::with(Head::rebuilt(Some(&self.head), beginning));
            }
            Event::RebuildFinished { gate } => {
                self.head.phase = Phase::Selling;
                self.head.gate = *gate;
            }
            Event::EpochRaised { epoch } => self.head.epoch = *epoch,
            Event::Retired => {
                self.head.phase = Phase::Retired;
                self.orders = Orders::default();
                self.queue = Queue::default();
            }
        }
        self.head.version += 1;
        debug_assert!(self.adds_up(), "INV-STOCK-2: {:?}", self.head);
        Ok(())
    }

    /// An order comes in: bought now, or loaded from the ledger.
    fn take(&mut self, order: &StoredOrder, event: &Event) -> Result<(), String> {
        let is_bought = matches!(event, Event::Bought { .. });
        let units = u64::from(order.quantity);
        if order.state != OrderState::Released {
            // INV-STOCK-1.
            let left = self.head.available.checked_sub(units);
            self.head.available = left.ok_or("the journal sells more than there is")?;
        }
        match order.state {
            OrderState::Reserved => self.head.reserved += units,
            OrderState::Sold => self.head.sold += units,
            OrderState::Released => {}
        }
        let index = self.orders.push(order, !is_bought);
        if is_bought {
            self.queue.push(index);
        }
        self.head.accepted += 1;
        Ok(())
    }

    /// A reserved order becomes sold or released.
    fn settle(&mut self, index: u32, state: OrderState) -> Result<(), String> {
        if index >= self.orders.len() || self.orders.state(index) != OrderState::Reserved {
            return Err(format!("order {index} is not reserved"));
        }
        let units = u64::from(self.orders.record(index).quantity);
        self.orders.set_state(index, state);
        self.head.reserved -= units;
        match state {
            OrderState::Sold => self.head.sold += units,
            _ => self.head.available += units,
        }
        Ok(())
    }

    /// The rules in force.
    pub(super) fn spec(&self) -> &SegmentSpec {
        &self.head.spec
    }

    /// The epoch in force.
    pub(super) fn epoch(&self) -> u64 {
        self.head.epoch
    }

    /// Whether its acceptances are answered before they are synced, where nothing else is said.
    pub(super) fn is_fast(&self, default: Durability) -> bool {
        self.head.spec.durability.unwrap_or(default) == Durability::Fast
    }

    /// Everything accepted so far is on the disk.
    pub(super) fn mark_synced(&mut self) {
        self.synced = self.orders.len();
    }

    /// Finds one order.
    pub(super) fn find(&self, lookup: &Lookup) -> Option<StoredOrder> {
        let index = match lookup {
            Lookup::Order(id) => self.orders.find(*id),
            Lookup::Request(buyer, request) => {
                self.orders.find_request(buyer.as_str(), request.as_str())
            }
        };
        index.map(|index| self.orders.order(index))
    }

    /// The place of an order in the queue: the epoch, so that positions of a queue that was rebuilt name nothing, and its number.
    fn position(&self, index: u32) -> Position {
        Position {
            major: self.head.epoch,
            minor: u64::from(index) + 1,
        }
    }

    /// The first index after a position. Positions of an older epoch belong to another numbering: everything is after them.
    fn after(&self, after: Position) -> u32 {
        match after.major.cmp(&self.head.epoch) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => u32::try_from(after.minor).unwrap_or(u32::MAX),
            std::cmp::Ordering::Greater => u32::MAX,
        }
    }

    /// Orders accepted after a position.
    pub(super) fn accepted_after(
        &self,
        after: Position,
        max: usize,
    ) -> Vec<(Position, StoredOrder)> {
        let indexes = self.after(after)..self.orders.len();
        let entry = |index| (self.position(index), self.orders.order(index));
        indexes.take(max).map(entry).collect()
    }

    /// Orders after a position that were never acknowledged.
    pub(super) fn unsettled(&self, after: Position, max: usize) -> Vec<(Position, StoredOrder)> {
        let entry = |index| (self.position(index), self.orders.order(index));
        let indexes = self.queue.from(self.after(after));
        indexes.take(max).map(entry).collect()
    }

    /// Hands out entries. Of a `fast` segment only what is on the disk: the ledger must never hold an order that the journal can
    /// still lose, or its unit would be sold twice.
    pub(super) fn pull(
        &mut self,
        max: usize,
        reclaim_after_ms: u64,
        now_ms: u64,
        default: Durability,
    ) -> Vec<QueueEntry> {
        let limit = match self.is_fast(default) {
            true => self.synced,
            false => self.orders.len(),
        };
        let chosen = self.queue.pull(max, reclaim_after_ms, now_ms, limit);
        let entry = |(index, deliveries)| QueueEntry {
            position: self.position(index),
            epoch: self.epoch(),
            deliveries,
            order: Ok(self.orders.order(index)),
        };
        chosen.into_iter().map(entry).collect()
    }

    /// How much waits.
    pub(super) fn depth(&self, now_ms: u64) -> QueueDepth {
        let oldest = self.queue.oldest();
        let age = |index| now_ms.saturating_sub(self.orders.record(index).created_at_ms);
        QueueDepth {
            entries: self.queue.len() as u64,
            oldest_age_ms: oldest.map_or(0, age),
        }
    }

    /// Units left, and the version they belong to.
    pub(super) fn remaining(&self) -> (u64, u64) {
        (self.head.available, self.head.version)
    }

    /// Counts now.
    pub(super) fn snapshot(&self) -> SegmentStatus {
        let head = &self.head;
        SegmentStatus {
            spec: head.spec.clone(),
            gate: match self.awaits_rebuild() {
                true => Gate::Frozen,
                false => head.gate,
            },
            epoch: head.epoch,
            version: head.version,
            available: head.available,
            reserved: head.reserved,
            sold: head.sold,
            restocked: head.restocked,
            withdrawn: head.withdrawn,
            accepted: head.accepted,
            // One process, one journal: what it holds is what was sold, or it does not start.
            needs_rebuild: false,
        }
    }
}

#[cfg(test)]
mod tests;
