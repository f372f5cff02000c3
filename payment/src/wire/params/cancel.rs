//! The cancellation of an intent.

use super::{
    super::{WireError, form::Form},
    fields::expand,
};

#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    pub(crate) reason: Option<String>,
    /// What the answer shows as whole objects.
    pub(crate) expand: Vec<String>,
}

impl Cancel {
    pub(crate) fn parse(mut form: Form) -> Result<Self, WireError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_of_stripes() {
        let parse = |body: &str| Cancel::parse(Form::parse(body.as_bytes()).unwrap());
        let cancel = parse("cancellation_reason=duplicate").unwrap();
        assert_eq!(cancel.reason.as_deref(), Some("duplicate"));
        assert!(parse("").unwrap().reason.is_none());
        assert!(parse("cancellation_reason=automatic").is_err());
    }
}
