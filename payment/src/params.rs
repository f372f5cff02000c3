//! Parameters of each endpoint, from form to types. Everything that is wrong with a request by itself is found here, before any work.

use std::collections::BTreeMap;

use crate::{
    config::Config,
    error::PaymentError,
    form::{Form, bracketed, echo},
    intent::{Details, IntentId},
    money::{Currency, Money, MoneyError},
};

/// Stripe's limits on metadata.
const MAX_METADATA: usize = 50;
const MAX_METADATA_KEY: usize = 40;
const MAX_METADATA_VALUE: usize = 500;

const MAX_DESCRIPTION: usize = 1_000;
const MAX_EMAIL: usize = 512;
const MAX_DESCRIPTOR: usize = 22;
const MAX_URL: usize = 5_000;
const MAX_TOKEN: usize = 255;

const DEFAULT_LIMIT: i64 = 10;
const MAX_LIMIT: i64 = 100;

/// A new intent.
#[derive(Clone, Debug)]
pub(crate) struct Create {
    pub(crate) amount: Money,
    pub(crate) payment_method: Option<String>,
    pub(crate) confirm: bool,
    pub(crate) reference: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) details: Details,
}

/// Go.
#[derive(Clone, Debug)]
pub(crate) struct ConfirmParams {
    pub(crate) payment_method: Option<String>,
}

/// Give up.
#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    pub(crate) reason: Option<String>,
}

/// A page of intents, newest first.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) limit: i64,
    pub(crate) cursor: Option<Cursor>,
    /// Seconds, both ends included.
    pub(crate) created: (i64, i64),
}

/// Where a page begins or ends, the named intent not included.
#[derive(Clone, Debug)]
pub(crate) enum Cursor {
    StartingAfter(IntentId),
    EndingBefore(IntentId),
}

impl Create {
    pub(crate) fn parse(mut form: Form, config: &Config) -> Result<Self, PaymentError> {
        refuse_card_data(&form)?;
        ignore_presentation(&mut form)?;
        let currency = currency(&mut form, &config.currencies)?;
        let amount = form
            .take_integer("amount")?
            .ok_or_else(|| missing("amount"))?;
        let amount = Money::from_wire(amount, currency).map_err(bad_amount)?;
        let metadata = metadata(&mut form)?;
        card_only(&mut form)?;
        let create = Self {
            amount,
            payment_method: payment_method(&mut form)?,
            confirm: form.take_bool("confirm")?.unwrap_or(false),
            reference: metadata.get(&config.order_metadata_key).cloned(),
            metadata,
            details: Details {
                description: form.take_text("description", MAX_DESCRIPTION)?,
                receipt_email: form.take_text("receipt_email", MAX_EMAIL)?,
                statement_descriptor: form.take_text("statement_descriptor", MAX_DESCRIPTOR)?,
                statement_descriptor_suffix: form
                    .take_text("statement_descriptor_suffix", MAX_DESCRIPTOR)?,
                capture_method: form
                    .take_choice("capture_method", &["automatic", "automatic_async"])?,
                confirmation_method: form
                    .take_choice("confirmation_method", &["automatic", "manual"])?,
            },
        };
        form.finish()?;
        Ok(create)
    }
}

impl ConfirmParams {
    pub(crate) fn parse(mut form: Form) -> Result<Self, PaymentError> {
        refuse_card_data(&form)?;
        ignore_presentation(&mut form)?;
        card_only(&mut form)?;
        form.take_choice("capture_method", &["automatic", "automatic_async"])?;
        form.take_text("receipt_email", MAX_EMAIL)?;
        let payment_method = payment_method(&mut form)?;
        form.finish()?;
        Ok(Self { payment_method })
    }
}

impl Cancel {
    pub(crate) fn parse(mut form: Form) -> Result<Self, PaymentError> {
        const REASONS: &[&str] = &[
            "duplicate",
            "fraudulent",
            "requested_by_customer",
            "abandoned",
        ];
        form.take_all("expand");
        let reason = form.take_choice("cancellation_reason", REASONS)?;
        form.finish()?;
        Ok(Self { reason })
    }
}

impl Page {
    pub(crate) fn parse(mut form: Form) -> Result<Self, PaymentError> {
        form.take_all("expand");
        let limit = form.take_integer("limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let message = format!("Invalid limit: must be 1 to {MAX_LIMIT}");
            return Err(PaymentError::param(
                Some("parameter_invalid_integer"),
                "limit",
                message,
            ));
        }
        let mut cursor = |name: &'static str| match form.take(name) {
            None => Ok(None),
            Some(id) => match IntentId::parse(&id) {
                Some(id) => Ok(Some(id)),
                None => Err(PaymentError::NoSuchIntent {
                    id: echo(&id),
                    param: Some(name),
                }),
            },
        };
        let cursor = match (cursor("starting_after")?, cursor("ending_before")?) {
            (None, None) => None,
            (Some(id), None) => Some(Cursor::StartingAfter(id)),
            (None, Some(id)) => Some(Cursor::EndingBefore(id)),
            (Some(_), Some(_)) => {
                return Err(PaymentError::param(
                    Some("parameters_exclusive"),
                    "starting_after",
                    "You can only specify one of these parameters: starting_after, ending_before.",
                ));
            }
        };
        let created = created(&mut form)?;
        form.finish()?;
        Ok(Self {
            limit,
            cursor,
            created,
        })
    }
}

/// Reads that take nothing but `expand`.
pub(crate) fn nothing_but_expand(mut form: Form) -> Result<(), PaymentError> {
    form.take_all("expand");
    // With it a browser reads its own intent; the secret key that let this request in opens all of them.
    form.take("client_secret");
    form.finish()
}

