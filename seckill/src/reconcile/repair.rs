//! Mends what the comparison of store and ledger can mend, order by order and by position in the queue, never by time.
//!
//! An entry before the first unacknowledged one was acknowledged, and that happens only after its order was committed to the
//! ledger. So an order at such a position that the ledger does not have was lost by the ledger: a standby that lagged took over,
//! or a copy was restored. Its buyer holds a 201, so it is settled again ([`OrderLedger::refill`]); its units go back only if
//! the ledger refuses it. Where the store may have *more* to sell than there is, nothing is counted up or down here: the segment
//! is frozen, and [`crate::rebuild`] rebuilds it from the ledger. A second run over the same state changes nothing.
//!
//! [`OrderLedger::refill`]: crate::ledger::OrderLedger::refill

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use stock::{Gate, Lookup, OrderState, Position, StoredOrder};

use super::{ReconcileError, Reconciler};
use crate::{
    ids::{OrderId, SegmentId},
    ledger::{Action, DeadLetter, LedgerError, OrderStatus, Refilled, Settled},
    sale::Sale,
};

/// Orders compared at once.
const PAGE: usize = 512;

/// What was mended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repairs {
    /// Orders that the ledger had lost, settled or paid again as the store has them.
    pub settled_again: Vec<OrderId>,
    /// Orders that only the store had and the ledger refuses: their units go back.
    pub refused: Vec<OrderId>,
    /// Orders whose fate the store is told again.
    pub told_again: Vec<OrderId>,
    /// Segments that might have sold more than there is, with the reason.
    pub frozen: Vec<FrozenSegment>,
}

/// A segment that was frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FrozenSegment {
    /// Which.
    #[serde(serialize_with = "as_text")]
    pub segment: SegmentId,
    /// Why.
    pub reason: String,
}

fn as_text<S: serde::Serializer>(segment: &SegmentId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(segment)
}

impl Repairs {
    /// Whether nothing had to be mended.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What must be done about one order of the store, given what the ledger says of it. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mend {
    Nothing,
    /// The ledger has lost the order, or its payment.
    Refill,
    /// The store has not heard what the ledger decided.
    Resend(Action),
    /// Both may give the same units away.
    Freeze(&'static str),
}

fn mend(in_store: OrderState, in_ledger: Option<OrderStatus>) -> Mend {
    use OrderState as S;
    use OrderStatus as L;
    match (in_store, in_ledger) {
        (S::Reserved | S::Sold, None) | (S::Sold, Some(L::Reserved | L::Paying)) => Mend::Refill,
        (S::Released, None) => Mend::Nothing,
        (S::Reserved, Some(L::Reserved | L::Paying)) => Mend::Nothing,
        (S::Reserved, Some(L::Paid)) => Mend::Resend(Action::Confirm),
        (S::Reserved, Some(L::Released | L::Refused)) => Mend::Resend(Action::Release),
        (S::Sold, Some(L::Paid)) => Mend::Nothing,
        (S::Sold, Some(_)) => {
            Mend::Freeze("an order is sold in the store and returned in the ledger")
        }
        (S::Released, Some(L::Released | L::Refused)) => Mend::Nothing,
        (S::Released, Some(L::Reserved | L::Paying | L::Paid)) => {
            Mend::Freeze("an order is returned in the store and lives in the ledger")
        }
    }
}

impl Reconciler {
    /// Compares one sale order by order and mends what can be mended.
    pub async fn repair(&self, sale: &Sale, now_ms: u64) -> Result<Repairs, ReconcileError> {
        let mut repairs = Repairs::default();
        for spec in sale.segment_specs() {
            let reason = self.mend_segment(&spec.id, now_ms, &mut repairs).await?;
            if let Some(reason) = reason {
                self.freeze(&spec.id, reason, &mut repairs).await?;
            }
        }
        if !repairs.is_empty() {
            tracing::warn!(
                sale = %sale.id,
                settled_again = repairs.settled_again.len(),
                refused = repairs.refused.len(),
                told_again = repairs.told_again.len(),
                frozen = repairs.frozen.len(),
                "sale mended"
            );
        }
        Ok(repairs)
    }

