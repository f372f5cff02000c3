//! What a payment pays for: the other half of the saga, joined inside the same SQL transactions.
//!
//! The gateway's checkout implements [`Participant`] over the order ledger. This crate calls it and knows nothing else of orders.

use async_trait::async_trait;
use sqlx::AnyConnection;

use crate::money::Money;

/// What a payment pays for (an order).
///
/// All calls but [`ready`](Participant::ready) run inside payment's SQL transaction, on its connection, and must write there only; a call
/// that refuses ([`Hold::Released`] and the like) must have written nothing. Rows of the order are locked before rows of payment.
#[async_trait]
pub trait Participant: Send + Sync {
    /// Outside any transaction: waits (bounded) until the reference is known to the order ledger.
    async fn ready(&self, reference: &str) -> Readiness;

    /// Keeps the order from being released while `intent` is being charged. Repeating it for the same intent is `Held`.
    async fn hold(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        now_ms: i64,
    ) -> Result<Hold, sqlx::Error>;

    /// The money is there: the order is paid, in the same transaction that posts the money.
    async fn confirm(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        now_ms: i64,
    ) -> Result<Confirm, sqlx::Error>;

    /// The transaction that called [`confirm`](Participant::confirm) has committed: waiting requests can be woken. May be missed
    /// after a crash, so nothing may depend on it.
    fn committed(&self) {}

    /// Drops the hold of `intent`, if it has one; the order may be paid by another try or run out.
    async fn cancel(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        now_ms: i64,
    ) -> Result<(), sqlx::Error>;
}

/// Why a request cannot be worked on because of what it pays for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The caller names an order that does not exist.
    #[error("no such order reference={reference}")]
    NoSuch { reference: String },
    /// The order is accepted but not in the ledger yet. The caller sends the request again in a moment.
    #[error("the order is not in the ledger yet")]
    NotReady,
    /// The caller's amount is not what the order costs.
    #[error("the amount is not the order's expected={expected}")]
    AmountMismatch { expected: Money },
    /// Another intent is being charged for the order. The caller sends the request again in a moment.
    #[error("another payment for the order is in progress")]
    Busy,
}

/// Whether the order ledger knows a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The order can be paid.
    Ready {
        /// What the order costs, if the participant knows; an intent over another amount is refused.
        amount: Option<Money>,
    },
    /// There is no such order and there will be none.
    NotFound,
    /// Accepted but not in the ledger yet; the client may try again.
    NotYet,
}

/// The answer to a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The order is held by this intent.
    Held,
    /// Its stock went back; it can no longer be paid.
    Released,
    /// It is paid, by whichever intent.
    AlreadyPaid,
    /// Another intent is being charged for it right now.
    HeldByOther,
}

/// The answer to a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// The order is paid by this intent.
    Confirmed,
    /// Too late, its stock went back: the money must be returned.
    Released,
}
