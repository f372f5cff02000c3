//! `store` and what belongs to it: where stock is kept, and which servers elect who rebuilds it.

use std::path::PathBuf;

use settings::{Inputs, Section};

use crate::rebuild::StoreAddress;

const FOLDER: &str = "data";
const FORM: &str = "embedded:FOLDER, redis://HOST:PORT or redis-cluster://HOST:PORT,…";

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
    pub fn address(&self) -> StoreAddress {
        match self {
            Self::Embedded(folder) => StoreAddress::of_folder(folder),
            Self::Redis { url, .. } => StoreAddress::of_redis(url),
        }
    }

    /// Whether orders can wait for a replica.
    pub(super) fn is_redis(&self) -> bool {
        matches!(self, Self::Redis { .. })
    }
}

/// Reads `store` and `redis_…`.
pub(super) fn store(seckill: &Section<'_>, inputs: &Inputs<'_>) -> StoreConfig {
    let username = seckill.text("redis_username");
    let password = seckill.secret("redis_password", 1, inputs);
    let store = seckill.parsed("store", FORM, |text| match text.split_once(':')? {
        ("embedded", folder) if !folder.is_empty() => Some(StoreConfig::Embedded(folder.into())),
        ("redis" | "redis-cluster", rest) if rest.starts_with("//") && rest.len() > 2 => {
            Some(StoreConfig::Redis {
                url: text.to_owned(),
                username,
                password: password.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            })
        }
        _ => None,
    });
    store.unwrap_or_else(|| StoreConfig::Embedded(FOLDER.into()))
}

/// Reads `recovery_locks`.
pub(super) fn recovery_locks(seckill: &Section<'_>) -> Vec<String> {
    let form =
        "redis://HOST:PORT, one server each; redis_username and redis_password_… hold for them too";
    let read = |text: &str| {
        let is_one = text.starts_with("redis://") && !text.contains(['@', ',']);
        is_one.then(|| text.to_owned())
    };
    let named = seckill.texts("recovery_locks").map_or(0, |list| list.len());
    // Of two servers neither may be lost, and an even number bears no more losses than one less.
    if named > 0 && (named < 3 || named.is_multiple_of(2)) {
        seckill.problem(
            "recovery_locks",
            "must name 3, 5 or more servers, an odd number of them",
        );
    }
    seckill
        .list("recovery_locks", form, read)
        .unwrap_or_default()
}
