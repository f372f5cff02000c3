//! A request on its way in: who asks, for what, with which form and key. What is refused here has not been worked on.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
};
use http::{HeaderMap, HeaderName, header::CONTENT_TYPE, request::Parts as Head};

use super::{
    WireError,
    auth::Auth,
    echo::echo,
    error,
    form::Form,
    params::{self, holds_secret},
    version,
};
use crate::{card_number, idempotency::Key, ids::IntentId, saga::Call};

const FORM: &str = "application/x-www-form-urlencoded";

static STRIPE_ACCOUNT: HeaderName = HeaderName::from_static("stripe-account");
pub(super) static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub(super) struct Asked {
    pub(super) head: Head,
    body: Body,
    pub(super) id: String,
}

impl Asked {
    pub(super) fn new(request: Request, id: String) -> Self {
        let (head, body) = request.into_parts();
        Self { head, body, id }
    }

    /// What every request must pass, whatever it asks for.
    pub(super) fn check(&self, auth: &Auth) -> Result<(), WireError> {
        let headers = &self.head.headers;
        auth.check(headers)?;
        version::check(headers)?;
        if let Some(account) = headers.get(&STRIPE_ACCOUNT) {
            // There are no connected accounts here; charging the default one instead would move somebody else's money.
            return Err(WireError::UnknownAccount {
                account: echo(&String::from_utf8_lossy(account.as_bytes())),
            });
        }
        // Before anything is looked at more closely: what is refused later repeats what it was given.
        if card_number::is_in(self.head.uri.path()) {
            return Err(params::card_data_refused("path"));
        }
        Ok(())
    }

    pub(super) fn unknown_url(&self) -> WireError {
        WireError::UnknownUrl {
            method: self.head.method.to_string(),
            path: echo(self.head.uri.path()),
        }
    }

    /// The intent of `/v1/payment_intents/{id}…`. As it was sent, not decoded: a refusal repeats it.
    pub(super) fn intent_id(&self) -> Result<IntentId, WireError> {
        let id = self.head.uri.path().split('/').nth(3).unwrap_or_default();
        // A call of Stripe's that is none here, not the id of an intent.
        if id == "search" {
            return Err(self.unknown_url());
        }
        error::intent_id(id, None)
    }

    /// The query of a read.
    pub(super) fn query(&self) -> Result<Form, WireError> {
        let query = self.head.uri.query().unwrap_or_default();
        let form = Form::parse(query.as_bytes())?;
        params::refuse_card_data(&form).map(|()| form)
    }

    /// The form of a write, and what the write comes with.
    pub(super) async fn form(self, limit: usize) -> Result<(Form, Call), WireError> {
        let (headers, uri) = (&self.head.headers, &self.head.uri);
        let form = read(headers, self.body, limit).await?;
        params::refuse_card_data(&form)?;
        let key = match headers.get(&IDEMPOTENCY_KEY) {
            None => None,
            Some(key) if holds_secret(&String::from_utf8_lossy(key.as_bytes())) => {
                return Err(params::card_data_refused(IDEMPOTENCY_KEY.as_str()));
            }
            Some(key) => {
                let target = [self.head.method.as_str(), uri.path()];
                let pairs = form.sorted().flat_map(|(name, value)| [name, value]);
                let content = target.into_iter().chain(pairs);
                Some(Key::try_new(key.as_bytes(), content)?)
            }
        };
        let call = Call {
            request_id: self.id,
            key,
        };
        Ok((form, call))
    }
}

async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Form, WireError> {
    let body = to_bytes(body, limit)
        .await
        .map_err(|error| match is_over_limit(&error) {
            true => WireError::BodyTooLarge { limit },
            false => WireError::Malformed {
                message: "The request body could not be read.",
            },
        })?;
    let is_form = match headers.get(CONTENT_TYPE) {
        None => true,
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|value| value.split(';').next())
            .is_some_and(|media| media.trim().eq_ignore_ascii_case(FORM)),
    };
    if !is_form && !body.is_empty() {
        return Err(WireError::Malformed {
            message: "The request body must be application/x-www-form-urlencoded.",
        });
    }
    Form::parse(&body)
}

/// Looks through the wrappers for the limit's own error.
fn is_over_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, body: &str, key: &str) -> Asked {
        let request = http::Request::builder().method("POST").uri(path);
        let request = request.header("idempotency-key", key);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Asked::new(request, "req_1".into())
    }

    async fn key(path: &str, body: &str) -> String {
        let (_, call) = asked(path, body, "k").form(1_000).await.unwrap();
        format!("{:?}", call.key)
    }

    #[tokio::test]
    async fn a_key_is_bound_to_path_and_parameters_but_not_to_their_order() {
        let one = key("/v1/payment_intents", "amount=1&currency=usd").await;
        assert_eq!(
            one,
            key("/v1/payment_intents", "currency=usd&amount=1").await
        );
        assert_ne!(
            one,
            key("/v1/payment_intents", "currency=usd&amount=2").await
        );
        let confirm = "/v1/payment_intents/pi_1/confirm";
        assert_ne!(one, key(confirm, "currency=usd&amount=1").await);
    }

    #[test]
    fn the_id_of_a_path_is_its_third_segment() {
        let id = |path| asked(path, "", "k").intent_id();
        assert_eq!(
            id("/v1/payment_intents/pi_1/confirm").unwrap().as_str(),
            "pi_1"
        );
        assert_eq!(id("/v1/payment_intents/pi_1").unwrap().as_str(), "pi_1");
        assert!(matches!(
            id("/v1/payment_intents/search"),
            Err(WireError::UnknownUrl { .. })
        ));
        assert!(matches!(
            id("/v1/payment_intents//confirm"),
            Err(WireError::NoSuchIntent { id, .. }) if id.is_empty()
        ));
    }

    #[tokio::test]
    async fn a_long_body_and_another_kind_are_refused() {
        let long = asked("/", "a=1&b=2", "k").form(3).await;
        assert!(matches!(long, Err(WireError::BodyTooLarge { limit: 3 })));
        let mut json = asked("/", "{}", "k");
        let kind = "application/json".parse().unwrap();
        json.head.headers.insert(CONTENT_TYPE, kind);
        assert!(matches!(
            json.form(9).await,
            Err(WireError::Malformed { .. })
        ));
    }
}
