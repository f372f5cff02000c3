//! What a failed call means: [`StockError::Unavailable`] promises that nothing was executed; whatever cannot be proven not to have
//! been executed is [`StockError::Unknown`].

use fred::error::{Error, ErrorKind};

use crate::{StockError, ids::SegmentId};

/// What fred says when it has not handed a command to any connection.
const NEVER_SENT: [&str; 4] = [
    "Connection closed unexpectedly.", // `fail_fast` while reconnecting; a loss in flight is an IO error
    "Failed to route command.",
    "Failed to send command to router.",
    "Client is not initialized.",
];

/// Answers with which Redis, or a function, refuses a call before it has written anything.
///
/// `CLUSTERDOWN` is such an answer too, but fred closes the connection on it and gives the same error to all calls in flight, some of
/// which may run: it stays unknown.
const NOT_EXECUTED: [&str; 17] = [
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CROSSSLOT",
    "LOADING",
    "MASTERDOWN",
    "READONLY",
    "NOREPLICAS",
    "MISCONF",
    "OOM",
    "BUSY",
    "NOAUTH",
    "NOPERM",
    "WRONGPASS",
    "TAKEN",
    "TOOBIG",
    "NOTFROZEN",
];

/// What a server answers that will say the same until an operator changes it or us. (`ERR` is left out: "too many clients" is one.)
const REFUSALS: [&str; 2] = ["NOPERM", "DENIED"];

/// Why a server cannot be used.
#[derive(Debug, Clone)]
pub(super) enum Unusable {
    /// It does not answer, or not yet: waiting may help.
    Away(StockError),
    /// It answers, and what it is or says stays so until an operator changes it.
    Unfit(StockError),
}

impl Unusable {
    /// What an error means that came in place of an answer, told in these words.
    pub(super) fn new(error: &Error, why: String) -> Self {
        let why = StockError::Unavailable(why);
        let code = error.details().split_ascii_whitespace().next();
        match error.kind() {
            ErrorKind::Auth | ErrorKind::Config => Self::Unfit(why),
            _ if code.is_some_and(|code| REFUSALS.contains(&code)) => Self::Unfit(why),
            _ => Self::Away(why),
        }
    }

    /// The one of two that is told: what an operator must change comes first.
    pub(super) fn or(self, other: Option<Self>) -> Self {
        match (self, other) {
            (Self::Away(_), Some(unfit @ Self::Unfit(_))) => unfit,
            (this, _) => this,
        }
    }

    /// The reason.
    pub(super) fn why(&self) -> &StockError {
        match self {
            Self::Away(why) | Self::Unfit(why) => why,
        }
    }

    /// The same, as callers of the store are told it.
    pub(super) fn into_why(self) -> StockError {
        match self {
            Self::Away(why) | Self::Unfit(why) => why,
        }
    }
}

/// Whether the server does not have the library.
pub(super) fn is_function_missing(error: &Error) -> bool {
    error.details().starts_with("ERR Function not found")
}

/// What an answer means that came back from a call that writes: it was executed, whether or not its answer can be read.
pub(super) fn executed<T>(read: Result<T, StockError>) -> Result<T, StockError> {
    read.map_err(|error| match error {
        StockError::Corrupt(why) => {
            tracing::error!(%why, "redis has executed a call and its answer cannot be read");
            StockError::Unknown(why)
        }
        other => other,
    })
}

/// Maps an error of a call to what the caller may conclude from it.
pub(super) fn classify(error: &Error, segment: &SegmentId) -> StockError {
    let details = error.details();
    let mut words = details.split_ascii_whitespace();
    let code = words.next().unwrap_or_default();
    match code {
        "NOTOPEN" => StockError::NotOpen(segment.clone()),
        "AWAITS" => StockError::AwaitsRebuild(segment.clone()),
        "STALE" => match words.next().and_then(|epoch| epoch.parse().ok()) {
            Some(current) => StockError::StaleEpoch {
                segment: segment.clone(),
                current,
            },
            None => StockError::Corrupt(format!("segment {segment}: {details}")),
        },
        "CORRUPT" | "WRONGTYPE" | "NOGROUP" => {
            StockError::Corrupt(format!("segment {segment}: {details}"))
        }
        code if NOT_EXECUTED.contains(&code) => StockError::Unavailable(details.to_owned()),
        _ if NEVER_SENT.contains(&details) || *error.kind() == ErrorKind::Backpressure => {
            StockError::Unavailable(error.to_string())
        }
        // A function that raised an error may have stopped half way; its state tells, and stops the sale of that segment.
        "ERR" if !is_function_missing(error) => {
            StockError::Corrupt(format!("segment {segment}: {details}"))
        }
        "ERR" => StockError::Unavailable(details.to_owned()),
        _ => StockError::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(kind: ErrorKind, details: &'static str) -> &'static str {
        let segment = SegmentId::first("s".parse().unwrap(), "k".parse().unwrap());
        match classify(&Error::new(kind, details), &segment) {
            StockError::NotOpen(_) => "not open",
            StockError::Unavailable(_) => "unavailable",
            StockError::Unknown(_) => "unknown",
            StockError::Corrupt(_) => "corrupt",
            StockError::AwaitsRebuild(_) => "awaits",
            StockError::StaleEpoch { current: 7, .. } => "stale at 7",
            StockError::StaleEpoch { .. } => "stale",
        }
    }

    #[test]
    fn only_a_call_that_certainly_did_not_run_is_unavailable() {
        for details in [
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots",
            "BUSY Redis is busy running a script.",
            "NOTFROZEN the segment must be frozen",
            "ERR Function not found",
        ] {
            assert_eq!(
                class_of(ErrorKind::Unknown, details),
                "unavailable",
                "{details}"
            );
        }
        assert_eq!(
            class_of(ErrorKind::Canceled, "Connection closed unexpectedly."),
            "unavailable"
        );
    }

    #[test]
    fn a_call_that_may_have_run_is_unknown() {
        assert_eq!(
            class_of(ErrorKind::Timeout, "Request timed out."),
            "unknown"
        );
        assert_eq!(class_of(ErrorKind::IO, "Connection closed."), "unknown");
        assert_eq!(class_of(ErrorKind::Canceled, "Canceled."), "unknown");
        assert_eq!(
            class_of(ErrorKind::Cluster, "CLUSTERDOWN The cluster is down"),
            "unknown"
        );
    }

    #[test]
    fn what_an_operator_must_look_at_is_corrupt() {
        for details in [
            "WRONGTYPE Operation against a key",
            "CORRUPT INV-STOCK-2",
            "ERR user_function:1: boom",
            "STALE",
        ] {
            assert_eq!(
                class_of(ErrorKind::Unknown, details),
                "corrupt",
                "{details}"
            );
        }
    }

    #[test]
    fn what_the_functions_say_of_a_segment_is_told() {
        let said = [
            ("NOTOPEN the segment", "not open"),
            ("AWAITS the segment", "awaits"),
            ("STALE 7", "stale at 7"),
        ];
        for (details, class) in said {
            assert_eq!(class_of(ErrorKind::Unknown, details), class);
        }
    }
}
