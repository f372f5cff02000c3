//! Money that goes back. Today one kind: a charge that succeeded after its order was released is refunded whole, once.

mod repo;

pub(crate) use self::repo::{claim, end, insert, put_off};
use crate::{
    channels::ChargeRequest,
    charges::Charge,
    ids::{ChargeId, IntentId},
    ledger::{AccountId, Transfer, TransferId},
    money::Money,
};

#[derive(Clone, Debug)]
pub(crate) struct Refund {
    pub(crate) charge: ChargeId,
    pub(crate) intent: IntentId,
    /// The name of the channel that has the money.
    pub(crate) channel: String,
    pub(crate) payment_method: String,
    pub(crate) amount: Money,
    /// How often the channel was asked in vain.
    pub(crate) tries: i64,
}

impl Refund {
    /// All of a charge, as it came too late.
    pub(crate) fn of_late(charge: &Charge) -> Self {
        Self {
            charge: charge.id.clone(),
            intent: charge.intent.clone(),
            channel: charge.channel.clone(),
            payment_method: charge.payment_method.clone(),
            amount: charge.amount,
            tries: 0,
        }
    }

    /// What the channel is asked.
    pub(crate) fn request(&self) -> ChargeRequest {
        ChargeRequest {
            reference: self.charge.as_str().to_owned(),
            amount: self.amount,
            payment_method: self.payment_method.clone(),
        }
    }

    /// The merchant's money on its way to the buyer.
    pub(crate) fn transfer(&self) -> Transfer {
        let currency = self.amount.currency();
        Transfer {
            id: TransferId::refund(self.charge.as_str()),
            debit: AccountId::merchant(self.intent.as_str(), currency),
            credit: AccountId::channel(&self.channel, currency),
            money: self.amount,
            reference: self.intent.as_str().to_owned(),
        }
    }
}
