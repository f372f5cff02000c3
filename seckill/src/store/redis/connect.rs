//! Opens the connections to Redis, refuses a server that cannot keep the store's promises, and loads the function library.

use std::time::Duration;

use fred::{
    clients::{Client, WithOptions},
    error::Error,
    interfaces::{ClientLike, ClusterInterface},
    types::{
        Builder, ClusterHash, ConnectHandle, CustomCommand, Value,
        config::{Config, ReconnectPolicy, Server, UnresponsiveConfig},
    },
};

use super::{Durability, RedisOptions, call};
use crate::store::StockError;

/// The stock functions. `library.lua` says what they do.
const LIBRARY: &str = include_str!("library.lua");

/// Functions came with Redis 7.
const MIN_MAJOR_VERSION: u32 = 7;

/// First and longest pause between attempts to connect again: short enough that a restarted server is used within a second,
/// long enough that a dead one is not hammered.
const RECONNECT_MS: (u32, u32) = (50, 1_000);

/// How often a command may be written. More than once happens only after `MOVED` or `ASK`; see `call.rs`.
const MAX_ATTEMPTS: u32 = 3;

/// Connects, checks every primary and loads the library.
pub(super) async fn connect(url: &str, options: &RedisOptions) -> Result<(Client, ConnectHandle), StockError> {
    let client = build(url, options).map_err(|error| unavailable(format!("{}: {error}", without_secret(url))))?;
    // Twice: finding the cluster's nodes and then connecting to them each have their own timeout.
    let task = tokio::time::timeout(options.timeout * 2, client.init())
        .await
        .map_err(|_| unavailable(format!("cannot connect to {}: no answer in time", without_secret(url))))?
        .map_err(|error| unavailable(format!("cannot connect to {}: {error}", without_secret(url))))?;
    let checked = async {
        for server in primaries(&client) {
            check(&client, server, options).await?;
        }
        load_library(&client, options.timeout).await
    };
    if let Err(error) = checked.await {
        task.abort();
        return Err(error);
    }
    Ok((client, task))
}

/// Loads the library on every primary, in place of what it has under that name. Replicas and the AOF get it from there.
pub(super) async fn load_library(client: &Client, timeout: Duration) -> Result<(), StockError> {
    for server in primaries(client) {
        let at = name(&server);
        ask(client, server, timeout, "FUNCTION", vec!["LOAD", "REPLACE", LIBRARY])
            .await
            .map_err(|error| unavailable(format!("cannot load the stock functions into {at}: {error}")))?;
    }
    Ok(())
}

fn build(url: &str, options: &RedisOptions) -> Result<Client, Error> {
    let mut config = Config::from_url(&fred_url(url)?)?;
    if options.password.is_some() {
        config.username = options.username.clone();
        config.password = options.password.clone();
    }
    Builder::from_config(config)
        .with_performance_config(|performance| performance.default_command_timeout = options.timeout)
        .with_connection_config(|connection| {
            connection.connection_timeout = options.timeout;
            connection.internal_command_timeout = options.timeout;
            connection.max_command_attempts = MAX_ATTEMPTS;
            // A server that accepts but never answers: give its connection up, so that callers hear "unavailable" at once
            // in place of a timeout each.
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(options.timeout * 2), interval: options.timeout / 2 };
        })
        // 0: try for ever.
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MS.0, RECONNECT_MS.1, 2))
        .build()
}

/// Ours is `redis-cluster://host:port,host:port`; fred's is `redis-cluster://host:port?node=host:port`.
fn fred_url(url: &str) -> Result<String, Error> {
    let bad = |why: &'static str| Error::new(fred::error::ErrorKind::Url, why);
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("expected redis://… or redis-cluster://…"))?;
    match scheme {
        "redis" if rest.contains(',') => Err(bad("several addresses need redis-cluster://")),
        "redis" => Ok(url.to_owned()),
        "redis-cluster" => {
            let (credentials, hosts) = rest.rsplit_once('@').map_or(("", rest), |(user, hosts)| (user, hosts));
            let mut hosts = hosts.trim_end_matches('/').split(',');
            let at = if credentials.is_empty() { "" } else { "@" };
            let mut fred = format!("redis-cluster://{credentials}{at}{}", hosts.next().unwrap_or_default());
            for (index, host) in hosts.enumerate() {
                fred.push_str(if index == 0 { "?node=" } else { "&node=" });
                fred.push_str(host);
            }
            Ok(fred)
        }
        _ => Err(bad("the scheme must be redis or redis-cluster (TLS to redis is not supported)")),
    }
}

/// The address as it may be shown: credentials are cut out.
pub(super) fn without_secret(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, hosts))) => format!("{scheme}://…@{hosts}"),
        _ => url.to_owned(),
    }
}

/// Every primary of a cluster; for a single server nothing but "the one".
fn primaries(client: &Client) -> Vec<Option<Server>> {
    match client.cached_cluster_state() {
        Some(cluster) => cluster.unique_primary_nodes().into_iter().map(Some).collect(),
        None => vec![None],
    }
}

fn name(server: &Option<Server>) -> String {
    server.as_ref().map_or_else(|| "the server".to_owned(), |server| format!("{}:{}", server.host, server.port))
}

async fn check(client: &Client, server: Option<Server>, options: &RedisOptions) -> Result<(), StockError> {
    let at = name(&server);
    let asked = |error| unavailable(format!("cannot read the settings of {at}: {error}"));
    let info: String =
        ask(client, server.clone(), options.timeout, "INFO", vec!["everything"]).await.map_err(asked)?.convert().map_err(asked)?;

    let version = field(&info, "redis_version");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < MIN_MAJOR_VERSION {
        return Err(unavailable(format!("{at} is redis {version}; the stock functions need redis ≥ 7 or valkey")));
    }
    let policy = field(&info, "maxmemory_policy");
    if policy != "noeviction" {
        return Err(unavailable(format!(
            "{at} has maxmemory-policy {policy}: it may throw stock away when memory is short; run `CONFIG SET maxmemory-policy noeviction`"
        )));
    }
    if options.durability == Durability::Durable {
        let fsync: Vec<String> = ask(client, server, options.timeout, "CONFIG", vec!["GET", "appendfsync"])
            .await
            .and_then(Value::convert)
            .map_err(asked)?;
        if field(&info, "aof_enabled") != "1" || fsync.get(1).is_none_or(|fsync| fsync != "always") {
            return Err(unavailable(format!(
                "{at} does not sync its append-only file before it answers, as durability \"durable\" promises; run \
                 `CONFIG SET appendfsync always` and `CONFIG SET appendonly yes`"
            )));
        }
    }
    Ok(())
}

async fn ask(
    client: &Client,
    server: Option<Server>,
    timeout: Duration,
    command: &'static str,
    args: Vec<&str>,
) -> Result<Value, Error> {
    let mut options = call::options(timeout);
    options.cluster_node = server;
    let client: WithOptions<Client> = client.with_options(&options);
    client.custom(CustomCommand::new_static(command, ClusterHash::Random, false), args).await
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim()
}

fn unavailable(why: String) -> StockError {
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
            ("redis-cluster://a:1,b:2,c:3", "redis-cluster://a:1?node=b:2&node=c:3"),
            ("redis-cluster://u:p@a:1,b:2", "redis-cluster://u:p@a:1?node=b:2"),
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
