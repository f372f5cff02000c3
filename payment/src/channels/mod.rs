//! Channels: services that can take a buyer's money. One trait and one file per channel, each behind a breaker and a deadline (`guarded.rs`),
//! found by its name (`registry.rs`).
//!
//! On the path: between the saga's two transactions, with no transaction open and no connection held.

pub mod simulator;

mod guarded;

mod registry;

mod error;

use std::borrow::Cow;

use async_trait::async_trait;

pub use self::registry::RegistryError;
pub(crate) use self::{error::ChannelError, guarded::Guarded, registry::Registry};
use crate::money::Money;

/// A provider that takes money for a token. Every repetition of a request carries the same reference.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Its name in rows, accounts and metrics: lower case, never changed once money went through it.
    fn name(&self) -> &'static str;

    /// Whether it can charge this token at all. Decides nothing about the outcome.
    fn accepts(&self, payment_method: &str) -> bool;

    /// Takes the money, at most once per reference.
    async fn charge(&self, request: &ChargeRequest) -> ChannelOutcome;

    /// Says what became of a charge. If the channel never saw it, it must first make sure that it never will (close the reference,
    /// so that a request still under way is refused) and then answer `Declined`; `Unknown` if it cannot say yet.
    async fn query(&self, request: &ChargeRequest) -> ChannelOutcome;

    /// Gives money of a charge back, at most once per reference. Repeating it is how one asks what became of it.
    async fn refund(&self, request: &RefundRequest) -> ChannelOutcome;
}

/// What a channel is asked to charge or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeRequest {
    /// The charge's id, unique for ever.
    pub reference: String,
    /// What the buyer pays.
    pub amount: Money,
    /// The channel's own token for a buyer's card or account. Never a card number.
    pub payment_method: String,
}

/// What a channel is asked to give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundRequest {
    /// The refund's id, unique for ever.
    pub reference: String,
    /// The reference of the charge whose money it is.
    pub charge: String,
    /// All of the charge or a part.
    pub amount: Money,
    /// What was charged.
    pub payment_method: String,
}

/// What a channel answered, or failed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelOutcome {
    /// The money moved.
    Succeeded,
    /// Refused; no money moved and none will.
    Declined(Refusal),
    /// No answer, or none that decides: money may have moved. Never treated as a failure.
    Unknown,
}

/// Why a channel refused, in Stripe's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stripe's error code, such as `card_declined`.
    pub code: Cow<'static, str>,
    /// The finer reason, such as `insufficient_funds`.
    pub decline_code: Option<Cow<'static, str>>,
    /// One sentence for the buyer.
    pub message: Cow<'static, str>,
}
