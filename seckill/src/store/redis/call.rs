//! One call of a stock function: sends it, waits for the wanted durability, and says what a failure means.
//!
//! The hard part is the last one. [`StockError::Unavailable`] promises that nothing was executed; whatever cannot be proven not
//! to have been executed is [`StockError::Unknown`]. The client never sends a call a second time by itself: every command is
//! `fail_fast` with one attempt, so a lost connection ends it at once. (Request ids would make a second run harmless, but its
//! answer would say "replayed" or "already released" for what the first run did.) A call is repeated here only after an answer
//! that proves that nothing was executed: `MOVED`, or "function not found".

use std::{sync::Arc, time::Duration};

use fred::{
    clients::{Client, Pipeline, WithOptions},
    error::{Error, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value, config::Options},
};

use super::{
    connect,
    keys::{KeyCache, SegmentKeys},
    node::Node,
    nodes::Nodes,
};
use crate::{ids::SegmentId, store::StockError};

/// Most items in one call; it bounds how long one call holds the server. The same number stands in `library/base.lua`.
pub(super) const MAX_BATCH: usize = 1024;

/// Share of the timeout that `WAIT` may use up, so that its answer still comes in time.
const WAIT_SHARE: u32 = 2;

/// A stock function: its name in the library, and whether it changes anything.
#[derive(Clone, Copy)]
pub(super) struct Function {
    name: &'static str,
    writes: bool,
}

impl Function {
    pub(super) const OPEN: Self = Self {
        name: "penstock_v1_open",
        writes: true,
    };
    pub(super) const BUY: Self = Self {
        name: "penstock_v1_buy",
        writes: true,
    };
    pub(super) const RELEASE: Self = Self {
        name: "penstock_v1_release",
        writes: true,
    };
    pub(super) const CONFIRM: Self = Self {
        name: "penstock_v1_confirm",
        writes: true,
    };
    pub(super) const SET_GATE: Self = Self {
        name: "penstock_v1_set_gate",
        writes: true,
    };
    pub(super) const RESTOCK: Self = Self {
        name: "penstock_v1_restock",
        writes: true,
    };
    pub(super) const SNAPSHOT: Self = Self {
        name: "penstock_v1_snapshot",
        writes: false,
    };
    pub(super) const FIND: Self = Self {
        name: "penstock_v1_find",
        writes: false,
    };
    pub(super) const ACCEPTED: Self = Self {
        name: "penstock_v1_accepted",
        writes: false,
    };
    pub(super) const DEPTH: Self = Self {
        name: "penstock_v1_depth",
        writes: false,
    };
    // Both write, but what they write may be lost: settlement is idempotent and is handed the entry again.
    pub(super) const PULL: Self = Self {
        name: "penstock_v1_pull",
        writes: false,
    };
    pub(super) const ACK: Self = Self {
        name: "penstock_v1_ack",
        writes: false,
    };
}

/// Calls stock functions.
pub(super) struct Caller {
    pub(super) nodes: Nodes,
    pub(super) keys: KeyCache,
    pub(super) timeout: Duration,
    /// Replicas that must have a write before its answer counts; 0 for none.
    pub(super) replicas: u32,
}

impl Caller {
    /// Calls `function` for a segment and returns its answer. `args` is asked again in the rare case of a second sending.
    pub(super) async fn call(
        &self,
        function: Function,
        segment: &SegmentId,
        args: impl Fn() -> Vec<Value>,
    ) -> Result<String, StockError> {
        let keys = self.keys.of(segment);
        let words = || {
            let args = args();
            let mut words = Vec::with_capacity(8 + args.len());
            words.push(Value::from_static_str(function.name));
            words.push(Value::from_static_str(SegmentKeys::count()));
            words.extend(keys.values());
            words.extend(args);
            words
        };

        let mut answer = self.send(function, keys.slot, words()).await;
        match &answer {
            // A flushed server, or a primary that was promoted before it had the library.
            Err(Failure::Answer(error, node)) if is_function_missing(error) => {
                tracing::warn!(server = %node.server, "the stock functions are missing in redis, loading them again");
                connect::load_library(node, self.timeout).await?;
                answer = self.send(function, keys.slot, words()).await;
            }
            Err(Failure::Answer(error, _)) if error.details().starts_with("MOVED ") => {
                self.nodes.refresh().await;
                answer = self.send(function, keys.slot, words()).await;
            }
            Err(Failure::Unreachable) => {
                self.nodes.refresh_unless_recent().await;
                answer = self.send(function, keys.slot, words()).await;
            }
            _ => {}
        }
        answer.map_err(|failure| match failure {
            Failure::Answer(error, _) => classify(&error, segment),
            Failure::Unreachable => StockError::Unavailable(format!(
                "no connection to the primary of segment {segment}"
            )),
            Failure::Unfit(error) => error,
            Failure::Written(why) => StockError::Unknown(format!("written, but {why}")),
        })
    }

