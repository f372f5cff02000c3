//! What the clients of a run sent and were answered: two bytes a purchase, and the ids of the orders they were told of.
//!
//! It is small and has no times, so every run keeps it. [`crate::reconcile()`] makes a history of it and has the oracle judge it.

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

/// What the clients saw, per purchase (see [`crate::plan::Identities`] for the numbering).
#[derive(Clone, Debug, Default)]
pub struct ClientLog {
    flags: Vec<u16>,
    orders: HashMap<u32, Vec<NamedOrder>>,
}

/// An order that an answer named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedOrder {
    /// Which line of the cart it is for; 0 for a purchase of one sku, `u8::MAX` for what was not asked for.
    pub line: u8,
    pub id: Box<str>,
}

/// Totals of a [`ClientLog`], for the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientSummary {
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

impl ClientLog {
    /// An empty log of `purchases` purchases.
    pub fn new(purchases: u32) -> Self {
        ClientLog {
            flags: vec![0; purchases as usize],
            orders: HashMap::new(),
        }
    }

    /// The purchases of which at least one copy went on the wire.
    pub fn sent(&self) -> impl Iterator<Item = u32> {
        (0..self.flags.len() as u32).filter(|purchase| self.is_sent(*purchase))
    }

    /// A copy of the purchase goes out. `again` marks the copies sent on purpose after the first.
    pub fn note_sent(&mut self, purchase: u32, again: bool) {
        self.set(purchase, if again { SENT | REPEATED } else { SENT });
    }

    /// A copy of the purchase was answered, or will never be. `orders` are those that the answer names, with their lines.
    pub fn note_purchase<'a>(
        &mut self,
        purchase: u32,
        outcome: Outcome,
        orders: impl IntoIterator<Item = (u8, &'a str)>,
    ) {
        match outcome {
            Outcome::Accepted | Outcome::Replayed => {
                self.set(purchase, ACKNOWLEDGED);
                for (line, id) in orders {
                    let named = self.orders.entry(purchase).or_default();
                    // Bounded by the number of copies and lines; two entries for one line already are a finding.
                    if !named
                        .iter()
                        .any(|known| known.line == line && *known.id == *id)
                    {
                        named.push(NamedOrder {
                            line,
                            id: id.into(),
                        });
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
    pub fn merge(&mut self, other: ClientLog) {
        if self.flags.len() < other.flags.len() {
            self.flags.resize(other.flags.len(), 0);
        }
        for (mine, theirs) in self.flags.iter_mut().zip(&other.flags) {
            *mine |= theirs;
        }
        for (purchase, theirs) in other.orders {
            let mine = self.orders.entry(purchase).or_default();
            for order in theirs {
                if !mine.contains(&order) {
                    mine.push(order);
                }
            }
        }
    }

    /// The orders that the purchase was answered with; two of one line are a fault of the server.
    pub fn orders_of(&self, purchase: u32) -> &[NamedOrder] {
        self.orders.get(&purchase).map_or(&[], Vec::as_slice)
    }

    /// The order that the purchase was answered with first.
    pub fn first_order(&self, purchase: u32) -> Option<&str> {
        self.orders_of(purchase).first().map(|order| &*order.id)
    }

    /// At least one copy of the purchase was refused for certain.
    pub fn has_refusal(&self, purchase: u32) -> bool {
        self.has(purchase, REFUSED)
    }

    /// Nobody knows what became of some copy of the purchase.
    pub fn has_unknown(&self, purchase: u32) -> bool {
        self.has(purchase, AMBIGUOUS) || !self.has(purchase, ACKNOWLEDGED | REFUSED)
    }

    /// At least one copy of the purchase went on the wire.
    pub fn is_sent(&self, purchase: u32) -> bool {
        self.has(purchase, SENT)
    }

    /// The client saw the payment of this purchase succeed.
    pub fn is_paid(&self, purchase: u32) -> bool {
        self.has(purchase, PAY_OK)
    }

    /// A payment for the purchase's order went out.
    pub fn is_pay_sent(&self, purchase: u32) -> bool {
        self.has(purchase, PAY_SENT)
    }

    /// Nobody knows what became of some payment: its answer was not a decline only.
    pub fn has_unknown_payment(&self, purchase: u32) -> bool {
        self.has(purchase, PAY_AMBIGUOUS) || !self.has(purchase, PAY_OK | PAY_DECLINED)
    }

    /// Totals for the report.
    pub fn summary(&self) -> ClientSummary {
        let mut sum = ClientSummary::default();
        for flags in &self.flags {
            let has = |bit: u16| u64::from(flags & bit != 0);
            sum.purchases += has(SENT);
            sum.acknowledged += has(ACKNOWLEDGED);
            sum.refused +=
                u64::from(flags & REFUSED != 0 && flags & (ACKNOWLEDGED | AMBIGUOUS) == 0);
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
        let mut log = ClientLog::new(2);
        log.note_sent(0, false);
        log.note_purchase(0, Outcome::SoldOut, None);
        assert_eq!((log.summary().refused, log.has_unknown(0)), (1, false));
        log.note_sent(0, true);
        log.note_purchase(0, Outcome::Timeout, None);
        assert_eq!((log.summary().refused, log.has_unknown(0)), (0, true));
        assert_eq!(log.summary().ambiguous, 1);
    }

    #[test]
    fn the_same_order_twice_is_one_and_another_is_two() {
        let mut log = ClientLog::new(1);
        log.note_purchase(0, Outcome::Accepted, [(0, "ord_a")]);
        log.note_purchase(0, Outcome::Replayed, [(0, "ord_a")]);
        assert_eq!(log.orders_of(0).len(), 1);
        log.note_purchase(0, Outcome::Replayed, [(0, "ord_b")]);
        assert_eq!(log.orders_of(0).len(), 2);
    }

    #[test]
    fn merging_threads_keeps_both_sides() {
        let mut one = ClientLog::new(2);
        one.note_sent(0, false);
        one.note_purchase(0, Outcome::Accepted, [(0, "ord_a")]);
        let mut two = ClientLog::new(2);
        two.note_sent(1, false);
        two.note_purchase(1, Outcome::Accepted, [(0, "ord_b")]);
        one.merge(two);
        assert_eq!(one.summary().acknowledged, 2);
        assert_eq!(one.first_order(1), Some("ord_b"));
    }
}
