//! The HTTP face: `/v1/payment_intents…` in Stripe's form encoding, answered in Stripe's JSON.
//!
//! Order on a request: key → path → body → idempotency key → parameters → [`PaymentService`]. Whatever goes wrong comes out as one
//! [`PaymentError`] and leaves through `error.rs`.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    request::Parts,
};

use crate::{
    card_number,
    error::PaymentError,
    form::{Form, echo},
    idempotency::{self, Answer, Key},
    intent::{IntentId, service::Call},
    params::{self, Cancel, ConfirmParams, Create, Page},
    service::PaymentService,
};

const FORM: &str = "application/x-www-form-urlencoded";

static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
static STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
static STRIPE_ACCOUNT: HeaderName = HeaderName::from_static("stripe-account");
static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static(idempotency::HEADER);

/// The payments API, to be served at the root of its host: Stripe's SDKs take a host, not a prefix.
///
/// Every path below it is answered here, unknown ones with Stripe's error.
pub fn router(service: Arc<PaymentService>) -> Router {
    Router::new()
        .route("/", any(serve))
        .route("/{*path}", any(serve))
        .with_state(service)
}

async fn serve(State(service): State<Arc<PaymentService>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let request_id = service.ids.id("req_", service.now());
    let answer = match dispatch(&service, &head, body, &request_id).await {
        Ok(answer) => answer,
        Err(error) => {
            let answer = error.answer();
            if answer.status >= 500 {
                tracing::error!(%error, request_id, path = head.uri.path(), "payment request failed");
            }
            answer
        }
    };
    if answer.is_replayed {
        service.metrics.idempotent_replays.increment(1);
    }
    respond(answer, &head.headers, &request_id)
}

/// What the path asks for.
enum Endpoint {
    Create,
    List,
    Retrieve(IntentId),
    Confirm(IntentId),
    Cancel(IntentId),
}

async fn dispatch(
    service: &Arc<PaymentService>,
    head: &Parts,
    body: Body,
    request_id: &str,
) -> Result<Answer, PaymentError> {
    service.auth.check(&head.headers)?;
    check_version(&head.headers)?;
    if let Some(account) = head.headers.get(&STRIPE_ACCOUNT) {
        // There are no connected accounts here; charging the default one instead would move somebody else's money.
        return Err(PaymentError::UnknownAccount {
            account: echo(&String::from_utf8_lossy(account.as_bytes())),
        });
    }
    // Before anything is looked at more closely: what is refused later repeats what it was given.
    if card_number::is_in(head.uri.path()) {
        return Err(params::card_data_refused("path"));
    }
    let endpoint = endpoint(&head.method, head.uri.path())?;
    let query = || {
        let form = Form::parse(head.uri.query().unwrap_or_default().as_bytes())?;
        params::refuse_card_data(&form).map(|()| form)
    };
    match endpoint {
        Endpoint::List => {
            let page = Page::parse(query()?)?;
            let answer = service.list(&page).await?;
            return service.expanded(answer, &page.expand).await;
        }
        Endpoint::Retrieve(id) => {
            let read = params::retrieve(query()?)?;
            let answer = service.retrieve(&id, read.client_secret.as_deref()).await?;
            return service.expanded(answer, &read.expand).await;
        }
        _ => {}
    }
    let form = read_form(&head.headers, body, service.config.body_limit).await?;
    params::refuse_card_data(&form)?;
    let key = match head.headers.get(&IDEMPOTENCY_KEY) {
        None => None,
        Some(key) if holds_secret(&String::from_utf8_lossy(key.as_bytes())) => {
            return Err(params::card_data_refused(idempotency::HEADER));
        }
        Some(key) => {
            let (method, path) = (head.method.as_str(), head.uri.path());
            Some(Key::new(key.as_bytes(), method, path, &form)?)
        }
    };
    let call = Call {
        request_id: request_id.to_owned(),
        key,
    };
    match endpoint {
        Endpoint::Create => {
            let create = Create::parse(form, &service.config)?;
            let expand = create.expand.clone();
            let answer = service.create(create, call).await?;
            service.expanded(answer, &expand).await
        }
        Endpoint::Confirm(id) => {
            let params = ConfirmParams::parse(form)?;
            let expand = params.expand.clone();
            let answer = service.confirm_existing(id, params, call).await?;
            service.expanded(answer, &expand).await
        }
        Endpoint::Cancel(id) => {
            let cancel = Cancel::parse(form)?;
            let answer = service.cancel(&id, &cancel, &call).await?;
            service.expanded(answer, &cancel.expand).await
        }
        Endpoint::List | Endpoint::Retrieve(_) => unreachable!("answered above"),
    }
}

