//! What a payment does to an order. Each call takes the caller's connection, so that order and money change in one transaction.
//!
//! Each is one guarded update that says by its row count who won; a racing expiry, cancellation or second payment finds the
//! status changed and gets told. After the commit call [`OrderLedger::wake`].

use sqlx::AnyConnection;

use super::{
    Action, LedgerError, LedgerOrder, OrderLedger, OrderStatus,
    outbox::{self, EventKind},
    query::query,
    rows::order_columns,
    store_tasks,
};
use crate::ids::OrderId;

/// Why an order cannot be paid by this intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPayable {
    /// The ledger has no such order (yet).
    Unknown,
    /// Another intent is paying it.
    HeldBy(String),
    /// Its time to pay is over.
    Expired,
    /// Another intent has paid it.
    PaidBy(String),
    /// Its units went back.
    Released,
    /// It never got units.
    Refused,
}

/// The answer to [`OrderLedger::hold`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// The order is this intent's now, or was before; it does not expire until it is paid or dropped.
    Held(Box<LedgerOrder>),
    /// It is not.
    NotPayable(NotPayable),
}

/// The answer to [`OrderLedger::mark_paid`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payment {
    /// The order is paid now.
    Paid(LedgerOrder),
    /// This intent had paid it before.
    AlreadyPaid(LedgerOrder),
    /// The money came for an order it cannot pay: refund it.
    NotPayable(NotPayable),
}

/// The answer to [`OrderLedger::drop_hold`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dropped {
    /// The order waits for another payment, or for its expiry.
    Dropped(Box<LedgerOrder>),
    /// This intent did not hold it; nothing changed.
    NotHeld,
}

const HOLD: &str = concat!(
    "UPDATE order_orders SET version = version + CASE status WHEN 'paying' THEN 0 ELSE 1 END, status = 'paying', intent = $2 \
     WHERE order_id = $1 AND ((status = 'reserved' AND pay_by_ms > $3) OR (status = 'paying' AND intent = $2)) RETURNING ",
    order_columns!()
);
const PAY: &str = concat!(
    "UPDATE order_orders SET status = 'paid', intent = $2, version = version + 1 WHERE order_id = $1 \
     AND (status = 'reserved' OR (status = 'paying' AND intent = $2)) RETURNING ",
    order_columns!()
);
const DROP: &str = concat!(
    "UPDATE order_orders SET status = 'reserved', intent = '', version = version + 1 \
     WHERE order_id = $1 AND status = 'paying' AND intent = $2 RETURNING ",
    order_columns!()
);
const READ: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM order_orders WHERE order_id = $1"
);

impl OrderLedger {
    /// A payment begins: the order is held for this intent and does not expire. Repeating it answers the same.
    pub async fn hold(
        &self,
        connection: &mut AnyConnection,
        order: OrderId,
        intent: &str,
        now_ms: u64,
    ) -> Result<Hold, LedgerError> {
        let held = query!(HOLD, order, intent, now_ms);
        if let Some(held) = held.first(&mut *connection).await? {
            self.shared.order_watch.touch([order]);
            return Ok(Hold::Held(Box::new(held)));
        }
        Ok(Hold::NotPayable(why_not(read(connection, order).await?)))
    }

    /// The money is there. Writes the event and the store's confirmation in the same transaction. An order still reserved is
    /// paid too, even past its time: its units are still there, and an expiry that comes later finds it paid.
    pub async fn mark_paid(
        &self,
        connection: &mut AnyConnection,
        order: OrderId,
        intent: &str,
        now_ms: u64,
    ) -> Result<Payment, LedgerError> {
        let paid = query!(PAY, order, intent);
        if let Some(paid) = paid.first::<LedgerOrder>(&mut *connection).await? {
            self.shared.order_watch.touch([order]);
            store_tasks::insert(connection, order, &paid.segment, Action::Confirm, now_ms).await?;
            if self.has_outbox {
                outbox::insert(connection, order, EventKind::Paid, now_ms).await?;
            }
            return Ok(Payment::Paid(paid));
        }
        Ok(match read(connection, order).await? {
            Some(known)
                if known.status == OrderStatus::Paid && known.intent.as_deref() == Some(intent) =>
            {
                Payment::AlreadyPaid(known)
            }
            known => Payment::NotPayable(why_not(known)),
        })
    }

    /// The payment came to nothing. The order can be paid by another intent until its time is over; if it is over already, the
    /// reaper takes it next.
    pub async fn drop_hold(
        &self,
        connection: &mut AnyConnection,
        order: OrderId,
        intent: &str,
    ) -> Result<Dropped, LedgerError> {
        let Some(dropped) = query!(DROP, order, intent).first(connection).await? else {
            return Ok(Dropped::NotHeld);
        };
        self.shared.order_watch.touch([order]);
        Ok(Dropped::Dropped(Box::new(dropped)))
    }
}

/// Reads one order.
pub(super) async fn read(
    connection: &mut AnyConnection,
    order: OrderId,
) -> Result<Option<LedgerOrder>, LedgerError> {
    query!(READ, order).first(connection).await
}

fn why_not(order: Option<LedgerOrder>) -> NotPayable {
    let Some(order) = order else {
        return NotPayable::Unknown;
    };
    match order.status {
        OrderStatus::Reserved => NotPayable::Expired,
        OrderStatus::Paying => NotPayable::HeldBy(order.intent.unwrap_or_default()),
        OrderStatus::Paid => NotPayable::PaidBy(order.intent.unwrap_or_default()),
        OrderStatus::Released => NotPayable::Released,
        OrderStatus::Refused => NotPayable::Refused,
    }
}
