//! The `[seckill]` table of the configuration: what was written → what the engine uses.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::{
    sale::parse_duration_ms,
    store::{Durability, embedded},
};

/// Long enough for a disk or a Redis that stalls for a moment, short enough that a buyer's browser is still there.
const PURCHASE_DEADLINE: Duration = Duration::from_secs(2);
/// A consumer that has not acknowledged for this long is taken for dead; far above one settlement batch.
const RECLAIM_AFTER: Duration = Duration::from_secs(30);

/// The table as written. Unknown keys are errors.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// `embedded:FOLDER`, `redis://HOST:PORT` or `redis-cluster://HOST:PORT,HOST:PORT`.
    pub store: Option<String>,
    /// `sqlite:FILE` or `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub ledger: Option<String>,
    /// Where the buyer's identity stands: `header:NAME`.
    pub buyer: Option<String>,
    /// `fast`, `replicated` (Redis only) or `durable`.
    pub durability: Option<String>,
    /// `auto` or `plain`; how the embedded journal is written.
    pub journal: Option<String>,
    /// Longest wait for the store's verdict before the answer is "not known yet".
    pub purchase_deadline: Option<String>,
    /// After how long another consumer takes over entries that were not acknowledged.
    pub reclaim_after: Option<String>,
    /// The shop's endpoint for settled, paid and released orders.
    pub downstream: Option<RawDownstream>,
}

/// `[seckill.downstream]` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDownstream {
    /// `http://HOST:PORT/PATH`.
    pub url: Option<String>,
    /// File that holds the signing secret.
    pub secret_file: Option<PathBuf>,
    /// Environment variable that holds the signing secret.
    pub secret_env: Option<String>,
}

/// Where stock is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// In this process, with a journal in this folder.
    Embedded(PathBuf),
    /// In Redis; the URL as written.
    Redis(String),
}

/// The shop's endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownstreamConfig {
    /// Where events are posted.
    pub url: String,
    /// Key of the signature.
    pub secret: Vec<u8>,
}

/// The table in use.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where stock is kept.
    pub store: StoreConfig,
    /// URL of the ledger database.
    pub ledger: String,
    /// Lower-case name of the header that carries the buyer.
    pub buyer_header: String,
    /// How safe an answered order is.
    pub durability: Durability,
    /// How the embedded journal is written.
    pub journal: embedded::Method,
    /// Longest wait for a verdict.
    pub purchase_deadline: Duration,
    /// When unacknowledged entries are taken over.
    pub reclaim_after: Duration,
    /// Where events go, if anywhere.
    pub downstream: Option<DownstreamConfig>,
}

impl RawConfig {
    /// Checks every key; all problems at once, each as `seckill.key = value: what is allowed`.
    pub fn build(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&std::path::Path) -> std::io::Result<Vec<u8>>,
    ) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let mut bad = |key: &str, value: &str, allowed: &str| {
            problems.push(format!("seckill.{key} = \"{value}\": {allowed}"));
        };

        let store_text = self.store.as_deref().unwrap_or("embedded:data");
        let store = match store_text.split_once(':') {
            Some(("embedded", folder)) if !folder.is_empty() => {
                StoreConfig::Embedded(folder.into())
            }
            Some(("redis" | "redis-cluster", rest)) if rest.starts_with("//") && rest.len() > 2 => {
                StoreConfig::Redis(store_text.to_owned())
            }
            _ => {
                bad(
                    "store",
                    store_text,
                    "must be embedded:FOLDER, redis://HOST:PORT or redis-cluster://HOST:PORT,…",
                );
                StoreConfig::Embedded("data".into())
            }
        };
        let ledger = self
            .ledger
            .clone()
            .unwrap_or_else(|| "sqlite:data/penstock.db".into());
        let known = ["sqlite:", "postgres://", "postgresql://"];
        if !known
            .iter()
            .any(|scheme| ledger.len() > scheme.len() && ledger.starts_with(scheme))
        {
            bad(
                "ledger",
                &ledger,
                "must be sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE",
            );
        }
        let buyer = self.buyer.as_deref().unwrap_or("header:x-buyer-id");
        let header = buyer
            .strip_prefix("header:")
            .and_then(|name| name.parse::<http::HeaderName>().ok());
        if header.is_none() {
            bad(
                "buyer",
                buyer,
                "must be header:NAME with a valid header name",
            );
        }
        let durability = match (self.durability.as_deref().unwrap_or("durable"), &store) {
            ("fast", _) => Durability::Fast,
            ("durable", _) => Durability::Durable,
            ("replicated", StoreConfig::Redis(_)) => Durability::Replicated,
            ("replicated", StoreConfig::Embedded(_)) => {
                bad(
                    "durability",
                    "replicated",
                    "needs a Redis store; the embedded store allows fast and durable",
                );
                Durability::Durable
            }
            (other, _) => {
                bad("durability", other, "must be fast, replicated or durable");
                Durability::Durable
            }
        };
        let journal = match self.journal.as_deref().unwrap_or("auto") {
            "auto" => embedded::Method::Auto,
            "plain" => embedded::Method::Plain,
            other => {
                bad("journal", other, "must be auto or plain");
                embedded::Method::Auto
            }
        };
        let mut duration = |key: &str,
                            text: &Option<String>,
                            default: Duration,
                            min_ms: u64,
                            max_ms: u64| {
            let Some(text) = text else { return default };
            match parse_duration_ms(text).filter(|ms| (min_ms..=max_ms).contains(ms)) {
                Some(ms) => Duration::from_millis(ms),
                None => {
                    bad(
                        key,
                        text,
                        &format!(
                            "must be a duration from {min_ms}ms to {max_ms}ms, as in 250ms or 30s"
                        ),
                    );
                    default
                }
            }
        };
        let purchase_deadline = duration(
            "purchase_deadline",
            &self.purchase_deadline,
            PURCHASE_DEADLINE,
            10,
            60_000,
        );
        let reclaim_after = duration(
            "reclaim_after",
            &self.reclaim_after,
            RECLAIM_AFTER,
            1_000,
            3_600_000,
        );
        let downstream = self
            .downstream
            .as_ref()
            .and_then(|raw| raw.build(env, read, &mut bad));

        match (problems.is_empty(), header) {
            (true, Some(header)) => Ok(Config {
                store,
                ledger,
                buyer_header: header.as_str().to_owned(),
                durability,
                journal,
                purchase_deadline,
                reclaim_after,
                downstream,
            }),
            _ => Err(problems),
        }
    }
}

