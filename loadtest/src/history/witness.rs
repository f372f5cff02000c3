//! The compact memory of a run: for every purchase what was sent and what was answered.
//!
//! Two bytes a purchase, plus the order ids of those that were answered with one. It is the witness that
//! `reconcile` sets against the order ledger, so it records only what the client saw, never what it concludes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// The request was put on the wire at least once.
const SENT: u16 = 1;
/// 201 or 200 with an order id came back.
const ACKNOWLEDGED: u16 = 1 << 1;
/// A definite refusal came back.
const REFUSED: u16 = 1 << 2;
/// Some copy of the request has no definite answer: timeout, broken connection, 5xx, 202, in flight.
const AMBIGUOUS: u16 = 1 << 3;
/// More than one copy was sent on purpose.
const REPEATED: u16 = 1 << 4;
/// A payment was attempted.
const PAY_SENT: u16 = 1 << 5;
/// The payment was answered as succeeded.
const PAY_OK: u16 = 1 << 6;
/// The payment was answered as declined.
const PAY_DECLINED: u16 = 1 << 7;
/// A payment request has no definite answer.
const PAY_AMBIGUOUS: u16 = 1 << 8;

/// What the client saw, per purchase (see [`crate::plan::Identities`] for the numbering).
#[derive(Clone, Debug, Default)]
pub struct History {
    flags: Vec<u16>,
    orders: HashMap<u32, Vec<Box<str>>>,
}

/// Totals of a [`History`], for the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistorySummary {
    /// Distinct purchases (request ids) sent at least once.
    pub purchases: u64,
    /// Purchases answered with an order id.
    pub acknowledged: u64,
    /// Purchases answered with refusals only.
    pub refused: u64,
    /// Purchases without a definite answer.
    pub ambiguous: u64,
    /// Purchases of which more than one copy was sent on purpose.
    pub repeated: u64,
    /// Orders a payment was attempted for.
    pub pay_attempted: u64,
    /// Payments answered as succeeded.
    pub paid: u64,
    /// Payments answered as declined.
    pub declined: u64,
}

impl History {
    /// An empty history of `purchases` purchases.
    pub fn new(purchases: u32) -> Self {
        History {
            flags: vec![0; purchases as usize],
            orders: HashMap::new(),
        }
    }

    /// Number of purchases the plan holds, sent or not.
    pub fn len(&self) -> u32 {
        self.flags.len() as u32
    }

    /// Whether the plan holds no purchase at all.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// A copy of the purchase goes out. `again` marks the copies sent on purpose after the first.
    pub fn note_sent(&mut self, purchase: u32, again: bool) {
        self.set(purchase, if again { SENT | REPEATED } else { SENT });
    }