    /// `Some` with the reason if the segment must not go on selling.
    async fn mend_segment(
        &self,
        segment: &SegmentId,
        now_ms: u64,
        repairs: &mut Repairs,
    ) -> Result<Option<String>, ReconcileError> {
        // The ledger first: an order enters the store before the ledger, so the store can only have more.
        let recorded = self.ledger.taken_count(segment).await?;
        let counts = self.store.snapshot(segment).await?;
        if counts.gate == Gate::Frozen {
            return Ok(None);
        }
        if recorded > counts.accepted {
            let accepted = counts.accepted;
            return Ok(Some(format!(
                "{recorded} orders recorded, only {accepted} accepted"
            )));
        }
        // Read before the orders: what is acknowledged later is looked at in the next run.
        let first_open = self
            .store
            .unsettled(segment, Position::default(), 1)
            .await?
            .first()
            .map(|(position, _)| *position);
        let set_aside = self.ledger.set_aside_in(segment).await?;
        let mut after = Position::default();
        loop {
            let page = self.store.accepted_after(segment, after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(None);
            };
            after = *last;
            let is_closed = |position: &Position| first_open.is_none_or(|open| *position < open);
            let closed: Vec<&(Position, StoredOrder)> = page
                .iter()
                .filter(|(position, order)| {
                    is_closed(position)
                        && !set_aside.contains(&position.to_string())
                        && !set_aside.contains(&order.order.to_string())
                })
                .collect();
            if let Some(reason) = self
                .mend_page(segment, counts.epoch, &closed, now_ms, repairs)
                .await?
            {
                return Ok(Some(reason));
            }
            if first_open.is_some_and(|open| after >= open) {
                return Ok(None);
            }
        }
    }

    async fn mend_page(
        &self,
        segment: &SegmentId,
        epoch: u64,
        page: &[&(Position, StoredOrder)],
        now_ms: u64,
        repairs: &mut Repairs,
    ) -> Result<Option<String>, ReconcileError> {
        let ids = page.iter().map(|(_, order)| order.order);
        let statuses: HashMap<OrderId, OrderStatus> = self.ledger.statuses(ids).await?;
        let pending: HashSet<OrderId> = self.ledger.with_effects(segment).await?;
        let mut lost = Vec::new();
        for entry in page {
            let (_, order) = entry;
            if pending.contains(&order.order) {
                continue;
            }
            match mend(order.state, statuses.get(&order.order).copied()) {
                Mend::Nothing => {}
                Mend::Refill => lost.push(*entry),
                Mend::Resend(action) => {
                    // The effect may have been carried out since the page was read.
                    let lookup = Lookup::Order(order.order);
                    let now = self.store.find(segment, &lookup).await?;
                    if now.is_none_or(|now| now.state != order.state) {
                        continue;
                    }
                    self.ledger
                        .tell_again(order.order, segment, action, now_ms)
                        .await?;
                    repairs.told_again.push(order.order);
                }
                Mend::Freeze(reason) => return Ok(Some(format!("{reason}: {}", order.order))),
            }
        }
        self.refill(segment, epoch, &lost, now_ms, repairs).await?;
        Ok(None)
    }

