//! The life of an intent as one pure function. Nothing else decides whether an intent may move.
//!
//! ```text
//! requires_payment_method ─attach─► requires_confirmation ─confirm─► processing ─charge succeeded─► succeeded
//!            ▲                                                        │   │
//!            └───────────────────charge declined──────────────────────┘   └─order released first─► canceled
//! ```
//! A channel that does not answer moves nothing: the intent stays `processing` until the channel has said what happened.

use std::fmt;

/// Where an intent is. The names on the wire are Stripe's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    /// No token to charge, or the last one was declined.
    RequiresPaymentMethod,
    /// A token is attached; nobody has said go.
    RequiresConfirmation,
    /// A channel is being asked, or has been and did not answer.
    Processing,
    /// Paid. Final.
    Succeeded,
    /// Given up, no money kept. Final.
    Canceled,
}

/// What happens to an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// A token was named.
    Attach,
    /// The charge begins.
    Confirm,
    /// The channel took the money and the order is ours.
    ChargeSucceeded,
    /// The channel refused, or never saw the charge and never will.
    ChargeDeclined,
    /// The channel took the money, but the order was released meanwhile: the money goes back.
    ChargeLate,
    /// The merchant gives up.
    Cancel,
}

/// An event that may not happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is refused in status {state}")]
pub(crate) struct Refused {
    pub(crate) state: Status,
    pub(crate) event: Event,
}

/// The next state, or why there is none.
pub(crate) fn next(state: Status, event: Event) -> Result<Status, Refused> {
    use Event::*;
    use Status::*;
    match (state, event) {
        (RequiresPaymentMethod | RequiresConfirmation, Attach) => Ok(RequiresConfirmation),
        (RequiresConfirmation, Confirm) => Ok(Processing),
        (RequiresPaymentMethod | RequiresConfirmation, Cancel) => Ok(Canceled),
        (Processing, ChargeSucceeded) => Ok(Succeeded),
        (Processing, ChargeDeclined) => Ok(RequiresPaymentMethod),
        (Processing, ChargeLate) => Ok(Canceled),

        // Nothing to charge yet.
        (RequiresPaymentMethod, Confirm)
        // No charge was asked for, so none can have an outcome.
        | (RequiresPaymentMethod | RequiresConfirmation, ChargeSucceeded | ChargeDeclined | ChargeLate)
        // Money may be moving: it is neither asked for twice nor forgotten.
        | (Processing, Attach | Confirm | Cancel)
        // Final.
        | (Succeeded | Canceled, _) => Err(Refused { state, event }),
    }
}

impl Status {
    pub(crate) const ALL: [Self; 5] = [
        Self::RequiresPaymentMethod,
        Self::RequiresConfirmation,
        Self::Processing,
        Self::Succeeded,
        Self::Canceled,
    ];

    /// Stripe's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }

    /// The status of a stored name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether nothing can happen to the intent any more.
    #[cfg(test)]
    fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Canceled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Event::*, Status::*, *};

    const EVENTS: [Event; 6] = [
        Attach,
        Confirm,
        ChargeSucceeded,
        ChargeDeclined,
        ChargeLate,
        Cancel,
    ];

    /// The whole table: whatever is not listed is refused.
    const MOVES: [(Status, Event, Status); 8] = [
        (RequiresPaymentMethod, Attach, RequiresConfirmation),
        (RequiresPaymentMethod, Cancel, Canceled),
        (RequiresConfirmation, Attach, RequiresConfirmation),
        (RequiresConfirmation, Confirm, Processing),
        (RequiresConfirmation, Cancel, Canceled),
        (Processing, ChargeSucceeded, Succeeded),
        (Processing, ChargeDeclined, RequiresPaymentMethod),
        (Processing, ChargeLate, Canceled),
    ];

    #[test]
    fn the_table_is_exactly_the_moves_listed() {
        for state in Status::ALL {
            for event in EVENTS {
                let expected = MOVES
                    .iter()
                    .find(|(from, on, _)| (*from, *on) == (state, event))
                    .map(|(_, _, to)| *to)
                    .ok_or(Refused { state, event });
                assert_eq!(next(state, event), expected, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn final_states_refuse_everything() {
        for state in Status::ALL.into_iter().filter(|s| s.is_final()) {
            assert!(EVENTS.iter().all(|event| next(state, *event).is_err()));
        }
    }

    #[test]
    fn names_round_trip() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("requires_capture"), None);
    }
}
