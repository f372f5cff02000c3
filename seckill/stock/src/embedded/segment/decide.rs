//! What a call would do to a segment, before anything is changed.

use std::collections::BTreeMap;

use super::{Phase, Segment};
use crate::{
    Gate, OrderState, Position, Purchase, SegmentSpec, StockError, StockMoves, StoredOrder,
    Transition, Verdict,
    embedded::record::{Beginning, Event},
    ids::OrderId,
};

impl Segment {
    /// Whether a rebuild holds it: then nothing moves but the rebuild.
    pub(super) fn awaits_rebuild(&self) -> bool {
        matches!(self.head.phase, Phase::Fenced | Phase::Loading)
    }

    /// `Err` while a rebuild holds it.
    pub(in crate::embedded) fn may_change(&self) -> Result<(), StockError> {
        match self.awaits_rebuild() {
            true => Err(StockError::AwaitsRebuild(self.head.spec.id.clone())),
            false => Ok(()),
        }
    }

    /// Decides one purchase: an acceptance is returned as the event to apply and to write down.
    pub(in crate::embedded) fn decide(
        &self,
        epoch: u64,
        now_ms: u64,
        purchase: &Purchase,
    ) -> Result<Event, Verdict> {
        let head = &self.head;
        if purchase.quantity == 0 {
            return Err(Verdict::InvalidQuantity);
        }
        let (buyer, request) = (purchase.buyer.as_str(), purchase.request.as_str());
        if let Some(index) = self.orders.find_request(buyer, request) {
            let record = self.orders.record(index);
            // The quantity is part of what a fingerprint stands for; comparing it too costs nothing.
            let is_same =
                (record.fingerprint, record.quantity) == (purchase.fingerprint, purchase.quantity);
            return Err(match is_same {
                true => Verdict::Replayed(self.orders.order(index)),
                false => Verdict::KeyReused,
            });
        }
        if self.awaits_rebuild() || head.gate == Gate::Frozen {
            return Err(Verdict::Frozen);
        }
        if head.phase == Phase::Retired {
            return Err(Verdict::Ended);
        }
        if epoch != head.epoch {
            return Err(Verdict::StaleEpoch {
                current: head.epoch,
            });
        }
        if head.gate == Gate::Closed || now_ms >= head.spec.ends_at_ms {
            return Err(Verdict::Ended);
        }
        if head.gate == Gate::Paused {
            return Err(Verdict::Paused);
        }
        if now_ms < head.spec.starts_at_ms {
            return Err(Verdict::NotStarted {
                starts_at_ms: head.spec.starts_at_ms,
                now_ms,
            });
        }
        let held = self.orders.held(buyer);
        // In u64: two u32 cannot overflow it, whatever a caller asks for.
        if u64::from(held) + u64::from(purchase.quantity) > u64::from(head.spec.buyer_limit) {
            return Err(Verdict::BuyerLimit {
                held,
                limit: head.spec.buyer_limit,
            });
        }
        if head.available < u64::from(purchase.quantity) {
            return Err(Verdict::SoldOut {
                remaining: head.available,
                version: head.version,
                accepted: head.accepted,
            });
        }
        Ok(Event::Bought {
            order: purchase.reserved(now_ms, now_ms.saturating_add(head.spec.pay_within_ms)),
        })
    }

    /// What a release or a confirmation of this order would do: `event`, if it is reserved.
    pub(in crate::embedded) fn decide_transition(
        &self,
        id: OrderId,
        event: fn(u32) -> Event,
    ) -> Result<Event, Transition> {
        let index = self.orders.find(id).ok_or(Transition::Unknown)?;
        match self.orders.state(index) {
            OrderState::Reserved => Ok(event(index)),
            OrderState::Released => Err(Transition::AlreadyReleased),
            OrderState::Sold => Err(Transition::AlreadySold),
        }
    }

    /// Whether this restock was booked before.
    pub(in crate::embedded) fn has_restock(&self, id: &str) -> bool {
        self.head.restocks.contains_key(id)
    }

    /// The units that a withdrawal took before (`Err`), or the event that takes them now.
    pub(in crate::embedded) fn decide_withdrawal(
        &self,
        id: &str,
        units: u64,
    ) -> Result<Event, u64> {
        match self.head.withdrawals.get(id) {
            Some(&taken) => Err(taken),
            None => Ok(Event::Withdrawn {
                id: id.to_owned(),
                units: units.min(self.head.available),
            }),
        }
    }

    /// Whether these rules are the ones in force (stock aside). A rebuild brings its own.
    pub(in crate::embedded) fn has_rules(&self, spec: &SegmentSpec) -> bool {
        let same = SegmentSpec {
            stock: self.head.spec.stock,
            ..spec.clone()
        };
        self.awaits_rebuild() || self.head.phase == Phase::Retired || self.head.spec == same
    }

