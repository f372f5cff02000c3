//! Single parameters, each read the same way wherever it may appear.

use std::collections::BTreeMap;

use super::super::{
    WireError,
    echo::echo,
    form::{Form, bracketed},
};
use crate::money::{Currency, MAX_WIRE_AMOUNT, Money, MoneyError};

/// Stripe's limits on metadata.
const MAX_METADATA: usize = 50;
const MAX_METADATA_KEY: usize = 40;
const MAX_METADATA_VALUE: usize = 500;

pub(super) const MAX_DESCRIPTION: usize = 1_000;
const MAX_EMAIL: usize = 512;
const MAX_DESCRIPTOR: usize = 22;
const MAX_URL: usize = 5_000;
const MAX_TOKEN: usize = 255;

/// `created=…` or `created[gt|gte|lt|lte]=…`, as one closed range of seconds.
pub(super) fn created(form: &mut Form) -> Result<(i64, i64), WireError> {
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

fn missing(param: &'static str) -> WireError {
    let message = format!("Missing required param: {param}.");
    WireError::param(Some("parameter_missing"), param, message)
}

/// What is to be paid, in the wire's units of `currency`.
pub(super) fn amount(form: &mut Form, currency: Currency) -> Result<Money, WireError> {
    let amount = form
        .take_integer("amount")?
        .ok_or_else(|| missing("amount"))?;
    Money::from_wire(amount, currency).map_err(bad_amount)
}

fn bad_amount(error: MoneyError) -> WireError {
    let (code, message) = match error {
        MoneyError::TooSmall | MoneyError::Negative => (
            "parameter_invalid_integer",
            "This value must be greater than or equal to 1.".to_owned(),
        ),
        MoneyError::TooLarge => (
            "amount_too_large",
            format!("Amount must be no more than {MAX_WIRE_AMOUNT}."),
        ),
        MoneyError::NotMultiple { of } => (
            "parameter_invalid_integer",
            format!("Amounts of this currency must be multiples of {of}."),
        ),
        MoneyError::CurrencyMismatch => ("parameter_invalid_integer", error.to_string()),
    };
    WireError::param(Some(code), "amount", message)
}

/// The currency, if this server takes it.
pub(super) fn currency(form: &mut Form, accepted: &[Currency]) -> Result<Currency, WireError> {
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
            WireError::param(Some("currency_not_supported"), "currency", message)
        })
}

/// `metadata[…]`, within Stripe's limits.
pub(super) fn metadata(form: &mut Form) -> Result<BTreeMap<String, String>, WireError> {
    let bad = |message: String| {
        Err(WireError::param(
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
pub(super) fn payment_method(form: &mut Form) -> Result<Option<String>, WireError> {
    let Some(token) = form.take_text("payment_method", MAX_TOKEN)? else {
        return Ok(None);
    };
    if token.starts_with("pm_") {
        return Ok(Some(token));
    }
    // Whatever it is, it may be a card number, so it is not repeated.
    let message =
        "Invalid payment_method: must be the id of a payment method, such as pm_card_visa";
    Err(WireError::param(
        Some("resource_missing"),
        "payment_method",
        message,
    ))
}

/// What selects payment methods may only select cards. Gives `allow_redirects` of `automatic_payment_methods`, if they are asked for.
pub(super) fn card_only(form: &mut Form) -> Result<Option<String>, WireError> {
    for (_, name) in form.take_all("payment_method_types") {
        if name != "card" {
            return Err(WireError::param(
                Some("payment_intent_invalid_parameter"),
                "payment_method_types",
                "The payment method types accepted here are: card",
            ));
        }
    }
    let enabled = form.take_bool("automatic_payment_methods[enabled]")?;
    let redirects = form.take_choice(
        "automatic_payment_methods[allow_redirects]",
        &["always", "never"],
    )?;
    Ok((enabled == Some(true)).then(|| redirects.unwrap_or_else(|| "always".to_owned())))
}

/// What an intent may be asked to show as whole objects. Those that are always null here stay so.
const EXPANDABLE: [&str; 8] = [
    "payment_method",
    "latest_charge",
    // Always null.
    "customer",
    "application",
    "on_behalf_of",
    "review",
    "source",
    "latest_charge.balance_transaction",
];

/// `expand[]`. `under` is what stands before each name: `data.` in lists.
pub(super) fn expand(form: &mut Form, under: &str) -> Result<Vec<String>, WireError> {
    let mut wanted = Vec::new();
    for (_, path) in form.take_all("expand") {
        let name = path.strip_prefix(under).unwrap_or_default();
        if !EXPANDABLE.contains(&name) {
            let message = format!("This property cannot be expanded ({}).", echo(&path));
            return Err(WireError::param(None, "expand", message));
        }
        wanted.push(name.to_owned());
    }
    Ok(wanted)
}

/// An address for the receipt.
pub(super) fn email(form: &mut Form) -> Result<Option<String>, WireError> {
    let Some(text) = form.take_text("receipt_email", MAX_EMAIL)? else {
        return Ok(None);
    };
    let is_address = text.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty()
            && host.split('.').count() > 1
            && host.split('.').all(|label| !label.is_empty())
            && !host.contains('@')
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || ",;<>()".contains(c))
    });
    match is_address || text.is_empty() {
        true => Ok(Some(text).filter(|text| !text.is_empty())),
        false => Err(WireError::param(
            Some("email_invalid"),
            "receipt_email",
            format!("Invalid email address: {}", echo(&text)),
        )),
    }
}

/// What stands on the buyer's statement, by the rules of the card networks.
pub(super) fn descriptor(form: &mut Form, name: &'static str) -> Result<Option<String>, WireError> {
    let Some(text) = form.take_text(name, MAX_DESCRIPTOR)? else {
        return Ok(None);
    };
    let is_fine = text.is_ascii()
        && !text.contains(['<', '>', '\\', '\'', '"', '*'])
        && text.contains(|c: char| c.is_ascii_alphabetic());
    match is_fine {
        true => Ok(Some(text)),
        false => Err(WireError::param(
            Some("parameter_invalid"),
            name,
            "The statement descriptor must contain at least one letter, Latin characters only, and none of < > \\ ' \" *.",
        )),
    }
}

/// Where a buyer would come back to.
fn return_url(form: &mut Form) -> Result<(), WireError> {
    let Some(text) = form.take_text("return_url", MAX_URL)? else {
        return Ok(());
    };
    let is_url = text
        .parse::<http::Uri>()
        .is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty()));
    // An app's own scheme, such as shop://paid, is one too.
    match is_url {
        true => Ok(()),
        false => Err(WireError::param(
            Some("url_invalid"),
            "return_url",
            "Not a valid URL",
        )),
    }
}

/// Accepted for the clients that always send them; none of them changes what a server-side confirmation does.
pub(super) fn ignore_presentation(form: &mut Form) -> Result<(), WireError> {
    return_url(form)?;
    form.take_bool("error_on_requires_action")?;
    form.take_bool("use_stripe_sdk")?;
    form.take_choice("off_session", &["true", "false", "one_off", "recurring"])?;
    Ok(())
}