    /// Fills the ledger again with what only the store has, together and, if one of them stands in the way, one by one.
    async fn refill(
        &self,
        segment: &SegmentId,
        epoch: u64,
        lost: &[&(Position, StoredOrder)],
        now_ms: u64,
        repairs: &mut Repairs,
    ) -> Result<(), ReconcileError> {
        let orders: Vec<StoredOrder> = lost.iter().map(|(_, order)| order.clone()).collect();
        let together = self.ledger.refill(segment, epoch, &orders, now_ms).await;
        let outcomes = match together {
            Err(error) if error.is_about_one_order() || error.may_be_about_one_order() => {
                self.refill_alone(segment, epoch, lost, now_ms).await?
            }
            // The segment is being rebuilt, and the rebuild fills the ledger itself.
            Err(LedgerError::StaleEpoch { .. }) => return Ok(()),
            together => together?,
        };
        for (order, outcome) in orders.iter().zip(outcomes) {
            match outcome {
                Refilled::Known | Refilled::Settled(Settled::Duplicate) => {}
                Refilled::Paid | Refilled::Settled(Settled::Settled) => {
                    repairs.settled_again.push(order.order);
                }
                Refilled::Settled(Settled::Refused | Settled::SecondOrder) => {
                    repairs.refused.push(order.order);
                }
            }
        }
        Ok(())
    }

    /// One order at a time. What the ledger refuses for its own sake is set aside; so is what the database fails for no known reason, if
    /// it takes any other.
    async fn refill_alone(
        &self,
        segment: &SegmentId,
        epoch: u64,
        lost: &[&(Position, StoredOrder)],
        now_ms: u64,
    ) -> Result<Vec<Refilled>, ReconcileError> {
        let mut outcomes = Vec::with_capacity(lost.len());
        let (mut letters, mut suspects) = (Vec::new(), Vec::new());
        for (position, order) in lost {
            let one = std::slice::from_ref(order);
            let letter = |error: &LedgerError| {
                let (segment, position) = (segment.clone(), position.to_string());
                DeadLetter::of_order(segment, position, order, error.to_string())
            };
            match self.ledger.refill(segment, epoch, one, now_ms).await {
                Ok(refilled) => {
                    outcomes.extend(refilled);
                    continue;
                }
                Err(error) if error.is_about_one_order() => letters.push(letter(&error)),
                Err(error) if error.may_be_about_one_order() => {
                    suspects.push((letter(&error), error));
                }
                Err(error) => return Err(error.into()),
            }
            outcomes.push(Refilled::Known);
        }
        if suspects.len() == lost.len() {
            return Err(suspects.swap_remove(0).1.into());
        }
        letters.extend(suspects.into_iter().map(|(letter, _)| letter));
        if !letters.is_empty() {
            self.ledger.set_aside(&letters, now_ms).await?;
            tracing::error!(%segment, entries = letters.len(), "entries set aside");
        }
        Ok(outcomes)
    }

    async fn freeze(
        &self,
        segment: &SegmentId,
        reason: String,
        repairs: &mut Repairs,
    ) -> Result<(), ReconcileError> {
        tracing::error!(%segment, reason, "oversell suspected; segment frozen");
        self.store.set_gate(segment, Gate::Frozen).await?;
        repairs.frozen.push(FrozenSegment {
            segment: segment.clone(),
            reason,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ever_counted_up_where_the_ledger_has_a_live_order() {
        for status in OrderStatus::ALL
            .into_iter()
            .filter(|status| status.is_live())
        {
            for state in [OrderState::Reserved, OrderState::Sold, OrderState::Released] {
                let mend = mend(state, Some(status));
                assert!(
                    !matches!(mend, Mend::Resend(Action::Release)),
                    "{state:?} {status:?}: {mend:?}"
                );
            }
        }
    }

    /// INV-ORDER-3, also when the ledger goes back in time.
    #[test]
    fn what_the_ledger_does_not_know_is_settled_again_and_never_returned() {
        for state in [OrderState::Reserved, OrderState::Sold] {
            assert_eq!(mend(state, None), Mend::Refill);
        }
        assert_eq!(mend(OrderState::Released, None), Mend::Nothing);
    }

    #[test]
    fn a_payment_that_the_ledger_lost_is_taken_from_the_store() {
        for status in [OrderStatus::Reserved, OrderStatus::Paying] {
            assert_eq!(mend(OrderState::Sold, Some(status)), Mend::Refill);
        }
    }
}