    /// A copy of the purchase was answered, or will never be. Of a cart the answer names several orders, in the order of its lines.
    pub fn note_purchase<'a>(
        &mut self,
        purchase: u32,
        outcome: Outcome,
        orders: impl IntoIterator<Item = &'a str>,
    ) {
        match outcome {
            Outcome::Accepted | Outcome::Replayed => {
                self.set(purchase, ACKNOWLEDGED);
                for order in orders {
                    let ids = self.orders.entry(purchase).or_default();
                    // Bounded by the number of copies and lines; two entries for one line already are a finding.
                    if !ids.iter().any(|id| **id == *order) {
                        ids.push(order.into());
                    }
                }
            }
            Outcome::SoldOut
            | Outcome::BuyerLimit
            | Outcome::NotStarted
            | Outcome::Ended
            | Outcome::Limited
            | Outcome::Frozen
            | Outcome::ClientError => self.set(purchase, REFUSED),
            Outcome::Unknown
            | Outcome::InFlight
            | Outcome::ServerError
            | Outcome::Timeout
            | Outcome::ConnectError => self.set(purchase, AMBIGUOUS),
            // Never on the wire, or not an answer to a purchase.
            Outcome::Shed | Outcome::PageOk | Outcome::Paid | Outcome::Declined => {}
        }
    }

    /// A copy of the request broke off before its answer and is sent again.
    pub fn note_broken(&mut self, purchase: u32) {
        self.set(purchase, AMBIGUOUS);
    }

    /// A payment for the purchase's order goes out.
    pub fn note_pay_sent(&mut self, purchase: u32) {
        self.set(purchase, PAY_SENT);
    }

    /// A payment was answered, or will never be.
    pub fn note_pay(&mut self, purchase: u32, outcome: Outcome) {
        match outcome {
            Outcome::Paid => self.set(purchase, PAY_OK),
            Outcome::Declined => self.set(purchase, PAY_DECLINED),
            Outcome::Shed => {}
            // A refusal (4xx) of this attempt charged nothing, but an earlier attempt may have.
            Outcome::Limited | Outcome::ClientError => {}
            _ => self.set(purchase, PAY_AMBIGUOUS),
        }
    }

    /// Adds what another generator thread saw.
    pub fn merge(&mut self, other: History) {
        if self.flags.len() < other.flags.len() {
            self.flags.resize(other.flags.len(), 0);
        }
        for (mine, theirs) in self.flags.iter_mut().zip(&other.flags) {
            *mine |= theirs;
        }
        for (purchase, ids) in other.orders {
            let mine = self.orders.entry(purchase).or_default();
            for id in ids {
                if !mine.contains(&id) {
                    mine.push(id);
                }
            }
        }
    }

    /// The order ids the purchase was answered with, those of the first answer in the order of its lines; more than it has lines is a
    /// fault of the server.
    pub fn orders_of(&self, purchase: u32) -> &[Box<str>] {
        self.orders.get(&purchase).map_or(&[], Vec::as_slice)
    }

    /// Every purchase that was answered with an order id.
    pub fn acknowledged(&self) -> impl Iterator<Item = (u32, &[Box<str>])> {
        self.orders
            .iter()
            .map(|(purchase, ids)| (*purchase, ids.as_slice()))
    }

    /// Every copy of the purchase that was sent got a definite refusal (or none was sent).
    pub fn is_refused(&self, purchase: u32) -> bool {
        self.has(purchase, REFUSED) && !self.has(purchase, ACKNOWLEDGED | AMBIGUOUS)
    }

    /// At least one copy of the purchase went on the wire.
    pub fn is_sent(&self, purchase: u32) -> bool {
        self.has(purchase, SENT)
    }

    /// The client saw the payment of this purchase succeed.
    pub fn is_paid(&self, purchase: u32) -> bool {
        self.has(purchase, PAY_OK)
    }

    /// The ledger may rightly say "paid": a payment was sent, and its answer was not a decline only.
    pub fn may_be_paid(&self, purchase: u32) -> bool {
        self.has(purchase, PAY_OK | PAY_AMBIGUOUS)
            || (self.has(purchase, PAY_SENT) && !self.has(purchase, PAY_DECLINED))
    }

    /// Totals for the report.
    pub fn summary(&self) -> HistorySummary {
        let mut sum = HistorySummary::default();
        for (purchase, flags) in self.flags.iter().enumerate() {
            let has = |bit: u16| u64::from(flags & bit != 0);
            sum.purchases += has(SENT);
            sum.acknowledged += has(ACKNOWLEDGED);
            sum.refused += u64::from(self.is_refused(purchase as u32));
            sum.ambiguous += u64::from(flags & AMBIGUOUS != 0 && flags & ACKNOWLEDGED == 0);
            sum.repeated += has(REPEATED);
            sum.pay_attempted += has(PAY_SENT);
            sum.paid += has(PAY_OK);
            sum.declined += has(PAY_DECLINED);
        }
        sum
    }

    fn set(&mut self, purchase: u32, bits: u16) {
        if let Some(flags) = self.flags.get_mut(purchase as usize) {
            *flags |= bits;
        }
    }

    fn has(&self, purchase: u32, bits: u16) -> bool {
        self.flags
            .get(purchase as usize)
            .is_some_and(|flags| flags & bits != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_without_answer_makes_a_refusal_uncertain() {
        let mut history = History::new(2);
        history.note_sent(0, false);
        history.note_purchase(0, Outcome::SoldOut, None);
        assert!(history.is_refused(0));
        history.note_sent(0, true);
        history.note_purchase(0, Outcome::Timeout, None);
        assert!(!history.is_refused(0));
        assert_eq!(history.summary().ambiguous, 1);
    }

    #[test]
    fn the_same_order_twice_is_one_and_another_is_two() {
        let mut history = History::new(1);
        history.note_purchase(0, Outcome::Accepted, ["ord_a"]);
        history.note_purchase(0, Outcome::Replayed, ["ord_a"]);
        assert_eq!(history.orders_of(0).len(), 1);
        history.note_purchase(0, Outcome::Replayed, ["ord_b"]);
        assert_eq!(history.orders_of(0).len(), 2);
    }

    #[test]
    fn merging_threads_keeps_both_sides() {
        let mut one = History::new(2);
        one.note_sent(0, false);
        one.note_purchase(0, Outcome::Accepted, ["ord_a"]);
        let mut two = History::new(2);
        two.note_sent(1, false);
        two.note_purchase(1, Outcome::Accepted, ["ord_b"]);
        one.merge(two);
        assert_eq!(one.summary().acknowledged, 2);
        assert_eq!(one.acknowledged().count(), 2);
    }
}
