//! Opens the connections to Redis, refuses a server that cannot keep the store's promises, and loads the function library.

use std::time::Duration;

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface},
    types::{
        Builder, ClusterHash, CustomCommand, Value,
        config::{Config, ReconnectPolicy, Server, ServerConfig, UnresponsiveConfig},
    },
};

use super::{
    RedisOptions, call,
    durability::{self, OnDisk},
    failure::Unusable,
    node::Node,
};
use crate::{Durability, StockError};

/// The stock functions; `library/base.lua` says how they work.
const LIBRARY: &str = concat!(
    include_str!("library/base.lua"),
    include_str!("library/holders.lua"),
    include_str!("library/segment.lua"),
    include_str!("library/buy.lua"),
    include_str!("library/cart.lua"),
    include_str!("library/orders.lua"),
    include_str!("library/queue.lua"),
    include_str!("library/rebuild.lua"),
);

/// Its name, as its first line says.
const LIBRARY_NAME: &str = "penstock_v3";

/// Functions came with Redis 7.
const MIN_MAJOR_VERSION: u32 = 7;

/// First and longest pause between attempts to connect again: short enough that a restarted server is used within a second,
/// long enough that a dead one is not hammered.
const RECONNECT_MS: (u32, u32) = (50, 1_000);

/// Reads the address; the password of the options goes before one in it.
pub(super) fn config(url: &str, options: &RedisOptions) -> Result<Config, StockError> {
    let mut config = fred_url(url)
        .and_then(|url| Config::from_url(&url))
        .map_err(|error| unavailable(format!("{}: {}", without_secret(url), error.details())))?;
    if options.password.is_some() {
        config.username = options.username.clone();
        config.password = options.password.clone();
    }
    Ok(config)
}

/// Connects to one server and checks it, its library among the rest.
pub(super) async fn prepare(
    config: &Config,
    options: &RedisOptions,
    server: Server,
) -> Result<Node, Unusable> {
    let node = open(config, options, server).await?;
    node.check(options, Durability::Fast).await?;
    Ok(node)
}

/// Connects to one server.
pub(super) async fn open(
    config: &Config,
    options: &RedisOptions,
    server: Server,
) -> Result<Node, Unusable> {
    let failed = |error: Error| {
        let why = format!("cannot connect to redis at {server}: {error}");
        Unusable::new(&error, why)
    };
    let mut config = config.clone();
    config.server = ServerConfig::Centralized {
        server: server.clone(),
    };
    let client = Builder::from_config(config)
        .with_performance_config(|performance| {
            performance.default_command_timeout = options.timeout
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = options.timeout;
            connection.internal_command_timeout = options.timeout;
            // No second sending; see `call.rs`.
            connection.max_command_attempts = 1;
            // A server that accepts but never answers: give its connection up, so that callers hear "unavailable" at once
            // in place of a timeout each.
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(options.timeout * 2),
                interval: options.timeout / 2,
            };
        })
        // 0: try for ever.
        .set_policy(ReconnectPolicy::new_exponential(
            0,
            RECONNECT_MS.0,
            RECONNECT_MS.1,
            2,
        ))
        .build()
        .map_err(failed)?;
    let reconnects = client.reconnect_rx();
    // Twice: the connection and the greeting each have their own timeout.
    let connection = tokio::time::timeout(options.timeout * 2, client.init())
        .await
        .map_err(|_| failed(Error::new(ErrorKind::Timeout, "no answer in time")))?
        .map_err(failed)?;
    Ok(Node::new(server, client, connection, reconnects))
}

/// Loads the library into a server, in place of what it has under that name. Replicas and the append-only file get it from there.
pub(super) async fn load_library(
    client: &Client,
    at: &Server,
    timeout: Duration,
) -> Result<(), Unusable> {
    let loaded = ask(
        client,
        timeout,
        "FUNCTION",
        vec!["LOAD", "REPLACE", LIBRARY],
    )
    .await;
    loaded.map(drop).map_err(|error| {
        let why = format!("cannot load the stock functions into redis at {at}: {error}");
        Unusable::new(&error, why)
    })
}

/// Whether a server has the library, this very text of it.
async fn has_library(client: &Client, timeout: Duration) -> Result<bool, Error> {
    let list = vec!["LIST", "LIBRARYNAME", LIBRARY_NAME, "WITHCODE"];
    let listed = ask(client, timeout, "FUNCTION", list).await?;
    Ok(contains_text(&listed, LIBRARY))
}

fn contains_text(value: &Value, text: &str) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| contains_text(value, text)),
        value => value.as_str().is_some_and(|value| value == text),
    }
}

