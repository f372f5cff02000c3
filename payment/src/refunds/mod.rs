//! Money that goes back. A charge can have several refunds, each with an id of its own; of those that this service makes by itself, because
//! the money came after the order was released, it has one.

mod repo;

pub(crate) use self::repo::{claim, end, insert, put_off};
use crate::{
    channels::RefundRequest,
    charges::Charge,
    ids::{ChargeId, IdSource, IntentId, RefundId},
    ledger::{AccountId, Transfer, TransferId},
    money::Money,
};

#[derive(Clone, Debug)]
pub(crate) struct Refund {
    pub(crate) id: RefundId,
    pub(crate) charge: ChargeId,
    pub(crate) intent: IntentId,
    pub(crate) purpose: Purpose,
    /// Its move on the books.
    pub(crate) transfer: TransferId,
    /// The name of the channel that has the money.
    pub(crate) channel: String,
    pub(crate) payment_method: String,
    pub(crate) amount: Money,
    /// How often the channel was asked in vain.
    pub(crate) tries: i64,
}

/// Why money goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It came after its order was released. Once per charge, by the index `pay_refunds_late`.
    Late,
}

impl Purpose {
    const ALL: [Self; 1] = [Self::Late];

    /// As it is stored.
    fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == name)
    }
}

impl Refund {
    /// All of a charge, as it came too late.
    pub(crate) fn of_late(charge: &Charge, ids: &IdSource, now_ms: i64) -> Self {
        let id = RefundId::draw(ids, now_ms);
        Self {
            transfer: TransferId::refund(id.as_str()),
            id,
            charge: charge.id.clone(),
            intent: charge.intent.clone(),
            purpose: Purpose::Late,
            channel: charge.channel.clone(),
            payment_method: charge.payment_method.clone(),
            amount: charge.amount,
            tries: 0,
        }
    }

    /// What the channel is asked.
    pub(crate) fn request(&self) -> RefundRequest {
        RefundRequest {
            reference: self.id.as_str().to_owned(),
            charge: self.charge.as_str().to_owned(),
            amount: self.amount,
            payment_method: self.payment_method.clone(),
        }
    }

    /// The merchant's money on its way to the buyer.
    pub(crate) fn transfer(&self) -> Transfer {
        let currency = self.amount.currency();
        Transfer {
            id: self.transfer.clone(),
            debit: AccountId::merchant(self.intent.as_str(), currency),
            credit: AccountId::channel(&self.channel, currency),
            money: self.amount,
            reference: self.intent.as_str().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;

    #[test]
    fn a_refund_moves_its_charge_the_other_way_under_an_id_of_its_own() {
        let ids = IdSource::new([1; 32]);
        let charge = Charge {
            id: ChargeId::draw(&ids, 1),
            intent: IntentId::draw(&ids, 1),
            channel: "simulator".into(),
            payment_method: "pm_card_visa".into(),
            amount: Money::try_new(5, Currency::from_code("usd").unwrap()).unwrap(),
            idempotency_key: None,
            tries: 3,
        };
        let (one, two) = (
            Refund::of_late(&charge, &ids, 2),
            Refund::of_late(&charge, &ids, 2),
        );
        assert_ne!((&one.id, &one.transfer), (&two.id, &two.transfer));
        let (there, back) = (charge.transfer(), one.transfer());
        assert_eq!((back.debit, back.credit), (there.credit, there.debit));
        assert_eq!((back.money, one.tries), (there.money, 0));
        let asked = one.request();
        assert_eq!(asked.charge, charge.request().reference);
        assert_eq!(asked.reference, one.id.as_str());
    }

    #[test]
    fn purposes_round_trip() {
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::parse(purpose.as_str()), Some(purpose));
        }
        assert_eq!(Purpose::parse(""), None);
    }
}
