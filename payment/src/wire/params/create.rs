//! A new intent.

use super::{
    super::{WireError, form::Form},
    fields::{
        MAX_DESCRIPTION, amount, card_only, currency, descriptor, email, expand,
        ignore_presentation, metadata, payment_method,
    },
};
use crate::{
    config::Config,
    intents::{Details, Draft},
};

#[derive(Clone, Debug)]
pub(crate) struct Create {
    pub(crate) draft: Draft,
    pub(crate) confirm: bool,
    /// What the answer shows as whole objects.
    pub(crate) expand: Vec<String>,
}

impl Create {
    pub(crate) fn parse(mut form: Form, config: &Config) -> Result<Self, WireError> {
        ignore_presentation(&mut form)?;
        let currency = currency(&mut form, &config.currencies)?;
        let amount = amount(&mut form, currency)?;
        let metadata = metadata(&mut form)?;
        let automatic_redirects = card_only(&mut form)?;
        let expand = expand(&mut form, "")?;
        let payment_method = payment_method(&mut form)?;
        let confirm = form.take_bool("confirm")?.unwrap_or(false);
        let details = Details {
            description: form.take_text("description", MAX_DESCRIPTION)?,
            receipt_email: email(&mut form)?,
            statement_descriptor: descriptor(&mut form, "statement_descriptor")?,
            statement_descriptor_suffix: descriptor(&mut form, "statement_descriptor_suffix")?,
            automatic_redirects,
            capture_method: form
                .take_choice("capture_method", &["automatic", "automatic_async"])?,
            confirmation_method: form
                .take_choice("confirmation_method", &["automatic", "manual"])?,
        };
        form.finish()?;
        Ok(Self {
            draft: Draft {
                amount,
                payment_method,
                reference: metadata.get(&config.order_metadata_key).cloned(),
                metadata,
                details,
            },
            confirm,
            expand,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(body: &str) -> Result<Create, WireError> {
        let config = Config::for_key("sk_test_1");
        Create::parse(Form::parse(body.as_bytes()).unwrap(), &config)
    }

    fn why(body: &str) -> (String, String) {
        match create(body).unwrap_err() {
            WireError::Param { param, code, .. } => (param, code.unwrap_or_default().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_request_is_read() {
        let create = create(
            "amount=1999&currency=USD&metadata[order]=ord_1&payment_method=pm_card_visa&confirm=true&description=a+bag&expand[0]=latest_charge&automatic_payment_methods[enabled]=true&payment_method_types[0]=card",
        )
        .unwrap();
        assert_eq!(create.draft.amount.to_string(), "19.99 usd");
        assert_eq!(create.draft.reference.as_deref(), Some("ord_1"));
        assert_eq!(create.draft.details.description.as_deref(), Some("a bag"));
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
}
