//! The `[seckill]` table of the configuration: what was written → what the engine uses.

mod downstream;
mod keys;
mod reader;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

pub use self::{
    downstream::{DownstreamConfig, RawDownstream},
    keys::RawTokenKey,
};
use self::{
    keys::{read_key, token_keys},
    reader::Reader,
};
use crate::{
    api::{
        WaitingConfig,
        identity::{Identity, Jwt},
    },
    entitlement::TokenKeys,
    ledger::LedgerDurability,
    recovery::{Moving, Place},
    store::{Durability, embedded},
};

/// Long enough for a disk or a Redis that stalls for a moment, short enough that a buyer's browser is still there.
const PURCHASE_DEADLINE: Duration = Duration::from_secs(2);
/// A consumer that has not acknowledged for this long is taken for dead; far above one settlement batch.
const RECLAIM_AFTER: Duration = Duration::from_secs(30);
/// Ten years: longer is no bound at all.
const MAX_RETAIN_MS: u64 = 3650 * 24 * 3_600_000;
/// Shorter secrets of a MAC can be guessed offline.
const SECRET_MIN: usize = 16;
const SECRET_TOO_SHORT: &str = "must be at least 16 bytes long";

/// The table as written. Unknown keys are errors.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// `embedded:FOLDER`, `redis://HOST:PORT` or `redis-cluster://HOST:PORT,HOST:PORT`.
    pub store: Option<String>,
    /// User of the Redis password, where it belongs to one.
    pub redis_username: Option<String>,
    /// File with the Redis password.
    pub redis_password_file: Option<PathBuf>,
    /// Environment variable with the Redis password.
    pub redis_password_env: Option<String>,
    /// `sqlite:FILE` or `postgres://USER@HOST/DATABASE`; the password comes from `PGPASSWORD` or `~/.pgpass`.
    pub ledger: Option<String>,
    /// Where the buyer's identity stands: `header:NAME` or `jwt:sub`.
    pub buyer: Option<String>,
    /// How tokens are checked, with `buyer = "jwt:sub"`.
    pub jwt: Option<RawJwt>,
    /// `fast`, `replicated` (Redis only) or `durable`.
    pub durability: Option<String>,
    /// `local`, or `replicated` (PostgreSQL with a synchronous standby only): when a commit of the ledger counts.
    pub ledger_durability: Option<String>,
    /// `plain`, or `auto` for io_uring where the kernel allows it; how the embedded journal is written.
    pub journal: Option<String>,
    /// How much journal the embedded store gathers before it writes a snapshot, as in `256MiB`.
    pub snapshot_every: Option<String>,
    /// How long after its window and time to pay the orders of a settled sale stay in the embedded store, as in `7d`.
    pub retain_ended: Option<String>,
    /// Longest wait for the store's verdict before the answer is "not known yet".
    pub purchase_deadline: Option<String>,
    /// After how long another consumer takes over entries that were not acknowledged.
    pub reclaim_after: Option<String>,
    /// Whether a store at another address than before may be filled from the ledger when it has nothing: `false` unless it was moved
    /// and its data is lost.
    pub rebuild_elsewhere: Option<bool>,
    /// Independent Redis servers whose majority elects who rebuilds a segment; without them the ledger's database does.
    pub recovery_locks: Option<Vec<String>>,
    /// Where settled, paid, released and refused orders are told.
    #[serde(default, deserialize_with = "downstream::one_receiver")]
    pub downstream: Option<RawDownstream>,
    /// The keys of entitlement tokens; the first HS256 key mints.
    #[serde(default)]
    pub token_keys: Vec<RawTokenKey>,
    /// File with the key of one-time codes at stores.
    pub checkin_key_file: Option<PathBuf>,
    /// Environment variable with the same.
    pub checkin_key_env: Option<String>,
    /// How many buyers may wait for news of their orders, and for how long.
    pub waiting: Option<RawWaiting>,
}

/// `[seckill.waiting]` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawWaiting {
    /// Longest wait of one request.
    pub max_wait: Option<String>,
    /// Requests and event streams that may wait on this node at once.
    pub per_node: Option<i64>,
    /// The same of one buyer.
    pub per_buyer: Option<i64>,
}

/// `[seckill.jwt]` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawJwt {
    /// `HS256`, `RS256`, `ES256` or `EdDSA`.
    pub algorithm: Option<String>,
    /// File with the shared secret (HS256) or the public key in PEM.
    pub key_file: Option<PathBuf>,
    /// Environment variable with the same.
    pub key_env: Option<String>,
    /// Required `iss`.
    pub issuer: Option<String>,
    /// Required `aud`.
    pub audience: Option<String>,
}

/// Where stock is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// In this process, with a journal in this folder.
    Embedded(PathBuf),
    /// In Redis.
    Redis {
        /// As written.
        url: String,
        /// User of the password.
        username: Option<String>,
        /// Kept out of the URL, and so out of logs.
        password: Option<String>,
    },
}

