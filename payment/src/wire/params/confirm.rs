//! The confirmation of an intent.

use super::{
    super::{WireError, form::Form},
    fields::{card_only, email, expand, ignore_presentation, payment_method},
};

#[derive(Clone, Debug)]
pub(crate) struct Confirm {
    pub(crate) payment_method: Option<String>,
    /// What the caller believes the intent's secret to be.
    pub(crate) client_secret: Option<String>,
    /// What the answer shows as whole objects.
    pub(crate) expand: Vec<String>,
}

impl Confirm {
    pub(crate) fn parse(mut form: Form) -> Result<Self, WireError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_names_what_to_charge_and_nothing_that_was_settled_before() {
        let parse = |body: &str| Confirm::parse(Form::parse(body.as_bytes()).unwrap());
        let confirm =
            parse("payment_method=pm_card_visa&off_session=true&return_url=a%3A%2F%2Fb").unwrap();
        assert_eq!(confirm.payment_method.as_deref(), Some("pm_card_visa"));
        assert!(parse("amount=5").is_err());
    }
}
