//! Payment intents: what they are ([`Intent`]), how they may move (`state.rs`, pure), and their rows (`repo.rs`).
//!
//! Nothing here moves an intent by itself; that is the saga's work.

pub(crate) mod state;

pub(crate) mod repo;

mod error;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

pub(crate) use self::error::IntentError;
pub(crate) use self::state::Status;
use crate::{
    ids::{ChargeId, IdSource, IntentId},
    money::Money,
};

/// What a new intent is made of.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) amount: Money,
    pub(crate) payment_method: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) details: Details,
}

/// One payment intent: somebody means to pay `amount`, and this is how far it got.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub(crate) id: IntentId,
    /// What is to be paid.
    pub(crate) amount: Money,
    /// What was paid and kept.
    pub(crate) received: Money,
    pub(crate) status: Status,
    /// The channel token that will be, or was, charged.
    pub(crate) payment_method: Option<String>,
    /// What it pays for: the metadata entry named in the configuration.
    pub(crate) reference: Option<String>,
    /// The merchant's own notes.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Fields kept only to be shown again.
    pub(crate) details: Details,
    /// Lets a browser confirm this intent and no other.
    pub(crate) client_secret: String,
    /// The last charge the channel decided.
    pub(crate) latest_charge: Option<ChargeId>,
    /// Why the last charge failed.
    pub(crate) last_error: Option<Decline>,
    /// Why it was canceled, in Stripe's words.
    pub(crate) cancellation_reason: Option<String>,
    pub(crate) canceled_at_ms: Option<i64>,
    pub(crate) created_ms: i64,
    /// Counts its changes; every update names the version it read.
    pub(crate) version: i64,
}

/// Fields of an intent that decide nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Details {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Where a receipt would go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receipt_email: Option<String>,
    /// What the buyer's statement says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) statement_descriptor: Option<String>,
    /// Its variable end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) statement_descriptor_suffix: Option<String>,
    /// `automatic` or `automatic_async`; money moves the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capture_method: Option<String>,
    /// `automatic` or `manual`: who is expected to confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) confirmation_method: Option<String>,
    /// `always` or `never`, if the caller wants the methods chosen for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) automatic_redirects: Option<String>,
}

/// Why a channel said no, kept on the intent as `last_payment_error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decline {
    /// Stripe's error code: `card_declined`, `expired_card`, `incorrect_cvc`, `processing_error`, `authentication_required`.
    pub(crate) code: String,
    /// The finer reason under `card_declined`.
    pub(crate) decline_code: Option<String>,
    /// One sentence for the buyer.
    pub(crate) message: String,
    /// The charge that was declined.
    pub(crate) charge: String,
    /// The token it was tried with.
    pub(crate) payment_method: String,
}

impl Draft {
    /// The intent in its first state, not yet stored.
    pub(crate) fn intent(&self, ids: &IdSource, now_ms: i64) -> Intent {
        let id = IntentId::draw(ids, now_ms);
        Intent {
            client_secret: format!("{id}_secret_{}", ids.secret()),
            id,
            amount: self.amount,
            received: Money::zero(self.amount.currency()),
            status: match self.payment_method {
                Some(_) => Status::RequiresConfirmation,
                None => Status::RequiresPaymentMethod,
            },
            payment_method: self.payment_method.clone(),
            reference: self.reference.clone(),
            metadata: self.metadata.clone(),
            details: self.details.clone(),
            latest_charge: None,
            last_error: None,
            cancellation_reason: None,
            canceled_at_ms: None,
            created_ms: now_ms,
            version: 1,
        }
    }
}

impl Intent {
    /// A caller who names a secret must name this intent's. The API key let them in already, so it is no second lock: it keeps a shop
    /// that mixes two intents up from charging the wrong one.
    pub(crate) fn check_secret(&self, client_secret: Option<&str>) -> Result<(), IntentError> {
        match client_secret {
            Some(secret) if secret != self.client_secret => Err(IntentError::WrongSecret),
            _ => Ok(()),
        }
    }
}

/// The intent of an id that a caller named.
pub(crate) async fn existing(
    conn: &mut AnyConnection,
    id: &IntentId,
) -> Result<Intent, IntentError> {
    repo::find(conn, id)
        .await?
        .ok_or_else(|| IntentError::NoSuch { id: id.clone() })
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::money::Currency;

    /// 500 on the wire, which is five krónur: the two are easily mixed up.
    pub(crate) fn draft(payment_method: Option<&str>) -> Draft {
        let currency = Currency::from_code("isk").unwrap();
        Draft {
            amount: Money::from_wire(500, currency).unwrap(),
            payment_method: payment_method.map(str::to_owned),
            reference: None,
            metadata: BTreeMap::new(),
            details: Details::default(),
        }
    }

    pub(crate) fn intent(payment_method: Option<&str>) -> Intent {
        draft(payment_method).intent(&IdSource::new([1; 32]), 1_000)
    }

    pub(crate) fn decline() -> Decline {
        Decline {
            code: "expired_card".to_owned(),
            decline_code: None,
            message: "no".to_owned(),
            charge: "ch_1".to_owned(),
            payment_method: "pm_card_visa".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::draft, *};

    #[test]
    fn a_new_intent_waits_for_what_it_lacks() {
        let ids = IdSource::new([1; 32]);
        let bare = draft(None).intent(&ids, 1);
        assert_eq!(bare.status, Status::RequiresPaymentMethod);
        let ready = draft(Some("pm_card_visa")).intent(&ids, 1);
        assert_eq!(ready.status, Status::RequiresConfirmation);
        assert_eq!((ready.received.minor(), ready.version), (0, 1));
        assert_ne!(bare.id, ready.id);
    }

    #[test]
    fn a_secret_opens_its_own_intent_only() {
        let ids = IdSource::new([1; 32]);
        let (one, other) = (draft(None).intent(&ids, 1), draft(None).intent(&ids, 1));
        assert!(one.check_secret(None).is_ok());
        assert!(one.check_secret(Some(&one.client_secret)).is_ok());
        assert!(one.check_secret(Some(&other.client_secret)).is_err());
    }
}