/// Ours is `redis-cluster://host:port,host:port`; fred's is `redis-cluster://host:port?node=host:port`.
fn fred_url(url: &str) -> Result<String, Error> {
    let bad = |why: &'static str| Error::new(ErrorKind::Url, why);
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| bad("expected redis://… or redis-cluster://…"))?;
    match scheme {
        "redis" if rest.contains(',') => Err(bad("several addresses need redis-cluster://")),
        "redis" => Ok(url.to_owned()),
        "redis-cluster" => {
            let (credentials, hosts) = rest
                .rsplit_once('@')
                .map_or(("", rest), |(user, hosts)| (user, hosts));
            let mut hosts = hosts.trim_end_matches('/').split(',');
            let at = if credentials.is_empty() { "" } else { "@" };
            let mut fred = format!(
                "redis-cluster://{credentials}{at}{}",
                hosts.next().unwrap_or_default()
            );
            for (index, host) in hosts.enumerate() {
                fred.push_str(if index == 0 { "?node=" } else { "&node=" });
                fred.push_str(host);
            }
            Ok(fred)
        }
        _ => Err(bad(
            "the scheme must be redis or redis-cluster (TLS to redis is not supported)",
        )),
    }
}

/// The address as it may be shown: credentials are cut out.
pub(super) fn without_secret(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, hosts))) => format!("{scheme}://…@{hosts}"),
        _ => url.to_owned(),
    }
}

/// Whether the server's version and settings keep the store's promises; gives it the library if it has another or none. Answers how
/// durable it can be.
pub(super) async fn check(
    client: &Client,
    at: &Server,
    options: &RedisOptions,
) -> Result<OnDisk, Unusable> {
    let failed = |error: Error| {
        let why = format!("cannot read the settings of redis at {at}: {error}");
        Unusable::new(&error, why)
    };
    let unfit = |why: String| Err(Unusable::Unfit(unavailable(why)));
    let info: String = ask(client, options.timeout, "INFO", vec!["everything"])
        .await
        .and_then(Value::convert)
        .map_err(failed)?;

    let version = field(&info, "redis_version");
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let version_number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version_number.0 < MIN_MAJOR_VERSION {
        return unfit(format!(
            "redis at {at} is version {version}; the stock functions need redis ≥ 7 or valkey"
        ));
    }
    let policy = field(&info, "maxmemory_policy");
    if policy != "noeviction" {
        return unfit(format!(
            "redis at {at} has maxmemory-policy {policy}: it may throw stock away when memory is short; run \
             `CONFIG SET maxmemory-policy noeviction` and `CONFIG REWRITE`, or put it into redis.conf"
        ));
    }
    let has_aof = field(&info, "aof_enabled") == "1";
    // Only asked where it matters: some providers forbid CONFIG.
    let settings: Vec<String> = if has_aof {
        let get = vec!["GET", "appendfsync", "no-appendfsync-on-rewrite"];
        let answer = ask(client, options.timeout, "CONFIG", get).await;
        match answer.and_then(Value::convert) {
            Err(error) if options.durability == Durability::Durable => return Err(failed(error)),
            answer => answer.unwrap_or_default(),
        }
    } else {
        Vec::new()
    };
    // Name and value by turns, in any order.
    let setting = |name: &str| {
        let mut pairs = settings.chunks_exact(2);
        let found = pairs.find(|pair| pair[0] == name);
        found.map_or("", |pair| pair[1].as_str())
    };
    let rests_on_rewrite = setting("no-appendfsync-on-rewrite") == "yes";
    let appendfsync = setting("appendfsync");
    let on_disk = OnDisk::of(version_number, has_aof, appendfsync, rests_on_rewrite);
    if !on_disk.gives(options.durability) {
        return Err(Unusable::Unfit(durability::refusal(at, options.durability)));
    }
    if !has_library(client, options.timeout).await.map_err(failed)? {
        load_library(client, at, options.timeout).await?;
    }
    Ok(on_disk)
}

/// Any command but a stock function.
pub(super) async fn ask(
    client: &Client,
    timeout: Duration,
    command: &'static str,
    args: Vec<&str>,
) -> Result<Value, Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    client
        .with_options(&call::options(timeout))
        .custom(command, args)
        .await
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or("")
        .trim()
}

pub(super) fn unavailable(why: String) -> StockError {
    StockError::Unavailable(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_addresses_become_the_clients_form() {
        let cases = [
            ("redis://h:1/2", "redis://h:1/2"),
            ("redis-cluster://a:1", "redis-cluster://a:1"),
            (
                "redis-cluster://a:1,b:2,c:3",
                "redis-cluster://a:1?node=b:2&node=c:3",
            ),
            (
                "redis-cluster://u:p@a:1,b:2",
                "redis-cluster://u:p@a:1?node=b:2",
            ),
        ];
        for (ours, theirs) in cases {
            assert_eq!(fred_url(ours).unwrap(), theirs);
        }
        for bad in ["rediss://a:1", "a:1", "redis://a:1,b:2", "postgres://a"] {
            assert!(fred_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        assert_eq!(without_secret("redis://u:hush@h:1"), "redis://…@h:1");
        assert_eq!(without_secret("redis://h:1"), "redis://h:1");
    }
}