impl StoreConfig {
    /// Where it is.
    pub fn place(&self) -> Place {
        match self {
            Self::Embedded(folder) => Place::of_folder(folder),
            Self::Redis { url, .. } => Place::of_redis(url),
        }
    }
}

/// The table in use.
#[derive(Clone)]
pub struct Config {
    /// Where stock is kept.
    pub store: StoreConfig,
    /// URL of the ledger database.
    pub ledger: String,
    /// When a commit of it counts.
    pub ledger_durability: LedgerDurability,
    /// Who says who buys.
    pub buyer: Identity,
    /// How safe an answered order is.
    pub durability: Durability,
    /// How the embedded journal is written.
    pub journal: embedded::Method,
    /// When the embedded store writes a snapshot, in bytes of journal.
    pub snapshot_every: u64,
    /// How long ended and settled sales keep their orders in the embedded store.
    pub retain_ended: Duration,
    /// Longest wait for a verdict.
    pub purchase_deadline: Duration,
    /// When unacknowledged entries are taken over.
    pub reclaim_after: Duration,
    /// What to do if the store was elsewhere and has nothing here.
    pub moving: Moving,
    /// Redis servers for the recovery lease; empty: the ledger's database keeps it.
    pub recovery_locks: Vec<String>,
    /// Where events go, if anywhere.
    pub downstream: Option<DownstreamConfig>,
    /// How buyers wait for news.
    pub waiting: WaitingConfig,
    /// The keys of entitlement tokens.
    pub token_keys: Arc<TokenKeys>,
    /// The key of one-time codes, if sales of slots are wanted.
    pub checkin_key: Option<Vec<u8>>,
}

