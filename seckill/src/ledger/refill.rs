//! Fills a ledger that has lost what it had committed (a failover to a standby that lagged, a restored copy) from the store.
//!
//! The store has every order whole, so what the ledger no longer has is settled again under its guard, by order id and in the
//! order in which it was accepted: nothing acknowledged is taken back (INV-ORDER-3). Only what the ledger itself refuses gives
//! its units back. An order that the store has as sold was paid once: only a committed payment tells the store so.

use super::{LedgerError, OrderLedger, OrderStatus, Payment, Settled, checkout};
use stock::{OrderState, StoredOrder};

use crate::ids::SegmentId;

/// What [`OrderLedger::refill`] did with one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refilled {
    /// The ledger knew all of it.
    Known,
    /// It was taken in again, under the guard.
    Settled(Settled),
    /// The ledger had the order unpaid; it is paid again.
    Paid,
}

impl OrderLedger {
    /// Takes in again what the store has of these orders of one segment and the ledger has not. Answers in their order.
    /// Repeating it changes nothing.
    pub async fn refill(
        &self,
        segment: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
        now_ms: u64,
    ) -> Result<Vec<Refilled>, LedgerError> {
        let known = self
            .statuses(orders.iter().map(|order| order.order))
            .await?;
        let missing: Vec<StoredOrder> = orders
            .iter()
            .filter(|order| !known.contains_key(&order.order))
            .cloned()
            .collect();
        let mut settled = self
            .settle(segment, epoch, &missing, now_ms)
            .await?
            .into_iter();
        let mut refilled = Vec::with_capacity(orders.len());
        for order in orders {
            refilled.push(match (order.state, known.get(&order.order)) {
                (_, None) => settled.next().map_or(Refilled::Known, Refilled::Settled),
                (OrderState::Sold, Some(OrderStatus::Reserved | OrderStatus::Paying)) => {
                    self.pay_again(order, now_ms).await?
                }
                _ => Refilled::Known,
            });
        }
        Ok(refilled)
    }

    async fn pay_again(&self, order: &StoredOrder, now_ms: u64) -> Result<Refilled, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let intent = checkout::read(&mut tx, order.order)
            .await?
            .and_then(|known| known.intent)
            .unwrap_or_default();
        let paid = self
            .mark_paid(&mut tx, order.order, &intent, now_ms)
            .await?;
        tx.commit().await?;
        self.wake();
        Ok(match paid {
            Payment::Paid(_) => Refilled::Paid,
            Payment::AlreadyPaid(_) | Payment::NotPayable(_) => Refilled::Known,
        })
    }
}
