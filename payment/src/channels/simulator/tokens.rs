//! Stripe's test tokens, and what each of them does.

use std::borrow::Cow;

use super::super::Refusal;

/// What becomes of a charge.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    Succeeds,
    Declined(&'static Refusal),
    /// The money is taken; nobody hears of it.
    AnswerLost,
    /// The request never arrived.
    RequestLost,
}

pub(super) enum Token {
    /// The percentages decide.
    Works,
    Fixed(Fate),
}

/// Stripe's test tokens, and two of ours for a channel that does not answer.
pub(super) fn token(payment_method: &str) -> Option<Token> {
    let name = payment_method.strip_prefix("pm_card_")?;
    let fixed = |fate| Some(Token::Fixed(fate));
    match name.strip_prefix("visa_").unwrap_or(name) {
        "visa" | "debit" | "mastercard" | "mastercard_debit" | "amex" | "discover" | "diners"
        | "jcb" | "unionpay" => Some(Token::Works),
        "chargeDeclined" => fixed(Fate::Declined(&GENERIC)),
        "chargeDeclinedInsufficientFunds" => fixed(Fate::Declined(&INSUFFICIENT_FUNDS)),
        "chargeDeclinedLostCard" => fixed(Fate::Declined(&LOST)),
        "chargeDeclinedStolenCard" => fixed(Fate::Declined(&STOLEN)),
        "chargeDeclinedExpiredCard" => fixed(Fate::Declined(&EXPIRED)),
        "chargeDeclinedIncorrectCvc" => fixed(Fate::Declined(&INCORRECT_CVC)),
        "chargeDeclinedProcessingError" => fixed(Fate::Declined(&PROCESSING)),
        "authenticationRequired" => fixed(Fate::Declined(&AUTHENTICATION)),
        "answerLost" => fixed(Fate::AnswerLost),
        "requestLost" => fixed(Fate::RequestLost),
        _ => None,
    }
}

const fn refusal(
    code: &'static str,
    decline_code: Option<&'static str>,
    message: &'static str,
) -> Refusal {
    Refusal {
        code: Cow::Borrowed(code),
        decline_code: match decline_code {
            Some(code) => Some(Cow::Borrowed(code)),
            None => None,
        },
        message: Cow::Borrowed(message),
    }
}

const fn declined(decline_code: &'static str, message: &'static str) -> Refusal {
    refusal("card_declined", Some(decline_code), message)
}

pub(super) static GENERIC: Refusal = declined("generic_decline", "Your card was declined.");
static INSUFFICIENT_FUNDS: Refusal =
    declined("insufficient_funds", "Your card has insufficient funds.");
static LOST: Refusal = declined("lost_card", "Your card was declined.");
static STOLEN: Refusal = declined("stolen_card", "Your card was declined.");
static EXPIRED: Refusal = refusal("expired_card", None, "Your card has expired.");
static INCORRECT_CVC: Refusal = refusal(
    "incorrect_cvc",
    None,
    "Your card's security code is incorrect.",
);
static PROCESSING: Refusal = refusal(
    "processing_error",
    None,
    "An error occurred while processing your card. Try again in a little bit.",
);
static AUTHENTICATION: Refusal = refusal(
    "authentication_required",
    Some("authentication_required"),
    "Your card was declined. This transaction requires authentication.",
);
pub(super) static NEVER_SEEN: Refusal = refusal(
    "processing_error",
    None,
    "The charge did not reach the channel and was closed there. Try again.",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_or_has_its_fate_with_or_without_the_network() {
        assert!(matches!(token("pm_card_visa"), Some(Token::Works)));
        for name in ["pm_card_chargeDeclined", "pm_card_visa_chargeDeclined"] {
            let Some(Token::Fixed(Fate::Declined(why))) = token(name) else {
                panic!("{name}");
            };
            assert_eq!(why.decline_code.as_deref(), Some("generic_decline"));
        }
        for nobody in ["", "pm_card_", "visa", "pm_card_nobody", "tok_visa"] {
            assert!(token(nobody).is_none(), "{nobody}");
        }
    }
}
