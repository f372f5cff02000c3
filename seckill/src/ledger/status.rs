//! The life of an order as one function. The guarded updates of the ledger are its image in SQL; a test compares the two.

use serde::{Deserialize, Serialize};
use stock::words;

words! {
    /// Where an order stands.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum OrderStatus {
        /// Units are held, money is awaited until `pay_by_ms`.
        Reserved = "reserved",
        /// A payment is under way; the order does not expire.
        Paying = "paying",
        /// Paid. Final.
        Paid = "paid",
        /// The units went back, unpaid or cancelled. Final.
        Released = "released",
        /// The store admitted it, the ledger had no unit left. Final.
        Refused = "refused",
    }
}

/// What may happen to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderEvent {
    /// A payment begins.
    Hold,
    /// The payment came to nothing.
    DropHold,
    /// The money is there.
    Pay,
    /// `pay_by_ms` has passed.
    Expire,
    /// The buyer wants it no longer.
    Cancel,
}

#[cfg(test)]
impl OrderEvent {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Hold,
        Self::DropHold,
        Self::Pay,
        Self::Expire,
        Self::Cancel,
    ];
}

impl OrderStatus {
    /// The status after an event; `Err` gives back the status that forbids it.
    pub fn after(self, event: OrderEvent) -> Result<Self, Self> {
        use OrderEvent as E;
        use OrderStatus as S;
        match (self, event) {
            (S::Reserved, E::Hold) => Ok(S::Paying),
            // Money that arrives without a hold while the units are still held pays the order: better than a refund.
            (S::Reserved | S::Paying, E::Pay) => Ok(S::Paid),
            (S::Paying, E::DropHold) => Ok(S::Reserved),
            (S::Reserved, E::Expire | E::Cancel) => Ok(S::Released),
            (S::Reserved, E::DropHold) => Err(self),
            (S::Paying, E::Hold | E::Expire | E::Cancel) => Err(self),
            (S::Paid | S::Released | S::Refused, _) => Err(self),
        }
    }

    /// Whether nothing can happen to it any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Paid | Self::Released | Self::Refused)
    }

    /// Whether its units are taken from the stock.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Reserved | Self::Paying | Self::Paid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_a_final_status() {
        for status in [
            OrderStatus::Paid,
            OrderStatus::Released,
            OrderStatus::Refused,
        ] {
            for event in OrderEvent::ALL {
                assert_eq!(status.after(event), Err(status), "{event:?}");
            }
        }
    }

    #[test]
    fn a_paying_order_neither_expires_nor_is_cancelled() {
        assert_eq!(
            OrderStatus::Paying.after(OrderEvent::Expire),
            Err(OrderStatus::Paying)
        );
        assert_eq!(
            OrderStatus::Paying.after(OrderEvent::Cancel),
            Err(OrderStatus::Paying)
        );
    }

    #[test]
    fn a_status_survives_its_text_form() {
        for status in OrderStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert!("lost".parse::<OrderStatus>().is_err());
    }
}