    /// The acknowledgement of what of these positions still waits. Positions of another epoch name entries of a queue that is gone.
    pub(in crate::embedded) fn decide_ack(&self, positions: &[Position]) -> Option<Event> {
        let of_this_epoch = positions
            .iter()
            .filter(|position| position.major == self.head.epoch);
        let index = |position: &Position| u32::try_from(position.minor.checked_sub(1)?).ok();
        let mut indexes: Vec<u32> = of_this_epoch
            .filter_map(index)
            .filter(|&index| self.queue.holds(index))
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        (!indexes.is_empty()).then_some(Event::Acked { indexes })
    }

    /// Freezing again under the epoch of a rebuild that goes on changes nothing; under the epoch of one that has ended it is late.
    pub(in crate::embedded) fn decide_freeze(
        &self,
        epoch: u64,
    ) -> Result<Option<Event>, StockError> {
        match epoch == self.head.epoch && self.awaits_rebuild() {
            true => Ok(None),
            false if epoch > self.head.epoch => Ok(Some(Event::Fenced { epoch })),
            false => Err(self.stale()),
        }
    }

    /// Only what was frozen is wiped: a caller that did not freeze it has not read what was unsettled.
    pub(in crate::embedded) fn decide_begin(
        &self,
        spec: &SegmentSpec,
        epoch: u64,
        moves: &StockMoves,
    ) -> Result<Event, StockError> {
        if epoch < self.head.epoch || (epoch == self.head.epoch && !self.awaits_rebuild()) {
            return Err(self.stale());
        }
        if !self.awaits_rebuild() {
            return Err(StockError::Unavailable(format!(
                "segment {} is not frozen: freeze it before it is rebuilt",
                spec.id
            )));
        }
        beginning(spec, epoch, moves).map(Event::RebuildBegan)
    }

    /// What loading these orders adds, each once. All or nothing.
    pub(in crate::embedded) fn decide_load(
        &self,
        epoch: u64,
        orders: &[StoredOrder],
    ) -> Result<Vec<Event>, StockError> {
        self.is_loading(epoch)?;
        let mut seen = ahash::AHashSet::new();
        let mut units = 0u64;
        let mut events = Vec::new();
        for order in orders {
            let is_known = self.orders.find(order.order).is_some();
            if is_known || !seen.insert(order.order) {
                continue;
            }
            if order.state != OrderState::Released {
                units += u64::from(order.quantity);
            }
            events.push(Event::Loaded {
                order: order.clone(),
            });
        }
        if units > self.head.available {
            return Err(StockError::Corrupt(format!(
                "INV-STOCK-1: the ledger's orders of {} need {units} units more, {} are left",
                self.head.spec.id, self.head.available
            )));
        }
        Ok(events)
    }

    pub(in crate::embedded) fn decide_finish(
        &self,
        epoch: u64,
        gate: Gate,
    ) -> Result<Event, StockError> {
        self.is_loading(epoch)?;
        Ok(Event::RebuildFinished { gate })
    }

    fn is_loading(&self, epoch: u64) -> Result<(), StockError> {
        if epoch < self.head.epoch {
            return Err(self.stale());
        }
        match self.head.phase == Phase::Loading && epoch == self.head.epoch {
            true => Ok(()),
            false => Err(StockError::Unavailable(format!(
                "no rebuild of {} has begun under epoch {epoch}",
                self.head.spec.id
            ))),
        }
    }

    fn stale(&self) -> StockError {
        StockError::StaleEpoch {
            segment: self.head.spec.id.clone(),
            current: self.head.epoch,
        }
    }

    /// Whether nothing can happen to it any more that needs its orders: the window and the time to pay are over for longer than
    /// `retain_ms`, every order is in the ledger, and none waits for its payment.
    pub(in crate::embedded) fn may_retire(&self, now_ms: u64, retain_ms: u64) -> bool {
        let head = &self.head;
        let over = head
            .spec
            .ends_at_ms
            .saturating_add(head.spec.pay_within_ms)
            .saturating_add(retain_ms);
        head.phase == Phase::Selling
            && now_ms >= over
            && self.queue.len() == 0
            && head.reserved == 0
    }
}

/// The moves of a rebuild by id, if they make sense together.
pub(in crate::embedded) fn beginning(
    spec: &SegmentSpec,
    epoch: u64,
    moves: &StockMoves,
) -> Result<Beginning, StockError> {
    let by_id = |moves: &[(String, u64)]| moves.iter().cloned().collect::<BTreeMap<_, _>>();
    let (restocks, withdrawals) = (by_id(&moves.restocks), by_id(&moves.withdrawals));
    let total = |moves: &BTreeMap<String, u64>| {
        moves
            .values()
            .try_fold(0u64, |sum, units| sum.checked_add(*units))
    };
    let fits = total(&restocks)
        .and_then(|units| units.checked_add(spec.stock))
        .zip(total(&withdrawals))
        .is_some_and(|(there, gone)| gone <= there);
    match fits {
        true => Ok(Beginning {
            spec: spec.clone(),
            epoch,
            restocks,
            withdrawals,
        }),
        false => Err(StockError::Corrupt(format!(
            "INV-STOCK-2: more units of {} were moved away than there ever were",
            spec.id
        ))),
    }
}