    async fn send(
        &self,
        function: Function,
        slot: u16,
        words: Vec<Value>,
    ) -> Result<String, Failure> {
        let node = self
            .nodes
            .of(slot)
            .filter(|node| node.client.is_connected())
            .ok_or(Failure::Unreachable)?;
        let connection = self.nodes.check(&node).await.map_err(|error| match error {
            // The connection was lost again: as if there had never been one.
            _ if !node.client.is_connected() => Failure::Unreachable,
            error => Failure::Unfit(error),
        })?;
        let client = node.client.with_options(&options(self.timeout));
        // Not fred's own `fcall`: it counts as a blocking command and switches the client's checks of the connection off.
        let fcall = CustomCommand::new_static("FCALL", ClusterHash::FirstKey, false);
        let result = if self.replicas == 0 || !function.writes {
            client.custom(fcall, words).await.map_err(Refusal::Answer)
        } else {
            self.send_and_wait(client, fcall, words).await
        };
        match result {
            // The client has connected again in between: perhaps that server, not checked yet, has executed the call.
            Ok(text) if function.writes && node.connections() != connection => {
                match self.nodes.check(&node).await {
                    Ok(_) => Ok(text),
                    Err(error) => Err(Failure::Written(format!(
                        "perhaps by a server that may lose it: {error}"
                    ))),
                }
            }
            Ok(text) => Ok(text),
            Err(Refusal::Answer(error)) => Err(Failure::Answer(error, node)),
            Err(Refusal::Replicas(why)) => Err(Failure::Written(why)),
        }
    }

    /// `WAIT` looks at the last write of its own connection: the pipeline keeps both on the same one.
    async fn send_and_wait(
        &self,
        client: WithOptions<Client>,
        fcall: CustomCommand,
        words: Vec<Value>,
    ) -> Result<String, Refusal> {
        let wait = CustomCommand::new_static("WAIT", ClusterHash::FirstKey, false);
        let wait_ms = (self.timeout / WAIT_SHARE).as_millis().max(1);
        let pipeline = Pipeline::from(client);
        let queued = |error| Refusal::Answer(error);
        let _: Value = pipeline.custom(fcall, words).await.map_err(queued)?;
        let _: Value = pipeline
            .custom(wait, vec![self.replicas.to_string(), wait_ms.to_string()])
            .await
            .map_err(queued)?;
        let mut results = pipeline.try_all::<Value>().await.into_iter();
        let missing = || Error::new(ErrorKind::Protocol, "the pipeline has no answer");
        let text = results
            .next()
            .unwrap_or_else(|| Err(missing()))
            .and_then(Value::convert)
            .map_err(Refusal::Answer)?;
        // From here on the call has run: whatever is wrong now, "nothing was executed" would be a lie.
        let count: Result<u32, Error> = results
            .next()
            .unwrap_or_else(|| Err(missing()))
            .and_then(Value::convert);
        match count {
            Ok(count) if count >= self.replicas => Ok(text),
            Ok(count) => Err(Refusal::Replicas(format!(
                "only {count} of {} replicas acknowledged it in time",
                self.replicas
            ))),
            Err(error) => Err(Refusal::Replicas(format!(
                "whether a replica has it cannot be asked: {error}"
            ))),
        }
    }
}

/// The options of every command.
pub(super) fn options(timeout: Duration) -> Options {
    Options {
        timeout: Some(timeout),
        fail_fast: true,
        ..Options::default()
    }
}

/// Why one sending gave no answer.
enum Refusal {
    /// What the server, or the client on the way to it, said about the call.
    Answer(Error),
    /// It was written; too few replicas are known to have it, and why.
    Replicas(String),
}

enum Failure {
    /// No connection to the primary: nothing was sent.
    Unreachable,
    /// The settings of the server do not keep the store's promises, or cannot be read: nothing was sent.
    Unfit(StockError),
    /// What that node, or the client on the way to it, said.
    Answer(Error, Arc<Node>),
    /// Written, without the durability that was asked for, and why.
    Written(String),
}

fn is_function_missing(error: &Error) -> bool {
    error.details().starts_with("ERR Function not found")
}

/// What fred says when it has not handed a command to any connection.
const NEVER_SENT: [&str; 4] = [
    "Connection closed unexpectedly.", // `fail_fast` while reconnecting; a loss in flight is an IO error
    "Failed to route command.",
    "Failed to send command to router.",
    "Client is not initialized.",
];

/// Answers with which Redis refuses a call before it has written anything.
///
/// `CLUSTERDOWN` is such an answer too, but fred closes the connection on it and gives the same error to all calls in flight, some of
/// which may run: it stays unknown.
const NOT_EXECUTED: [&str; 15] = [
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
];

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
    let code = details.split_ascii_whitespace().next().unwrap_or_default();
    match code {
        "NOTOPEN" => StockError::NotOpen(segment.clone()),
        "CORRUPT" | "WRONGTYPE" | "NOGROUP" => {
            StockError::Corrupt(format!("segment {segment}: {details}"))
        }
        "TOOBIG" => StockError::Unavailable(details.to_owned()),
        code if NOT_EXECUTED.contains(&code) => StockError::Unavailable(details.to_owned()),
        _ if NEVER_SENT.contains(&details) || *error.kind() == ErrorKind::Backpressure => {
            StockError::Unavailable(error.to_string())
        }
        // A function that raised an error may have stopped half way; `dirty` tells, and stops the sale of that segment.
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
            StockError::AwaitsRebuild(_) | StockError::StaleEpoch { .. } => "rebuild",
        }
    }

    #[test]
    fn only_a_call_that_certainly_did_not_run_is_unavailable() {
        for details in [
            "MOVED 3999 127.0.0.1:6381",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots",
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
        ] {
            assert_eq!(
                class_of(ErrorKind::Unknown, details),
                "corrupt",
                "{details}"
            );
        }
        assert_eq!(
            class_of(ErrorKind::Unknown, "NOTOPEN the segment"),
            "not open"
        );
    }
}
