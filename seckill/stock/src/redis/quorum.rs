//! Independent Redis servers that vote on one key: the hands of Redlock (<https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/>),
//! whose rule is the caller's.

use std::time::Duration;

use fred::types::{Value, config::Config};

use super::{
    RedisOptions,
    connect::{self, ask},
    node::Node,
};
use crate::StockError;

/// Prolongs a key only for the one whose value it has.
const KEEP: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";
/// Deletes it under the same condition.
const GIVE_UP: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Servers that know nothing of one another.
pub struct Quorum {
    voters: Vec<Voter>,
    options: RedisOptions,
}

struct Voter {
    config: Config,
    /// Connected when it was first reached; a client connects again by itself after that.
    node: tokio::sync::Mutex<Option<Node>>,
}

impl Quorum {
    /// Reads the addresses; connects to nobody yet, because a dead minority must not keep anybody from starting.
    pub fn try_new(urls: &[String], options: RedisOptions) -> Result<Self, StockError> {
        let voters = urls.iter().map(|url| {
            Ok(Voter {
                config: connect::config(url, &options)?,
                node: tokio::sync::Mutex::default(),
            })
        });
        Ok(Self {
            voters: voters.collect::<Result<_, StockError>>()?,
            options,
        })
    }

    /// How many servers there are.
    pub fn size(&self) -> usize {
        self.voters.len()
    }

    /// Sets the key where nobody has it; answers how many did.
    pub async fn take(&self, key: &str, value: &str, lasts: Duration) -> usize {
        let lasts = lasts.as_millis().to_string();
        self.votes("SET", &[key, value, "NX", "PX", &lasts]).await
    }

    /// Prolongs the key where it still has the value; answers how many did.
    pub async fn keep(&self, key: &str, value: &str, lasts: Duration) -> usize {
        let lasts = lasts.as_millis().to_string();
        self.votes("EVAL", &[KEEP, "1", key, value, &lasts]).await
    }

    /// Deletes the key where it still has the value.
    pub async fn give_up(&self, key: &str, value: &str) {
        self.votes("EVAL", &[GIVE_UP, "1", key, value]).await;
    }

    /// Asks all at once; a server that does not answer in time does not vote.
    async fn votes(&self, command: &'static str, args: &[&str]) -> usize {
        let asked = self
            .voters
            .iter()
            .map(|voter| self.vote(voter, command, args));
        let votes = futures_util::future::join_all(asked).await;
        votes.into_iter().filter(|is_for| *is_for).count()
    }

    async fn vote(&self, voter: &Voter, command: &'static str, args: &[&str]) -> bool {
        let timeout = self.options.timeout;
        let answer = tokio::time::timeout(timeout, async {
            let mut node = voter.node.lock().await;
            if node.is_none() {
                let server = voter.config.server.hosts().into_iter().next()?;
                let opened = connect::open(&voter.config, &self.options, server).await;
                *node = opened.ok();
            }
            let node = node.as_ref()?;
            ask(&node.client, timeout, command, args.to_vec())
                .await
                .ok()
        })
        .await;
        match answer {
            Ok(Some(Value::String(text))) => text == "OK",
            Ok(Some(Value::Integer(number))) => number == 1,
            _ => false,
        }
    }
}