impl RawDownstream {
    fn build(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&std::path::Path) -> std::io::Result<Vec<u8>>,
        bad: &mut impl FnMut(&str, &str, &str),
    ) -> Option<DownstreamConfig> {
        let url = self.url.clone().unwrap_or_default();
        let is_http = url
            .parse::<http::Uri>()
            .is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
        if !is_http {
            bad("downstream.url", &url, "must be http://HOST:PORT/PATH");
        }
        let secret = match (&self.secret_file, &self.secret_env) {
            (Some(path), None) => match read(path) {
                Ok(bytes) => Some(bytes.trim_ascii().to_vec()),
                Err(error) => {
                    bad(
                        "downstream.secret_file",
                        &path.display().to_string(),
                        &error.to_string(),
                    );
                    None
                }
            },
            (None, Some(name)) => {
                let found = env(name);
                if found.is_none() {
                    bad(
                        "downstream.secret_env",
                        name,
                        "is not set in the environment",
                    );
                }
                found.map(String::into_bytes)
            }
            _ => {
                bad(
                    "downstream",
                    "",
                    "must give exactly one of secret_file and secret_env",
                );
                None
            }
        };
        if secret.as_ref().is_some_and(|secret| secret.len() < 16) {
            bad("downstream.secret", "…", "must be at least 16 bytes long");
            return None;
        }
        is_http.then_some(())?;
        Some(DownstreamConfig {
            url,
            secret: secret?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Result<Config, Vec<String>> {
        let raw: RawConfig = toml::from_str(text).expect("the keys are known");
        raw.build(&|_| None, &|_| Err(std::io::ErrorKind::NotFound.into()))
    }

    #[test]
    fn an_empty_table_is_the_embedded_default() {
        let config = build("").unwrap();
        assert_eq!(config.store, StoreConfig::Embedded("data".into()));
        assert_eq!(
            (config.buyer_header.as_str(), config.durability),
            ("x-buyer-id", Durability::Durable)
        );
    }

    #[test]
    fn all_problems_are_told_at_once_with_key_and_value() {
        let problems = build(
            "store = \"mysql:x\"\nledger = \"x\"\nbuyer = \"cookie:a\"\ndurability = \"high\"\npurchase_deadline = \"1d\"\n\
             [downstream]\nurl = \"ftp://x\"",
        )
        .unwrap_err();
        assert_eq!(problems.len(), 7, "{problems:#?}");
        assert!(problems[0].starts_with("seckill.store = \"mysql:x\": must be"));
    }

    #[test]
    fn replicated_needs_redis() {
        assert!(build("durability = \"replicated\"").is_err());
        assert!(build("store = \"redis://h:1\"\ndurability = \"replicated\"").is_ok());
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        assert!(toml::from_str::<RawConfig>("stor = \"embedded:x\"").is_err());
    }
}
