//! The edge's refusals as answers, in a form that the client can read: a document, a page, or Stripe's error object.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ACCEPT, CONTENT_TYPE},
};

use super::Body;
use crate::{
    http::{Problem, headers::tokens},
    route::{Route, Target},
};

impl Problem {
    /// The response, as a document. It carries the problem, so that the outermost layer can put it into another [`Form`].
    pub(crate) fn response(self) -> Response<Body> {
        let mut response = self.document_response().map(Body::full);
        response.extensions_mut().insert(self);
        response
    }
}

/// The form of a refusal: one that the client can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A problem document: programs.
    Document,
    /// A page: a browser that asked for one.
    Page,
    /// Stripe's error object: the payment API, whose SDKs read nothing else.
    Stripe,
}

impl Form {
    /// For a request with these headers on this route.
    pub(crate) fn of(route: Option<&Route>, headers: &HeaderMap) -> Self {
        match route.map(|route| (&route.target, route.is_payment)) {
            Some((Target::Handler { .. }, true)) => Self::Stripe,
            Some((Target::Handler { .. }, false)) => Self::Document,
            _ if wants_page(headers) => Self::Page,
            _ => Self::Document,
        }
    }

    /// Puts a refusal into this form; status and headers stay.
    pub(crate) fn shape(self, problem: Problem, response: &mut Response<Body>) {
        let (status, document) = problem.document();
        let (kind, text) = match self {
            Self::Document => return,
            Self::Page => ("text/html; charset=utf-8", page(problem, status)),
            Self::Stripe => ("application/json", stripe_error(document, status)),
        };
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        *response.body_mut() = Body::full(Bytes::from(text));
    }
}

/// Whether `text/html` is among what the client accepts, as it is for every browser that opens a page and for no program.
fn wants_page(headers: &HeaderMap) -> bool {
    tokens(headers, &ACCEPT).any(|token| {
        token
            .split(|byte| *byte == b';')
            .next()
            .is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/html"))
    })
}

fn page(problem: Problem, status: u16) -> String {
    let told: serde_json::Value =
        serde_json::from_str(problem.document().1).expect("the table holds JSON");
    let title = told["title"].as_str().unwrap_or_default();
    let advice = match problem.retry_after() {
        Some(wait) => format!(
            "Please try again in {} s.",
            wait.as_millis().div_ceil(1000).max(1)
        ),
        None => String::new(),
    };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><h1>{title}</h1><p>{}.</p><p>{advice}</p><p>{status} {}</p></html>",
        told["detail"].as_str().unwrap_or_default(),
        told["code"].as_str().unwrap_or_default()
    )
}

fn stripe_error(document: &str, status: u16) -> String {
    let told: serde_json::Value = serde_json::from_str(document).expect("the table holds JSON");
    let kind = match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    let code = match status {
        429 => "rate_limit".into(),
        _ => told["code"].clone(),
    };
    serde_json::json!({"error": {"type": kind, "code": code, "message": told["detail"]}})
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn a_refusal_is_told_in_a_form_that_its_reader_knows() {
        let told = |form: Form| {
            let problem = Problem::Limited(Duration::from_millis(1500));
            let mut response = problem.response();
            form.shape(problem, &mut response);
            assert_eq!(response.headers()[RETRY_AFTER], "2");
            let Body::Full(Some(text)) = response.body() else {
                panic!("no body");
            };
            String::from_utf8(text.to_vec()).unwrap()
        };
        assert!(told(Form::Document).contains("\"code\":\"limited\""));
        assert!(told(Form::Page).contains("<h1>Too many requests</h1>"));
        assert!(told(Form::Page).contains("try again in 2 s"));
        let stripe: serde_json::Value = serde_json::from_str(&told(Form::Stripe)).unwrap();
        assert_eq!(stripe["error"]["type"], "rate_limit_error");
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(value));
            wants_page(&headers)
        };
        assert!(accepts("application/xhtml+xml, Text/HTML;q=0.9, */*;q=0.8"));
        assert!(!accepts("*/*") && !accepts("application/json"));
    }
}
