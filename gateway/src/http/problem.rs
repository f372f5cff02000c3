//! The edge's own refusals, as RFC 9457 problem documents. The only file of the gateway that picks status codes for them.
//!
//! Bodies are constant texts: refusing must stay cheaper than serving, above all in a flood. The data plane takes them as
//! they are or in another form (`exchange/refusal.rs`), the admin listener through axum's [`IntoResponse`].

use std::time::Duration;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use limiter::rate::retry_after_field;

/// Why the edge answers by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Problem {
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
    /// The route's handler is not part of this process, or has not started yet.
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
    /// The document as a response.
    pub(crate) fn document_response(self) -> Response<Bytes> {
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
    pub(crate) fn retry_after(self) -> Option<Duration> {
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

    /// Status and JSON text.
    pub(crate) fn document(self) -> (u16, &'static str) {
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
                "this part of the service is not running here, or not yet; nothing was done"
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

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        self.document_response().map(axum::body::Body::from)
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
            assert_eq!(problem.document_response().status().as_u16(), status);
        }
    }

    #[test]
    fn waiting_is_rounded_up_to_whole_seconds() {
        let response = Problem::Limited(Duration::from_millis(1500)).document_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }
}