impl std::fmt::Debug for Config {
    /// Without what may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl RawConfig {
    /// Checks every key; all problems at once, each as `seckill.key = value: what is allowed`.
    pub fn build(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Config, Vec<String>> {
        let mut reader = Reader::new(env, read);
        let store = self.store(&mut reader);
        let ledger = self
            .ledger
            .clone()
            .unwrap_or_else(|| "sqlite:data/penstock.db".into());
        let known = ["sqlite:", "postgres://", "postgresql://"];
        if !known
            .iter()
            .any(|scheme| ledger.len() > scheme.len() && ledger.starts_with(scheme))
        {
            reader.bad(
                "ledger",
                &ledger,
                "must be sqlite:FILE or postgres://USER@HOST/DATABASE",
            );
        }
        let ledger_durability = self.ledger_durability(&mut reader, &ledger);
        let buyer = self.buyer(&mut reader);
        let is_redis = matches!(store, StoreConfig::Redis { .. });
        let durability = self.durability.as_deref().unwrap_or("durable");
        let durability = match Durability::from_name(durability) {
            Some(Durability::Replicated) if !is_redis => {
                let allowed = "needs a Redis store; the embedded store allows fast and durable";
                reader.bad("durability", durability, allowed);
                Durability::Durable
            }
            Some(level) => level,
            None => {
                reader.bad(
                    "durability",
                    durability,
                    "must be fast, replicated or durable",
                );
                Durability::Durable
            }
        };
        let journal = match self.journal.as_deref().unwrap_or("plain") {
            "auto" => embedded::Method::Auto,
            "plain" => embedded::Method::Plain,
            other => {
                reader.bad("journal", other, "must be auto or plain");
                embedded::Method::Auto
            }
        };
        let defaults = embedded::Tuning::default();
        let every = self.snapshot_every.as_deref();
        let snapshot_every = reader.size(
            "snapshot_every",
            every,
            defaults.snapshot_every,
            64 << 10..=1 << 40,
        );
        let retain = self.retain_ended.as_deref();
        let retain_ended = reader.duration(
            "retain_ended",
            retain,
            defaults.retain_ended,
            0..=MAX_RETAIN_MS,
        );
        let deadline = self.purchase_deadline.as_deref();
        let purchase_deadline = reader.duration(
            "purchase_deadline",
            deadline,
            PURCHASE_DEADLINE,
            10..=60_000,
        );
        let reclaim = self.reclaim_after.as_deref();
        let reclaim_after =
            reader.duration("reclaim_after", reclaim, RECLAIM_AFTER, 1_000..=3_600_000);
        let moving = match self.rebuild_elsewhere {
            Some(true) => Moving::Allowed,
            Some(false) | None => Moving::Asked,
        };
        let recovery_locks = self.recovery_locks(&mut reader);
        let downstream = self
            .downstream
            .as_ref()
            .and_then(|raw| raw.build(&mut reader));
        let waiting = self.waiting.clone().unwrap_or_default().build(&mut reader);
        let token_keys = Arc::new(token_keys(&mut reader, &self.token_keys));
        let file = self.checkin_key_file.as_deref();
        let checkin_key = reader.secret("checkin_key", file, self.checkin_key_env.as_deref());
        if checkin_key
            .as_ref()
            .is_some_and(|key| key.len() < SECRET_MIN)
        {
            reader.bad("checkin_key", "…", SECRET_TOO_SHORT);
        }
        let config = buyer.map(|buyer| Config {
            store,
            ledger,
            ledger_durability,
            buyer,
            durability,
            journal,
            snapshot_every,
            retain_ended,
            purchase_deadline,
            reclaim_after,
            moving,
            recovery_locks,
            downstream,
            waiting,
            token_keys,
            checkin_key,
        });
        reader.finish(config)
    }

    fn ledger_durability(&self, reader: &mut Reader<'_>, ledger: &str) -> LedgerDurability {
        let text = self.ledger_durability.as_deref().unwrap_or("local");
        match text {
            "local" => return LedgerDurability::Local,
            "replicated" if ledger.starts_with("postgres") => return LedgerDurability::Replicated,
            "replicated" => {
                let allowed = "needs a PostgreSQL ledger; SQLite allows local";
                reader.bad("ledger_durability", text, allowed);
            }
            _ => reader.bad("ledger_durability", text, "must be local or replicated"),
        }
        LedgerDurability::Local
    }

    fn store(&self, reader: &mut Reader<'_>) -> StoreConfig {
        let file = self.redis_password_file.as_deref();
        let password = reader.secret("redis_password", file, self.redis_password_env.as_deref());
        let text = self.store.as_deref().unwrap_or("embedded:data");
        match text.split_once(':') {
            Some(("embedded", folder)) if !folder.is_empty() => {
                StoreConfig::Embedded(folder.into())
            }
            Some(("redis" | "redis-cluster", rest)) if rest.starts_with("//") && rest.len() > 2 => {
                StoreConfig::Redis {
                    url: text.to_owned(),
                    username: self.redis_username.clone(),
                    password: password.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
                }
            }
            _ => {
                let allowed =
                    "must be embedded:FOLDER, redis://HOST:PORT or redis-cluster://HOST:PORT,…";
                reader.bad("store", text, allowed);
                StoreConfig::Embedded("data".into())
            }
        }
    }

    fn recovery_locks(&self, reader: &mut Reader<'_>) -> Vec<String> {
        let locks = self.recovery_locks.clone().unwrap_or_default();
        for lock in &locks {
            if !lock.starts_with("redis://") || lock.contains('@') || lock.contains(',') {
                let allowed = "must be redis://HOST:PORT, one server each; redis_username and redis_password_… hold for them too";
                reader.bad("recovery_locks", lock, allowed);
            }
        }
        // Of two servers neither may be lost, and an even number bears no more losses than one less.
        if !locks.is_empty() && (locks.len() < 3 || locks.len().is_multiple_of(2)) {
            let count = locks.len().to_string();
            reader.bad(
                "recovery_locks",
                &count,
                "must name 3, 5 or more servers, an odd number of them",
            );
        }
        locks
    }

    fn buyer(&self, reader: &mut Reader<'_>) -> Option<Identity> {
        let text = self.buyer.as_deref().unwrap_or("header:x-buyer-id");
        if text == "jwt:sub" {
            return self.jwt.clone().unwrap_or_default().build(reader);
        }
        if self.jwt.is_some() {
            reader.bad("jwt", "…", "is only read with buyer = \"jwt:sub\"");
        }
        let header = text
            .strip_prefix("header:")
            .and_then(|name| name.parse().ok());
        if header.is_none() {
            reader.bad(
                "buyer",
                text,
                "must be header:NAME with a valid header name, or jwt:sub",
            );
        }
        header.map(Identity::Header)
    }
}

impl RawJwt {
    fn build(&self, reader: &mut Reader<'_>) -> Option<Identity> {
        let read = read_key(
            reader,
            "jwt",
            &["HS256", "RS256", "ES256", "EdDSA"],
            self.algorithm.as_deref(),
            self.key_file.as_deref(),
            self.key_env.as_deref(),
        )?;
        let jwt = Jwt::new(
            read.verify,
            read.algorithm,
            self.issuer.as_deref(),
            self.audience.as_deref(),
        );
        Some(Identity::Jwt(Box::new(jwt)))
    }
}

impl RawWaiting {
    fn build(&self, reader: &mut Reader<'_>) -> WaitingConfig {
        let defaults = WaitingConfig::default();
        let wait = self.max_wait.as_deref();
        let (node, buyer) = (defaults.per_node, defaults.per_buyer);
        WaitingConfig {
            max_wait: reader.duration("waiting.max_wait", wait, defaults.max_wait, 1_000..=300_000),
            per_node: reader.count("waiting.per_node", self.per_node, node, 1..=1_000_000),
            per_buyer: reader.count("waiting.per_buyer", self.per_buyer, buyer, 1..=1_000),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests;
