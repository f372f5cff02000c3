//! The one place where orders and money meet: the order ledger as a participant of a payment.
//!
//! Payment calls this inside its own SQL transaction, so "order paid" and "money posted" are written by one commit
//! (INV-PAY-3). The sale does not know payments, payments do not know sales.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use payment::{
    Currency, Money,
    participant::{Confirm, Hold, Participant, Readiness},
};
use seckill::{
    engine::{FoundOrder, SaleEngine},
    ids::OrderId,
    ledger::{self, LedgerError, LedgerOrder, NotPayable, Payment},
};
use sqlx::AnyConnection;

/// How long a payment waits for an order that is still on its way into the ledger; settlement takes milliseconds.
const SETTLE_WAIT: Duration = Duration::from_secs(3);

/// Orders, as payments see them.
pub struct Checkout {
    engine: Arc<SaleEngine>,
}

impl Checkout {
    /// Joins payments to this engine's orders.
    pub fn new(engine: Arc<SaleEngine>) -> Self {
        Self { engine }
    }
}

#[async_trait]
impl Participant for Checkout {
    async fn ready(&self, reference: &str) -> Readiness {
        let Ok(order) = reference.parse::<OrderId>() else {
            return Readiness::NotFound;
        };
        let amount = match self.engine.order(order).await {
            Ok(None) => return Readiness::NotFound,
            Ok(Some(FoundOrder::Settled(order))) => amount_of(&order),
            Ok(Some(FoundOrder::Accepted(..))) => {
                let ledger = self.engine.ledger();
                match ledger.once_settled(order, SETTLE_WAIT).await {
                    Some(order) => amount_of(&order),
                    None => return Readiness::NotYet,
                }
            }
            Err(error) => {
                tracing::warn!(%order, %error, "an order could not be read for its payment");
                return Readiness::NotYet;
            }
        };
        Readiness::Ready { amount }
    }

    async fn hold(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        now_ms: i64,
    ) -> Result<Hold, sqlx::Error> {
        let held = self
            .engine
            .ledger()
            .hold(conn, order(reference)?, intent, time(now_ms))
            .await;
        Ok(match held.map_err(sql)? {
            ledger::Hold::Held(_) => Hold::Held,
            ledger::Hold::NotPayable(NotPayable::PaidBy(_)) => Hold::AlreadyPaid,
            ledger::Hold::NotPayable(NotPayable::HeldBy(_)) => Hold::HeldByOther,
            ledger::Hold::NotPayable(
                NotPayable::Expired
                | NotPayable::Released
                | NotPayable::Refused
                | NotPayable::Unknown,
            ) => Hold::Released,
        })
    }

    async fn confirm(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        now_ms: i64,
    ) -> Result<Confirm, sqlx::Error> {
        let paid = self
            .engine
            .ledger()
            .mark_paid(conn, order(reference)?, intent, time(now_ms))
            .await;
        Ok(match paid.map_err(sql)? {
            Payment::Paid(_) | Payment::AlreadyPaid(_) => Confirm::Confirmed,
            Payment::NotPayable(_) => Confirm::Released,
        })
    }

    fn committed(&self) {
        self.engine.ledger().wake();
    }

    async fn cancel(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        _now_ms: i64,
    ) -> Result<(), sqlx::Error> {
        let dropped = self
            .engine
            .ledger()
            .drop_hold(conn, order(reference)?, intent)
            .await;
        dropped.map(drop).map_err(sql)
    }
}

/// Nothing if the sale's currency is not one that payments know: then the amount is the caller's.
fn amount_of(order: &LedgerOrder) -> Option<Money> {
    let currency = Currency::from_code(&order.currency)?;
    Money::try_new(order.amount_minor, currency).ok()
}

/// `ready` has parsed the same text before any transaction began.
fn order(reference: &str) -> Result<OrderId, sqlx::Error> {
    reference
        .parse()
        .map_err(|error| sqlx::Error::Protocol(format!("order {reference:?}: {error}")))
}

fn time(now_ms: i64) -> u64 {
    u64::try_from(now_ms).unwrap_or(0)
}

/// The transaction belongs to payment, so its errors go back in its terms.
fn sql(error: LedgerError) -> sqlx::Error {
    match error {
        LedgerError::Unavailable(error) | LedgerError::Invalid(error) => error,
        other => sqlx::Error::Protocol(other.to_string()),
    }
}
