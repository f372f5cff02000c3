//! Payment intents: what they are ([`Intent`]), how they may move ([`state`]), and the saga that moves them.
//!
//! Reading order: `state.rs` (pure), `repo.rs` and `charge.rs` (rows), `service.rs` (create, cancel, read), `confirm.rs` and `settle.rs`
//! (the saga's two transactions), `resolve.rs` (what they left open), `wire.rs` (Stripe's JSON).

pub mod state;

pub(crate) mod repo;

pub(crate) mod charge;

pub(crate) mod service;

pub(crate) mod confirm;

pub(crate) mod settle;

pub(crate) mod resolve;

pub(crate) mod charge_object;

pub(crate) mod method;

pub(crate) mod wire;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use self::state::Status;
use crate::money::Money;

/// The id of a payment intent, `pi_…`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IntentId(String);

/// The id of one charge of an intent, `ch_…`; also the reference its channel knows it by.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChargeId(String);

/// Longer than any id we make; what is longer or stranger is not looked up at all.
const MAX_ID: usize = 64;

macro_rules! id {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// What every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// The id as text, if it can be one: the prefix, then letters, digits and underscores.
            pub fn parse(text: &str) -> Option<Self> {
                let rest = text.strip_prefix($prefix)?;
                let plausible = !rest.is_empty()
                    && text.len() <= MAX_ID
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                plausible.then(|| Self(text.to_owned()))
            }

            /// An id this crate made or stored.
            pub(crate) fn trusted(text: String) -> Self {
                Self(text)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(IntentId, "pi_");
id!(ChargeId, "ch_");

/// One payment intent: somebody means to pay `amount`, and this is how far it got.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Its id.
    pub id: IntentId,
    /// What is to be paid.
    pub amount: Money,
    /// What was paid and kept, in ISO minor units.
    pub received_minor: i64,
    /// Where it is in its life.
    pub status: Status,
    /// The channel token that will be, or was, charged.
    pub payment_method: Option<String>,
    /// What it pays for: the metadata entry named in the configuration.
    pub reference: Option<String>,
    /// The merchant's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Fields kept only to be shown again.
    pub details: Details,
    /// Lets a browser confirm this intent and no other.
    pub client_secret: String,
    /// The last charge the channel decided.
    pub latest_charge: Option<ChargeId>,
    /// Why the last charge failed.
    pub last_error: Option<Decline>,
    /// Why it was canceled, in Stripe's words.
    pub cancellation_reason: Option<String>,
    /// When it was canceled.
    pub canceled_at_ms: Option<i64>,
    /// When it was made.
    pub created_ms: i64,
    /// Counts its changes; every update names the version it read.
    pub version: i64,
}

/// Fields of an intent that decide nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where a receipt would go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_email: Option<String>,
    /// What the buyer's statement says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_descriptor: Option<String>,
    /// Its variable end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_descriptor_suffix: Option<String>,
    /// `automatic` or `automatic_async`; money moves the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_method: Option<String>,
    /// `automatic` or `manual`: who is expected to confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation_method: Option<String>,
    /// `always` or `never`, if the caller wants the methods chosen for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatic_redirects: Option<String>,
}

/// Why a channel said no, kept on the intent as `last_payment_error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    /// Stripe's error code: `card_declined`, `expired_card`, `incorrect_cvc`, `processing_error`, `authentication_required`.
    pub code: String,
    /// The finer reason under `card_declined`.
    pub decline_code: Option<String>,
    /// One sentence for the buyer.
    pub message: String,
    /// The charge that was declined.
    pub charge: String,
    /// The token it was tried with.
    pub payment_method: String,
}
