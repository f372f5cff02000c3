//! Single parameters, each read the same way wherever it may appear.

use std::collections::BTreeMap;

use crate::{
    card_number,
    error::PaymentError,
    form::{Form, bracketed, echo},
    money::{Currency, Money, MoneyError},
};

/// Stripe's limits on metadata.
const MAX_METADATA: usize = 50;
const MAX_METADATA_KEY: usize = 40;
const MAX_METADATA_VALUE: usize = 500;

pub(super) const MAX_DESCRIPTION: usize = 1_000;
pub(super) const MAX_EMAIL: usize = 512;
pub(super) const MAX_DESCRIPTOR: usize = 22;
const MAX_URL: usize = 5_000;
const MAX_TOKEN: usize = 255;

/// `created=…` or `created[gt|gte|lt|lte]=…`, as one closed range of seconds.
pub(super) fn created(form: &mut Form) -> Result<(i64, i64), PaymentError> {
    let exact = form.take_integer("created")?;
    let mut range = exact.map_or((0, i64::MAX / 1000 - 1), |at| (at, at));
    for (key, bound) in [
        ("created[gt]", Bound::After),
        ("created[gte]", Bound::From),
        ("created[lt]", Bound::Before),
        ("created[lte]", Bound::UpTo),
    ] {
        let Some(at) = form.take_integer(key)? else {
            continue;
        };
        match bound {
            Bound::After => range.0 = range.0.max(at.saturating_add(1)),
            Bound::From => range.0 = range.0.max(at),
            Bound::Before => range.1 = range.1.min(at.saturating_sub(1)),
            Bound::UpTo => range.1 = range.1.min(at),
        }
    }
    Ok(range)
}

enum Bound {
    After,
    From,
    Before,
    UpTo,
}

fn missing(param: &'static str) -> PaymentError {
    let message = format!("Missing required param: {param}.");
    PaymentError::param(Some("parameter_missing"), param, message)
}

/// What is to be paid, in the wire's units of `currency`.
pub(super) fn amount(form: &mut Form, currency: Currency) -> Result<Money, PaymentError> {
    let amount = form
        .take_integer("amount")?
        .ok_or_else(|| missing("amount"))?;
    Money::from_wire(amount, currency).map_err(bad_amount)
}

fn bad_amount(error: MoneyError) -> PaymentError {
    let (code, message) = match error {
        MoneyError::TooSmall | MoneyError::Negative => (
            "parameter_invalid_integer",
            "This value must be greater than or equal to 1.".to_owned(),
        ),
        MoneyError::TooLarge => (
            "amount_too_large",
            "Amount must be no more than 99999999.".to_owned(),
        ),
        MoneyError::NotMultiple { of } => (
            "parameter_invalid_integer",
            format!("Amounts of this currency must be multiples of {of}."),
        ),
        MoneyError::CurrencyMismatch => ("parameter_invalid_integer", error.to_string()),
    };
    PaymentError::param(Some(code), "amount", message)
}

/// The currency, if this server takes it.
pub(super) fn currency(form: &mut Form, accepted: &[Currency]) -> Result<Currency, PaymentError> {
    let code = form.take("currency").ok_or_else(|| missing("currency"))?;
    Currency::from_code(&code)
        .filter(|currency| accepted.contains(currency))
        .ok_or_else(|| {
            let list = accepted
                .iter()
                .map(|currency| currency.code())
                .collect::<Vec<_>>()
                .join(", ");
            let message = format!(
                "Invalid currency: {}. This server accepts: {list}",
                echo(&code).to_lowercase()
            );
            PaymentError::param(Some("currency_not_supported"), "currency", message)
        })
}

/// `metadata[…]`, within Stripe's limits.
pub(super) fn metadata(form: &mut Form) -> Result<BTreeMap<String, String>, PaymentError> {
    let bad = |message: String| {
        Err(PaymentError::param(
            Some("parameter_invalid"),
            "metadata",
            message,
        ))
    };
    let mut metadata = BTreeMap::new();
    for (rest, value) in form.take_all("metadata") {
        // `metadata=` clears it, `metadata[k]=` leaves k out.
        if rest.is_empty() && value.is_empty() {
            continue;
        }
        let Some(key) = bracketed(&rest).filter(|key| !key.is_empty()) else {
            return bad("Invalid metadata: must be a hash of strings".into());
        };
        if value.is_empty() {
            continue;
        }
        if key.chars().count() > MAX_METADATA_KEY {
            return bad(format!(
                "Metadata keys can have up to {MAX_METADATA_KEY} characters"
            ));
        }
        if value.chars().count() > MAX_METADATA_VALUE {
            return bad(format!(
                "Metadata values can have up to {MAX_METADATA_VALUE} characters"
            ));
        }
        metadata.insert(key.to_owned(), value);
    }
    if metadata.len() > MAX_METADATA {
        return bad(format!("Metadata can have up to {MAX_METADATA} keys"));
    }
    Ok(metadata)
}

/// A token, by its look; whether a channel takes it is asked later.
pub(super) fn payment_method(form: &mut Form) -> Result<Option<String>, PaymentError> {
    let Some(token) = form.take_text("payment_method", MAX_TOKEN)? else {
        return Ok(None);
    };
    if token.starts_with("pm_") {
        return Ok(Some(token));
    }
    // Whatever it is, it may be a card number, so it is not repeated.
    let message =
        "Invalid payment_method: must be the id of a payment method, such as pm_card_visa";
    Err(PaymentError::param(
        Some("resource_missing"),
        "payment_method",
        message,
    ))
}

/// What selects payment methods may only select cards.
pub(super) fn card_only(form: &mut Form) -> Result<(), PaymentError> {
    for (_, name) in form.take_all("payment_method_types") {
        if name != "card" {
            return Err(PaymentError::param(
                Some("payment_intent_invalid_parameter"),
                "payment_method_types",
                "The payment method types accepted here are: card",
            ));
        }
    }
    form.take_all("automatic_payment_methods");
    Ok(())
}

/// Accepted for the clients that always send them; none of them changes what a server-side confirmation does.
pub(super) fn ignore_presentation(form: &mut Form) -> Result<(), PaymentError> {
    form.take_all("expand");
    form.take_text("return_url", MAX_URL)?;
    form.take_bool("error_on_requires_action")?;
    form.take_bool("use_stripe_sdk")?;
    form.take_choice("off_session", &["true", "false", "one_off", "recurring"])?;
    Ok(())
}

/// Card numbers never come in: neither stored nor logged nor repeated, in whichever parameter they stand. The shop's page gets a
/// token for them elsewhere.
pub(crate) fn refuse_card_data(form: &Form) -> Result<(), PaymentError> {
    let raw = form.sorted().map(|(key, _)| key).find(|key| {
        let is_method = ["payment_method_data", "card", "source"]
            .iter()
            .any(|name| {
                key.strip_prefix(name)
                    .is_some_and(|r| r.is_empty() || r.starts_with('['))
            });
        is_method && !key.starts_with("payment_method_data[type]")
    });
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
pub(crate) fn card_data_refused(param: &str) -> PaymentError {
    PaymentError::param(
        Some("raw_card_data_refused"),
        param,
        "Sending card data directly to this API is not accepted. Use a token instead: pass the id of a payment method as payment_method, such as pm_card_visa.",
    )
}
