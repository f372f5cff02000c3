//! Where an order stands, as something that only moves forward (INV-ORDER-5): what a buyer is told never goes back.
//!
//! Two reads of one order may overtake each other on their way to the buyer, and the stock store lags behind the ledger. So the
//! ledger counts the changes of each order, and of two readings the one with the higher count is the later one.

use super::OrderStatus;
use stock::OrderState;

/// The status of an order, and how many statuses it has had. A payment that fails leads from `paying` back to `reserved`: that
/// is a later standing with an earlier word, and told as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// 1 for an order as it was accepted, one more for each change.
    pub version: u64,
    /// The word for it.
    pub status: OrderStatus,
}

impl Standing {
    /// The standing of an order that the store has and the ledger has not. An order arrives in the ledger as `reserved` under
    /// version 1 and as anything else under version 2, so the two never contradict each other.
    pub fn in_store(state: OrderState) -> Self {
        let (version, status) = match state {
            OrderState::Reserved => (1, OrderStatus::Reserved),
            OrderState::Sold => (2, OrderStatus::Paid),
            OrderState::Released => (2, OrderStatus::Released),
        };
        Self { version, status }
    }

    /// Whether this is later than `other`. Nothing is later than a final status.
    pub fn is_after(self, other: Self) -> bool {
        !other.status.is_final()
            && (self.version, self.status.is_final()) > (other.version, other.status.is_final())
    }

    /// The later of two.
    pub fn latest(self, other: Self) -> Self {
        if other.is_after(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::OrderEvent;

    /// Every standing an order has in turn, as the ledger counts them.
    fn history(events: &[usize]) -> Vec<Standing> {
        let mut now = Standing::in_store(OrderState::Reserved);
        let mut all = vec![now];
        for event in events {
            if let Ok(status) = now
                .status
                .after(OrderEvent::ALL[event % OrderEvent::ALL.len()])
            {
                now = Standing {
                    version: now.version + 1,
                    status,
                };
                all.push(now);
            }
        }
        all
    }

    proptest! {
        // INV-ORDER-5. Readings of any age, in any order: what is told is a walk forward along the order's own history.
        #[test]
        fn what_is_told_never_goes_back(
            events in prop::collection::vec(0usize..5, 0..12),
            readings in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        ) {
            let history = history(&events);
            let mut told = history[0];
            let mut at = 0;
            for reading in readings {
                let read = reading.index(history.len());
                let next = told.latest(history[read]);
                at = at.max(read);
                prop_assert_eq!(next, history[at]);
                prop_assert!(!told.status.is_final() || next == told);
                told = next;
            }
        }

        #[test]
        fn of_two_standings_exactly_one_is_after_unless_they_are_one(
            events in prop::collection::vec(0usize..5, 1..12),
            a in any::<prop::sample::Index>(),
            b in any::<prop::sample::Index>(),
        ) {
            let history = history(&events);
            let (a, b) = (history[a.index(history.len())], history[b.index(history.len())]);
            prop_assert_eq!(a.is_after(b) as u8 + b.is_after(a) as u8, u8::from(a != b));
        }
    }

    #[test]
    fn the_store_never_says_more_than_the_first_word_of_a_live_order() {
        let reserved = Standing::in_store(OrderState::Reserved);
        for state in [OrderState::Sold, OrderState::Released] {
            assert!(Standing::in_store(state).is_after(reserved));
            assert!(Standing::in_store(state).status.is_final());
        }
    }
}
