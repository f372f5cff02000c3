//! The edge's own refusals, as RFC 9457 problem documents. The only file of the gateway that picks status codes for them.
//!
//! Bodies are constant texts: refusing must stay cheaper than serving, above all in a flood. The data plane takes them as
//! [`Problem::response`], the admin listener through axum's [`IntoResponse`].

use std::time::Duration;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use limiter::rate::retry_after_field;

use crate::{body::Body, core::RouteTarget, headers::tokens};

/// Why the edge answers by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Problem {
    /// The request is malformed; the connection is closed, since its framing is in doubt. The client is at fault.
    BadRequest,
    /// A call of the admin API without its token.
    Unauthorized,
    /// A call of the admin API that a web page caused.
    CrossSite,
    /// The admin listener has no such path.
    NotFound,
    /// No route has this host and path. Client or configuration.
    NoRoute,
    /// Routes have this path, but not with this method.
    MethodNotAllowed,
    /// The body did not come in time. The client is at fault.
    BodyTimeout,
    /// More header lines than `server.max_headers`. The client is at fault.
    TooManyHeaders,
    /// The body comes in a transfer coding other than chunked, which could be passed on as something else only.
    TransferCoding,
    /// The request has been here before: an endpoint leads back to this process. The configuration is at fault.
    Loop,
    /// The body exceeds the route's limit.
    BodyTooLarge,
    /// The client's bucket is empty. It may come back after this.
    Limited(Duration),
    /// The bucket of the admin API is empty.
    AdminLimited(Duration),
    /// The upstream's connection failed; the request may have reached it.
    BadGateway,
    /// Every endpoint's health check fails.
    NoEndpoint,
    /// Every endpoint left was refused by its breaker.
    BreakerOpen(Duration),
    /// Every endpoint left has as many connections as the pool allows.
    UpstreamBusy,
    /// The endpoints are busy, and this client has its share of them already. The client may ask again when one of its requests is over.
    ClientShare,
    /// As many requests wait for the control runtime as may: it is overloaded.
    Overloaded,
    /// The route's handler is not part of this process.
    NotReady,
    /// The handler panicked: a defect.
    HandlerFailed,
    /// The upstream did not answer in time.
    UpstreamTimeout,
}

/// One row per problem: status, code and the whole document.
macro_rules! document {
    ($status:literal, $code:literal, $title:literal, $detail:literal) => {
        (
            $status,
            concat!(
                "{\"type\":\"https://penstock.dev/problems/",
                $code,
                "\",\"title\":\"",
                $title,
                "\",\"status\":",
                $status,
                ",\"code\":\"",
                $code,
                "\",\"detail\":\"",
                $detail,
                "\"}",
            ),
        )
    };
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An endpoint comes back within seconds, or its breaker will say so.
const SOON: Duration = Duration::from_secs(1);

impl Problem {
    /// The response, in the edge's own form. It carries the problem, so that the outermost layer can put it into another
    /// ([`Form`]).
    pub fn response(self) -> Response<Body> {
        let mut response = self.render().map(Body::full);
        response.extensions_mut().insert(self);
        response
    }

    fn render(self) -> Response<Bytes> {
        let (status, document) = self.document();
        let mut response = Response::new(Bytes::from_static(document.as_bytes()));
        *response.status_mut() =
            StatusCode::from_u16(status).expect("the table holds valid status codes");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, retry_after_field(wait));
        }
        if self == Self::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // What is left of the body would be read as the next request.
        if matches!(
            self,
            Self::BadRequest
                | Self::BodyTooLarge
                | Self::BodyTimeout
                | Self::TransferCoding
                | Self::TooManyHeaders
        ) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// How long the client should wait, where waiting helps.
    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Limited(wait) | Self::AdminLimited(wait) | Self::BreakerOpen(wait) => Some(wait),
            Self::NoEndpoint
            | Self::UpstreamBusy
            | Self::ClientShare
            | Self::Overloaded
            | Self::NotReady => Some(SOON),
            _ => None,
        }
    }

    fn document(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => document!(
                400,
                "bad_request",
                "Bad request",
                "the request is malformed"
            ),
            Self::Unauthorized => document!(
                401,
                "unauthorized",
                "Unauthorized",
                "a bearer token is needed"
            ),
            Self::CrossSite => document!(
                403,
                "cross_site",
                "Forbidden",
                "the admin API is not for web pages, and without a token it answers by IP address or as localhost only"
            ),
            Self::NotFound => document!(404, "not_found", "Not found", "no such path"),
            Self::NoRoute => document!(
                404,
                "no_route",
                "Not found",
                "no route has this host and path"
            ),
            Self::MethodNotAllowed => document!(
                405,
                "method_not_allowed",
                "Method not allowed",
                "the path exists, but not with this method"
            ),
            Self::BodyTimeout => document!(
                408,
                "body_timeout",
                "Request timeout",
                "the request's body did not come in time"
            ),
            Self::TooManyHeaders => document!(
                431,
                "too_many_headers",
                "Request header fields too large",
                "the request has more header lines than are accepted"
            ),
            Self::TransferCoding => document!(
                501,
                "transfer_coding",
                "Not implemented",
                "the only transfer coding that is accepted is chunked"
            ),
            Self::Loop => document!(
                508,
                "loop",
                "Loop detected",
                "the request came back to where it had been"
            ),
            Self::BodyTooLarge => document!(
                413,
                "body_too_large",
                "Content too large",
                "the request's body exceeds its limit"
            ),
            Self::Limited(_) => document!(
                429,
                "limited",
                "Too many requests",
                "the client's token bucket is empty"
            ),
            Self::ClientShare => document!(
                429,
                "client_share",
                "Too many requests",
                "as many requests of this client are under way as one client may have while the upstream is busy"
            ),
            Self::AdminLimited(_) => document!(
                429,
                "limited",
                "Too many requests",
                "too many calls of the admin API"
            ),
            Self::HandlerFailed => document!(
                500,
                "internal",
                "Internal error",
                "the request met a defect and was not finished"
            ),
            Self::BadGateway => document!(
                502,
                "bad_gateway",
                "Bad gateway",
                "the connection to the upstream failed"
            ),
            Self::NoEndpoint => document!(
                503,
                "no_endpoint",
                "Service unavailable",
                "no endpoint of the upstream is healthy"
            ),
            Self::BreakerOpen(_) => document!(
                503,
                "breaker_open",
                "Service unavailable",
                "the upstream failed too often and is given time to recover"
            ),
            Self::UpstreamBusy => document!(
                503,
                "upstream_busy",
                "Service unavailable",
                "the upstream has as many connections as it may have"
            ),
            Self::Overloaded => document!(
                503,
                "overloaded",
                "Service unavailable",
                "too many requests that read or pay are under way"
            ),
            Self::NotReady => document!(
                503,
                "not_ready",
                "Service unavailable",
                "this part of the service is not running here"
            ),
            Self::UpstreamTimeout => document!(
                504,
                "upstream_timeout",
                "Gateway timeout",
                "the upstream did not answer in time"
            ),
        }
    }
}