/// The version of the API that this service speaks, for callers that name none.
const VERSION: &str = "2026-06-24.dahlia";

/// `2026-06-24`, with or without the name of its release behind a dot. One version is spoken here, and older ones are close enough; what
/// is no version is a mistake.
fn check_version(headers: &HeaderMap) -> Result<(), PaymentError> {
    let Some(value) = headers.get(&STRIPE_VERSION) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let (date, release) = text.split_once('.').unwrap_or((&text, "x"));
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let is_release = !release.is_empty() && release.bytes().all(|b| b.is_ascii_lowercase());
    match is_date && is_release {
        true => Ok(()),
        false => Err(PaymentError::param(
            None,
            "Stripe-Version",
            format!("Invalid Stripe API version: {}", echo(&text)),
        )),
    }
}

fn holds_secret(text: &str) -> bool {
    card_number::is_in(text) || card_number::is_key_in(text)
}

fn endpoint(method: &Method, path: &str) -> Result<Endpoint, PaymentError> {
    let unknown = || PaymentError::UnknownUrl {
        method: method.to_string(),
        path: echo(path),
    };
    let rest = path
        .strip_suffix('/')
        .unwrap_or(path)
        .strip_prefix("/v1/payment_intents")
        .ok_or_else(unknown)?;
    let is_post = *method == Method::POST;
    let is_get = *method == Method::GET;
    let mut segments = rest.split('/');
    // What follows the prefix is nothing, or begins with a slash.
    if segments.next() != Some("") {
        return Err(unknown());
    }
    let (id, action) = match (segments.next(), segments.next(), segments.next()) {
        (None, ..) if is_post => return Ok(Endpoint::Create),
        (None, ..) if is_get => return Ok(Endpoint::List),
        (Some(id), action, None) => (id, action),
        _ => return Err(unknown()),
    };
    // A call of Stripe's that is none here, not the id of an intent.
    if id == "search" {
        return Err(unknown());
    }
    let make: fn(IntentId) -> Endpoint = match action {
        None if is_get => Endpoint::Retrieve,
        Some("confirm") if is_post => Endpoint::Confirm,
        Some("cancel") if is_post => Endpoint::Cancel,
        _ => return Err(unknown()),
    };
    match IntentId::parse(id) {
        Some(id) => Ok(make(id)),
        None => Err(PaymentError::NoSuchIntent {
            id: echo(id),
            param: None,
        }),
    }
}

async fn read_form(headers: &HeaderMap, body: Body, limit: usize) -> Result<Form, PaymentError> {
    let body = to_bytes(body, limit)
        .await
        .map_err(|error| match is_over_limit(&error) {
            true => PaymentError::BodyTooLarge { limit },
            false => PaymentError::Malformed {
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
        return Err(PaymentError::Malformed {
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

fn respond(answer: Answer, asked: &HeaderMap, request_id: &str) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = http::StatusCode::from_u16(answer.status)
        .expect("statuses come from the table in error.rs or from a stored answer");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(&REQUEST_ID, id);
    }
    if let Some(key) = asked.get(&IDEMPOTENCY_KEY) {
        headers.insert(&IDEMPOTENCY_KEY, key.clone());
    }
    let version = match check_version(asked) {
        Ok(()) => asked.get(&STRIPE_VERSION).cloned(),
        Err(_) => None,
    };
    headers.insert(
        &STRIPE_VERSION,
        version.unwrap_or(HeaderValue::from_static(VERSION)),
    );
    if answer.is_replayed {
        headers.insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(should_retry) = answer.should_retry {
        let value = if should_retry { "true" } else { "false" };
        headers.insert(&SHOULD_RETRY, HeaderValue::from_static(value));
    }
    if let Some(after) = answer.retry_after {
        // Rounded up: a client that comes a moment early is refused again.
        let seconds = after.as_millis().div_ceil(1000).max(1);
        if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
            headers.insert(RETRY_AFTER, seconds);
        }
    }
    if answer.status == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
