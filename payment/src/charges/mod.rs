//! Charges: every try to take an intent's money, from before the channel is asked until its outcome is known.
//!
//! The row is the saga's log. It outlives the process that made it, and the resolver finishes what was left open.

mod repo;

pub(crate) use self::repo::{claim, count_unknown, doubt, end, insert};
use crate::{
    channels::ChargeRequest,
    ids::{ChargeId, IntentId},
    ledger::{AccountId, Transfer, TransferId},
    money::Money,
};

#[derive(Clone, Debug)]
pub(crate) struct Charge {
    pub(crate) id: ChargeId,
    pub(crate) intent: IntentId,
    /// The name of the channel that was asked, and that alone knows what became of it.
    pub(crate) channel: String,
    pub(crate) payment_method: String,
    pub(crate) amount: Money,
    /// The key whose answer this charge decides.
    pub(crate) idempotency_key: Option<String>,
    /// How often the channel was asked in vain.
    pub(crate) tries: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Succeeded,
    Failed,
}

impl Charge {
    /// What the channel is asked.
    pub(crate) fn request(&self) -> ChargeRequest {
        ChargeRequest {
            reference: self.id.as_str().to_owned(),
            amount: self.amount,
            payment_method: self.payment_method.clone(),
        }
    }

    /// The buyer's money on its way to the merchant.
    pub(crate) fn transfer(&self) -> Transfer {
        let currency = self.amount.currency();
        Transfer {
            id: TransferId::charge(self.id.as_str()),
            debit: AccountId::channel(&self.channel, currency),
            credit: AccountId::merchant(self.intent.as_str(), currency),
            money: self.amount,
            reference: self.intent.as_str().to_owned(),
        }
    }
}