/// In which form a refusal is told: the one that whoever asked can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A problem document: programs.
    Document,
    /// A page: a browser that asked for one.
    Page,
    /// Stripe's error object: the payment API, whose SDKs read nothing else.
    Stripe,
}

impl Form {
    /// For a request with these headers on a route that leads there.
    pub fn of(target: Option<&RouteTarget>, headers: &HeaderMap, is_payment: bool) -> Self {
        match target {
            Some(RouteTarget::Handler { .. } | RouteTarget::Absent) if is_payment => Self::Stripe,
            Some(RouteTarget::Handler { .. }) => Self::Document,
            _ if wants_page(headers) => Self::Page,
            _ => Self::Document,
        }
    }

    /// Puts a refusal into this form; status and headers stay.
    pub fn shape(self, problem: Problem, response: &mut Response<Body>) {
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

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        self.render().map(axum::body::Body::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_json_and_agree_with_their_status() {
        let wait = Duration::from_millis(1500);
        let all = [
            Problem::BadRequest,
            Problem::Unauthorized,
            Problem::CrossSite,
            Problem::NotFound,
            Problem::NoRoute,
            Problem::MethodNotAllowed,
            Problem::BodyTimeout,
            Problem::TooManyHeaders,
            Problem::TransferCoding,
            Problem::Loop,
            Problem::BodyTooLarge,
            Problem::Limited(wait),
            Problem::AdminLimited(wait),
            Problem::BadGateway,
            Problem::NoEndpoint,
            Problem::BreakerOpen(wait),
            Problem::UpstreamBusy,
            Problem::ClientShare,
            Problem::Overloaded,
            Problem::NotReady,
            Problem::HandlerFailed,
            Problem::UpstreamTimeout,
        ];
        for problem in all {
            let (status, document) = problem.document();
            let json: serde_json::Value = serde_json::from_str(document).unwrap();
            assert_eq!(json["status"], status);
            let code = json["code"].as_str().unwrap();
            assert_eq!(
                json["type"],
                format!("https://penstock.dev/problems/{code}")
            );
            assert_eq!(problem.response().status().as_u16(), status);
        }
    }

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

    #[test]
    fn waiting_is_rounded_up_to_whole_seconds() {
        let response = Problem::Limited(Duration::from_millis(1500)).response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }
}