/// `created=…` or `created[gt|gte|lt|lte]=…`, as one closed range of seconds.
fn created(form: &mut Form) -> Result<(i64, i64), PaymentError> {
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

fn currency(form: &mut Form, accepted: &[Currency]) -> Result<Currency, PaymentError> {
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

fn metadata(form: &mut Form) -> Result<BTreeMap<String, String>, PaymentError> {
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
        if value.is_empty() {
            continue;
        }
        let Some(key) = bracketed(&rest).filter(|key| !key.is_empty()) else {
            return bad("Invalid metadata: must be a hash of strings".into());
        };
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
fn payment_method(form: &mut Form) -> Result<Option<String>, PaymentError> {
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
fn card_only(form: &mut Form) -> Result<(), PaymentError> {
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
fn ignore_presentation(form: &mut Form) -> Result<(), PaymentError> {
    form.take_all("expand");
    form.take("client_secret");
    form.take_text("return_url", MAX_URL)?;
    form.take_bool("error_on_requires_action")?;
    form.take_bool("use_stripe_sdk")?;
    form.take_choice("off_session", &["true", "false", "one_off", "recurring"])?;
    Ok(())
}

/// Card numbers never come in: neither stored nor logged nor repeated. The shop's page gets a token for them elsewhere.
fn refuse_card_data(form: &Form) -> Result<(), PaymentError> {
    let raw = form.sorted().map(|(key, _)| key).find(|key| {
        let is_method = ["payment_method_data", "card", "source"]
            .iter()
            .any(|name| {
                key.strip_prefix(name)
                    .is_some_and(|r| r.is_empty() || r.starts_with('['))
            });
        is_method && !key.starts_with("payment_method_data[type]")
    });
    let Some(key) = raw else { return Ok(()) };
    Err(PaymentError::param(
        Some("raw_card_data_refused"),
        echo(key),
        "Sending card data directly to this API is not accepted. Use a token instead: pass the id of a payment method as payment_method, such as pm_card_visa.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::for_key("sk_test_1")
    }

    fn create(body: &str) -> Result<Create, PaymentError> {
        Create::parse(Form::parse(body.as_bytes()).unwrap(), &config())
    }

    fn why(body: &str) -> (String, String) {
        match create(body).unwrap_err() {
            PaymentError::Param { param, code, .. } => {
                (param, code.unwrap_or_default().to_owned())
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_full_request_is_read() {
        let create = create(
            "amount=1999&currency=USD&metadata[order]=ord_1&payment_method=pm_card_visa&confirm=true&description=a+bag&expand[0]=latest_charge&automatic_payment_methods[enabled]=true&payment_method_types[0]=card",
        )
        .unwrap();
        assert_eq!(create.amount.to_string(), "19.99 usd");
        assert_eq!(create.reference.as_deref(), Some("ord_1"));
        assert_eq!(create.details.description.as_deref(), Some("a bag"));
        assert!(create.confirm);
    }

    #[test]
    fn each_mistake_names_its_parameter() {
        let cases = [
            ("currency=usd", "amount", "parameter_missing"),
            ("amount=1", "currency", "parameter_missing"),
            (
                "amount=0&currency=usd",
                "amount",
                "parameter_invalid_integer",
            ),
            (
                "amount=-1&currency=usd",
                "amount",
                "parameter_invalid_integer",
            ),
            (
                "amount=9223372036854775808&currency=usd",
                "amount",
                "parameter_invalid_integer",
            ),
            (
                "amount=9223372036854775807&currency=usd",
                "amount",
                "amount_too_large",
            ),
            (
                "amount=1&currency=xxx",
                "currency",
                "currency_not_supported",
            ),
            (
                "amount=1&currency=usd&amuont=2",
                "amuont",
                "parameter_unknown",
            ),
            (
                "amount=1&currency=usd&metadata[a][b]=2",
                "metadata",
                "parameter_invalid",
            ),
            (
                "amount=1&currency=usd&payment_method=4242424242424242",
                "payment_method",
                "resource_missing",
            ),
            ("amount=1&currency=usd&confirm=yes", "confirm", ""),
            (
                "amount=1&currency=usd&capture_method=manual",
                "capture_method",
                "",
            ),
        ];
        for (body, param, code) in cases {
            assert_eq!(why(body), (param.to_owned(), code.to_owned()), "{body}");
        }
    }

    #[test]
    fn card_numbers_are_refused_and_not_repeated() {
        for key in [
            "payment_method_data[card][number]",
            "card[number]",
            "source[number]",
        ] {
            let error = create(&format!("amount=1&currency=usd&{key}=4242424242424242"))
                .unwrap_err()
                .answer();
            assert_eq!(error.status, 400);
            assert!(
                error.body.contains("Use a token") && !error.body.contains("4242"),
                "{}",
                error.body
            );
        }
    }

    #[test]
    fn pages_are_bounded_and_have_one_cursor() {
        let page = |query: &str| Page::parse(Form::parse(query.as_bytes()).unwrap());
        assert_eq!(page("").unwrap().limit, 10);
        assert!(page("limit=0").is_err() && page("limit=101").is_err());
        assert!(page("starting_after=pi_1&ending_before=pi_2").is_err());
        assert!(page("starting_after=%27").is_err());
        assert_eq!(
            page("created[gte]=5&created[lt]=9").unwrap().created,
            (5, 8)
        );
        assert_eq!(
            page("created[gt]=9223372036854775807").unwrap().created.0,
            i64::MAX
        );
    }
}
