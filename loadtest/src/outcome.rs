//! What became of one request: the closed set that histograms, counters and reports are keyed by.

use serde::{Deserialize, Serialize};

/// How one request ended. Fast refusals and slow successes never share a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 201: this request made the order.
    Accepted,
    /// 200: an earlier request with the same key made the order.
    Replayed,
    /// 409 `sold_out`.
    SoldOut,
    /// 409 `buyer_limit`.
    BuyerLimit,
    /// 409 `not_started`.
    NotStarted,
    /// 410 `ended`.
    Ended,
    /// 429: a rate limit said no.
    Limited,
    /// 409 `in_flight`: the same key is being worked on by another request.
    InFlight,
    /// 202: the server does not know yet; the generator polls.
    Unknown,
    /// 503 `frozen` or `paused`: the sale stands still.
    Frozen,
    /// Any other 4xx.
    ClientError,
    /// Any other 5xx, or an answer that cannot be read.
    ServerError,
    /// No answer within the request timeout.
    Timeout,
    /// Never sent: too many in flight, or no connection became free in time.
    Shed,
    /// No connection, or every one broke before an answer.
    ConnectError,
    /// A page of the shop came back (1xx to 3xx).
    PageOk,
    Paid,
    /// The payment was declined (402).
    Declined,
}

impl Outcome {
    /// Every outcome, in the order reports list them.
    pub const ALL: [Outcome; 18] = [
        Outcome::Accepted,
        Outcome::Replayed,
        Outcome::SoldOut,
        Outcome::BuyerLimit,
        Outcome::NotStarted,
        Outcome::Ended,
        Outcome::Limited,
        Outcome::InFlight,
        Outcome::Unknown,
        Outcome::Frozen,
        Outcome::ClientError,
        Outcome::ServerError,
        Outcome::Timeout,
        Outcome::Shed,
        Outcome::ConnectError,
        Outcome::PageOk,
        Outcome::Paid,
        Outcome::Declined,
    ];

    /// Number of outcomes, the length of every per-outcome array.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Outcome::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name used in scenario files, reports and the terminal.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Replayed => "replayed",
            Outcome::SoldOut => "sold_out",
            Outcome::BuyerLimit => "buyer_limit",
            Outcome::NotStarted => "not_started",
            Outcome::Ended => "ended",
            Outcome::Limited => "limited",
            Outcome::InFlight => "in_flight",
            Outcome::Unknown => "unknown",
            Outcome::Frozen => "frozen",
            Outcome::ClientError => "client_error",
            Outcome::ServerError => "server_error",
            Outcome::Timeout => "timeout",
            Outcome::Shed => "shed",
            Outcome::ConnectError => "connect_error",
            Outcome::PageOk => "page_ok",
            Outcome::Paid => "paid",
            Outcome::Declined => "declined",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Outcome> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// Whether it counts against `max_error_share`: the system failed, it did not merely say no.
    pub fn is_error(self) -> bool {
        matches!(
            self,
            Outcome::ClientError
                | Outcome::ServerError
                | Outcome::Timeout
                | Outcome::Shed
                | Outcome::ConnectError
        )
    }

    /// Whether the request reached the server and an answer came back.
    pub fn is_answered(self) -> bool {
        !matches!(
            self,
            Outcome::Timeout | Outcome::Shed | Outcome::ConnectError
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indexes_agree_with_the_list() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), index);
            assert_eq!(Outcome::from_name(outcome.name()), Some(outcome));
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(json, format!("\"{}\"", outcome.name()));
        }
    }
}
