//! Series of one route, as one core counts them.

use std::time::Duration;

use http::StatusCode;
use metrics::counter;

use super::{LocalCounter, LocalHistogram};
use crate::http::Protocol;

/// How a request ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 1xx to 3xx.
    Ok,
    /// 4xx but 429.
    ClientError,
    /// 429.
    Limited,
    /// 503.
    Unavailable,
    /// 502.
    UpstreamError,
    /// 504.
    Timeout,
    /// Any other 5xx.
    ServerError,
    /// The client left, or the body broke off.
    Aborted,
}

const OUTCOMES: [(Outcome, &str); 8] = [
    (Outcome::Ok, "ok"),
    (Outcome::ClientError, "client_error"),
    (Outcome::Limited, "limited"),
    (Outcome::Unavailable, "unavailable"),
    (Outcome::UpstreamError, "upstream_error"),
    (Outcome::Timeout, "timeout"),
    (Outcome::ServerError, "server_error"),
    (Outcome::Aborted, "aborted"),
];

impl Outcome {
    /// The outcome of a response that was sent whole.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            429 => Self::Limited,
            400..=499 => Self::ClientError,
            502 => Self::UpstreamError,
            503 => Self::Unavailable,
            504 => Self::Timeout,
            500..=599 => Self::ServerError,
            _ => Self::Ok,
        }
    }

    pub fn label(self) -> &'static str {
        OUTCOMES[self as usize].1
    }
}

/// Series of one route.
#[derive(Debug)]
pub struct RouteMeters {
    requests: [[LocalCounter; 2]; 8],
    duration: [LocalHistogram; 8],
}

impl RouteMeters {
    pub(super) fn new(route: &str) -> Self {
        Self {
            requests: OUTCOMES.map(|(_, outcome)| {
                Protocol::ALL.map(|protocol| {
                    LocalCounter::new(counter!("penstock_requests_total",
                        "route" => route.to_owned(), "outcome" => outcome, "protocol" => protocol.label()))
                })
            }),
            duration: OUTCOMES.map(|(_, outcome)| {
                LocalHistogram::new(
                    "penstock_request_duration_seconds",
                    "From the request's header to the end of the answer, without the time that a client asked to wait",
                    &[("route", route), ("outcome", outcome)],
                )
            }),
        }
    }

    /// A request has ended.
    pub fn request(&self, outcome: Outcome, protocol: Protocol, took: Duration) {
        self.requests[outcome as usize][protocol as usize].add();
        self.duration[outcome as usize].add(took);
    }

    pub(super) fn flush(&self) {
        self.requests.iter().flatten().for_each(LocalCounter::flush);
        self.duration.iter().for_each(LocalHistogram::flush);
    }
}
