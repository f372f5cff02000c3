//! Parameters of each endpoint, from form to types. Everything that is wrong with a request by itself is found here, before any work.

mod fields;

use std::collections::BTreeMap;

use self::fields::{
    MAX_DESCRIPTION, amount, card_only, created, currency, descriptor, email, expand,
    ignore_presentation, metadata, payment_method,
};
pub(crate) use self::fields::{card_data_refused, refuse_card_data};
use crate::{
    config::Config,
    error::PaymentError,
    form::{Form, echo},
    intent::{Details, IntentId},
    money::Money,
};

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
    /// What the answer shows as whole objects.
    pub(crate) expand: Vec<String>,
}

/// Go.
#[derive(Clone, Debug)]
pub(crate) struct ConfirmParams {
    pub(crate) payment_method: Option<String>,
    /// What the caller believes the intent's secret to be.
    pub(crate) client_secret: Option<String>,
    /// What the answer shows as whole objects.
    pub(crate) expand: Vec<String>,
}

/// Give up.
#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    pub(crate) reason: Option<String>,
    /// What the answer shows as whole objects.
    pub(crate) expand: Vec<String>,
}

/// A page of intents, newest first.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) limit: i64,
    pub(crate) cursor: Option<Cursor>,
    /// Seconds, both ends included.
    pub(crate) created: (i64, i64),
    /// What each intent shows as whole objects.
    pub(crate) expand: Vec<String>,
}

/// Where a page begins or ends, the named intent not included.
#[derive(Clone, Debug)]
pub(crate) enum Cursor {
    StartingAfter(IntentId),
    EndingBefore(IntentId),
}

impl Create {
    pub(crate) fn parse(mut form: Form, config: &Config) -> Result<Self, PaymentError> {
        ignore_presentation(&mut form)?;
        let currency = currency(&mut form, &config.currencies)?;
        let amount = amount(&mut form, currency)?;
        let metadata = metadata(&mut form)?;
        let automatic_redirects = card_only(&mut form)?;
        let expand = expand(&mut form, "")?;
        let create = Self {
            amount,
            expand,
            payment_method: payment_method(&mut form)?,
            confirm: form.take_bool("confirm")?.unwrap_or(false),
            reference: metadata.get(&config.order_metadata_key).cloned(),
            metadata,
            details: Details {
                description: form.take_text("description", MAX_DESCRIPTION)?,
                receipt_email: email(&mut form)?,
                statement_descriptor: descriptor(&mut form, "statement_descriptor")?,
                statement_descriptor_suffix: descriptor(&mut form, "statement_descriptor_suffix")?,
                automatic_redirects,
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
        ignore_presentation(&mut form)?;
        card_only(&mut form)?;
        form.take_choice("capture_method", &["automatic", "automatic_async"])?;
        email(&mut form)?;
        let expand = expand(&mut form, "")?;
        let client_secret = form.take("client_secret");
        let payment_method = payment_method(&mut form)?;
        form.finish()?;
        Ok(Self {
            payment_method,
            client_secret,
            expand,
        })
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
        let expand = expand(&mut form, "")?;
        let reason = form.take_choice("cancellation_reason", REASONS)?;
        form.finish()?;
        Ok(Self { reason, expand })
    }
}

impl Page {
    pub(crate) fn parse(mut form: Form) -> Result<Self, PaymentError> {
        let expand = expand(&mut form, "data.")?;
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
            expand,
        })
    }
}

/// Parameters of a read: `expand`, and the intent's secret where the caller names it.
pub(crate) fn retrieve(mut form: Form) -> Result<Retrieve, PaymentError> {
    let read = Retrieve {
        expand: expand(&mut form, "")?,
        client_secret: form.take("client_secret"),
    };
    form.finish()?;
    Ok(read)
}

/// One intent.
#[derive(Clone, Debug)]
pub(crate) struct Retrieve {
    /// What the answer shows as whole objects.
    pub(crate) expand: Vec<String>,
    /// What the caller believes the intent's secret to be.
    pub(crate) client_secret: Option<String>,
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
            PaymentError::Param { param, code, .. } => (param, code.unwrap_or_default().to_owned()),
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
