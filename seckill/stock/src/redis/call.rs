//! One call of a stock function: sends it, waits for the wanted durability, and says what a failure means.
//!
//! The hard part is the last one; see `failure.rs`. The client never sends a call a second time by itself: every command is
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
    durability::Wait,
    failure::{Unusable, classify, is_function_missing},
    function::Function,
    keys::SegmentKeys,
    node::{Fit, Node},
    nodes::Nodes,
};
use crate::{Durability, StockError, ids::SegmentId};

/// Calls stock functions.
pub(super) struct Caller {
    pub(super) nodes: Nodes,
    pub(super) timeout: Duration,
}

impl Caller {
    /// Calls `function` for segments of one slot and returns its answer. A function that writes waits for `level`. `args` is asked
    /// again in the rare case of a second sending.
    pub(super) async fn call(
        &self,
        function: Function,
        segments: &[Arc<SegmentKeys>],
        level: Durability,
        args: impl Fn() -> Vec<Value>,
    ) -> Result<String, StockError> {
        let (slot, segment) = (segments[0].slot, &segments[0].segment);
        let level = if function.writes {
            level
        } else {
            Durability::Fast
        };
        let words = || {
            let args = args();
            let keys = SegmentKeys::COUNT * segments.len();
            let mut words = Vec::with_capacity(2 + keys + args.len());
            words.push(Value::from_static_str(function.name));
            words.push((keys as i64).into());
            words.extend(segments.iter().flat_map(|segment| segment.values()));
            words.extend(args);
            words
        };

        let mut answer = self.send(function, slot, level, &words).await;
        match &answer {
            // A flushed server, or a primary that was promoted before it had the library.
            Err(Failure::Answer(error, node)) if is_function_missing(error) => {
                tracing::warn!(server = %node.server, "the stock functions are missing in redis, loading them again");
                let loaded = connect::load_library(&node.client, &node.server, self.timeout).await;
                loaded.map_err(Unusable::into_why)?;
                answer = self.send(function, slot, level, &words).await;
            }
            Err(Failure::Answer(error, _)) if error.details().starts_with("MOVED ") => {
                self.nodes.refresh().await;
                answer = self.send(function, slot, level, &words).await;
            }
            Err(Failure::Unreachable) => {
                self.nodes.refresh_unless_recent().await;
                answer = self.send(function, slot, level, &words).await;
            }
            _ => {}
        }
        answer.map_err(|failure| match failure {
            Failure::Answer(error, _) => classify(&error, named_segment(&error, segments)),
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
        level: Durability,
        words: &impl Fn() -> Vec<Value>,
    ) -> Result<String, Failure> {
        let mut node = self
            .nodes
            .of(slot)
            .filter(|node| node.client.is_connected())
            .ok_or(Failure::Unreachable)?;
        let mut fit = self.fit(&node, level).await?;
        if let Some(wait) = Wait::of(level, fit.on_disk) {
            let line = self.nodes.for_wait(&node, wait).await;
            node = line.map_err(Failure::Unfit)?;
            fit = self.fit(&node, level).await?;
        }
        let client = node.client.with_options(&options(self.timeout));
        // Not fred's own `fcall`: it counts as a blocking command and switches the client's checks of the connection off.
        let fcall = CustomCommand::new_static("FCALL", ClusterHash::FirstKey, false);
        let wait = Wait::of(level, fit.on_disk);
        let result = match wait {
            None => client.custom(fcall, words()).await.map_err(Refusal::Answer),
            Some(wait) => self.send_and_wait(client, fcall, words(), wait).await,
        };
        match result {
            // The client has connected again in between: perhaps that server, not checked yet, has executed the call.
            Ok(text) if function.writes && node.connections() != fit.connection => {
                match self.nodes.check(&node, level).await {
                    Ok(_) => Ok(text),
                    Err(error) => Err(Failure::Written(format!(
                        "perhaps by a server that may lose it: {error}"
                    ))),
                }
            }
            Ok(text) => Ok(text),
            Err(Refusal::Answer(error)) => Err(Failure::Answer(error, node)),
            Err(Refusal::Wait(why)) => Err(Failure::Written(why)),
        }
    }

    /// What a node was found to be over its connection of now.
    async fn fit(&self, node: &Node, level: Durability) -> Result<Fit, Failure> {
        let fit = self.nodes.check(node, level).await;
        fit.map_err(|error| match error {
            // The connection was lost again: as if there had never been one.
            _ if !node.client.is_connected() => Failure::Unreachable,
            error => Failure::Unfit(error),
        })
    }

    /// `WAIT` and `WAITAOF` wait for all that the server had written when the last command of their own connection had run, a
    /// replay's first answer included: the pipeline keeps both on the same one.
    async fn send_and_wait(
        &self,
        client: WithOptions<Client>,
        fcall: CustomCommand,
        words: Vec<Value>,
        wait: Wait,
    ) -> Result<String, Refusal> {
        let (command, args) = wait.command(self.timeout);
        let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
        let pipeline = Pipeline::from(client);
        let queued = |error| Refusal::Answer(error);
        let _: Value = pipeline.custom(fcall, words).await.map_err(queued)?;
        let _: Value = pipeline.custom(command, args).await.map_err(queued)?;
        let mut results = pipeline.try_all::<Value>().await.into_iter();
        let missing = || Error::new(ErrorKind::Protocol, "the pipeline has no answer");
        let text = results
            .next()
            .unwrap_or_else(|| Err(missing()))
            .and_then(Value::convert)
            .map_err(Refusal::Answer)?;
        // From here on the call has run: whatever is wrong now, "nothing was executed" would be a lie.
        match results.next().unwrap_or_else(|| Err(missing())) {
            Ok(answer) => wait.judge(&answer).map(|()| text).map_err(Refusal::Wait),
            Err(error) => Err(Refusal::Wait(format!(
                "whether it is safe cannot be asked: {error}"
            ))),
        }
    }
}

/// Which of a call's segments an error is about: it may end with its place.
fn named_segment<'a>(error: &Error, segments: &'a [Arc<SegmentKeys>]) -> &'a SegmentId {
    let place = error.details().rsplit_once(" @");
    let place = place.and_then(|(_, place)| place.parse::<usize>().ok());
    let named = place.and_then(|place| segments.get(place));
    &named.unwrap_or(&segments[0]).segment
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
    /// It was written, and is not known to be as durable as it should, and why.
    Wait(String),
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
