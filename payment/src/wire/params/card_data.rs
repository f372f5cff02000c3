//! Card numbers never come in: neither stored nor logged nor repeated, in whichever place they stand. The shop's page gets a token for
//! them elsewhere. Secret keys are refused the same way.

use super::super::{WireError, echo::echo, form::Form};
use crate::card_number;

/// Refuses a form with a card number or a secret key anywhere in it.
pub(crate) fn refuse_card_data(form: &Form) -> Result<(), WireError> {
    let raw = form.sorted().map(|(key, _)| key).find(|key| {
        let is_method = ["payment_method_data", "card", "source"]
            .iter()
            .any(|name| {
                key.strip_prefix(name)
                    .is_some_and(|r| r.is_empty() || r.starts_with('['))
            });
        is_method && !key.starts_with("payment_method_data[type]")
    });
    if form
        .sorted()
        .any(|(key, value)| card_number::is_key_in(key) || card_number::is_key_in(value))
    {
        return Err(WireError::param(
            Some("secret_key_refused"),
            "metadata",
            "A secret key stands among the parameters. Send it in the Authorization header only, and roll it if others may have seen this request.",
        ));
    }
    let number_in = || {
        form.sorted()
            .find(|(key, value)| card_number::is_in(key) || card_number::is_in(value))
            .map(|(key, _)| key)
    };
    let Some(key) = raw.or_else(number_in) else {
        return Ok(());
    };
    let key = match card_number::is_in(key) {
        true => "metadata",
        false => key,
    };
    Err(card_data_refused(&echo(key)))
}

/// The answer to a card number, which it does not repeat.
pub(crate) fn card_data_refused(param: &str) -> WireError {
    WireError::param(
        Some("raw_card_data_refused"),
        param,
        "Sending card data directly to this API is not accepted. Use a token instead: pass the id of a payment method as payment_method, such as pm_card_visa.",
    )
}

/// Whether a text outside a form, such as a header, must not be kept.
pub(crate) fn holds_secret(text: &str) -> bool {
    card_number::is_in(text) || card_number::is_key_in(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_refused_and_not_repeated() {
        for key in [
            "payment_method_data[card][number]",
            "card[number]",
            "source[number]",
            "description",
        ] {
            let body = format!("amount=1&currency=usd&{key}=4242424242424242");
            let form = Form::parse(body.as_bytes()).unwrap();
            let error = refuse_card_data(&form).unwrap_err().answer();
            assert_eq!(error.status, 400);
            assert!(
                error.body.contains("Use a token") && !error.body.contains("4242"),
                "{}",
                error.body
            );
        }
    }

    #[test]
    fn a_number_in_a_name_is_not_repeated_either() {
        let form = Form::parse(b"metadata[4242424242424242]=1").unwrap();
        let error = refuse_card_data(&form).unwrap_err().answer();
        assert!(!error.body.contains("4242"), "{}", error.body);
    }

    #[test]
    fn tokens_and_types_pass() {
        let form = Form::parse(b"payment_method=pm_card_visa&payment_method_data[type]=card");
        assert!(refuse_card_data(&form.unwrap()).is_ok());
        assert!(!holds_secret("k-1") && holds_secret("4242 4242 4242 4242"));
    }
}
