//! What is read: one intent, or a page of them.

use super::{
    super::{WireError, echo::echo, form::Form},
    fields::{created, expand},
};
use crate::{ids::IntentId, intents::repo::Cursor};

const DEFAULT_LIMIT: i64 = 10;
const MAX_LIMIT: i64 = 100;

#[derive(Clone, Debug)]
pub(crate) struct Retrieve {
    /// What the caller believes the intent's secret to be.
    pub(crate) client_secret: Option<String>,
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

impl Retrieve {
    pub(crate) fn parse(mut form: Form) -> Result<Self, WireError> {
        let read = Self {
            expand: expand(&mut form, "")?,
            client_secret: form.take("client_secret"),
        };
        form.finish()?;
        Ok(read)
    }
}

impl Page {
    pub(crate) fn parse(mut form: Form) -> Result<Self, WireError> {
        let expand = expand(&mut form, "data.")?;
        let limit = form.take_integer("limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let message = format!("Invalid limit: must be 1 to {MAX_LIMIT}");
            return Err(WireError::param(
                Some("parameter_invalid_integer"),
                "limit",
                message,
            ));
        }
        let mut cursor = |name: &'static str| match form.take(name) {
            None => Ok(None),
            Some(id) => match IntentId::parse(&id) {
                Some(id) => Ok(Some(id)),
                None => Err(WireError::NoSuchIntent {
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
                return Err(WireError::param(
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

#[cfg(test)]
mod tests {
    use super::*;

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
