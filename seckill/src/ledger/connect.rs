//! Opens the database that the order ledger and the payment ledger share, and lays the order ledger's tables.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};

use sqlx::{AnyConnection, AnyPool, Connection, Executor, any::AnyPoolOptions};

use super::{LedgerError, migrate, no_sql};

/// The steps from an empty database to today's tables. A step that was released is never edited: changes are a new step.
const SCHEMA: [&str; 13] = [
    include_str!("sql/schema_1.sql"),
    include_str!("sql/schema_2.sql"),
    include_str!("sql/schema_order_version.sql"),
    include_str!("sql/schema_3.sql"),
    include_str!("sql/schema_sales.sql"),
    include_str!("sql/schema_transfers.sql"),
    include_str!("sql/schema_letters.sql"),
    include_str!("sql/schema_stuck.sql"),
    include_str!("sql/schema_places.sql"),
    include_str!("sql/schema_segment_orders.sql"),
    include_str!("sql/schema_audited.sql"),
    include_str!("sql/schema_installs.sql"),
    include_str!("sql/schema_metadata.sql"),
];
/// Settlement, reaper, deliveries and checkouts at once; PostgreSQL serves far more, but they would only queue for its disk.
const DEFAULT_CONNECTIONS: u32 = 16;
/// A caller that waits longer than this for a connection is better told so.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A pooled connection idle for longer is tried before use: a restarted server has closed it.
const IDLE_BEFORE_PING: Duration = Duration::from_secs(5);
/// SQLite's readers: enough that a report does not hold up a buyer who asks for an order; each is a thread.
const READERS: u32 = 4;

/// When a commit of the ledger counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LedgerDurability {
    /// When it is on the server's own disk.
    #[default]
    Local,
    /// When a synchronous standby has it on its disk as well. PostgreSQL only.
    Replicated,
}

/// How the pool is sized, and what a commit promises.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Most connections to PostgreSQL. SQLite always has one: it has one writer.
    pub max_connections: u32,
    /// Longest wait for a connection.
    pub acquire_timeout: Duration,
    /// Whether the caller is the restore whose mark may be beside the file.
    pub is_restoring: bool,
    /// When a commit counts.
    pub durability: LedgerDurability,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            max_connections: DEFAULT_CONNECTIONS,
            acquire_timeout: ACQUIRE_TIMEOUT,
            is_restoring: false,
            durability: LedgerDurability::Local,
        }
    }
}

/// [`connect_with`] the default options.
pub async fn connect(url: &str) -> Result<AnyPool, LedgerError> {
    connect_with(url, &ConnectOptions::default()).await
}

/// Connects to `sqlite:path` (the folder and the file are made if missing) or `postgres://…`, and lays the ledger's tables.
pub async fn connect_with(url: &str, options: &ConnectOptions) -> Result<AnyPool, LedgerError> {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);

    if options.durability == LedgerDurability::Replicated && !url.starts_with("postgres") {
        return Err(LedgerError::NotReplicated);
    }
    let pool = AnyPoolOptions::new()
        .acquire_timeout(options.acquire_timeout)
        // The default asks the server before every use, which costs a round trip for each transaction.
        .test_before_acquire(false)
        .before_acquire(|connection, used| {
            no_sql::check();
            Box::pin(async move {
                if used.idle_for > IDLE_BEFORE_PING {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    let pool = if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let file = Path::new(path.split('?').next().unwrap_or_default());
        if let Some(folder) = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            let failed = |error| {
                LedgerError::Address(format!("cannot make folder {}: {error}", folder.display()))
            };
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mark = restore_mark(file);
        if mark.exists() && !options.is_restoring {
            return Err(LedgerError::Unrestored(file.to_owned()));
        }
        let separator = if path.contains('?') { '&' } else { '?' };
        pool.max_connections(1)
            // The one connection is the database's writer: closing it for its age would only cost its caches.
            .max_lifetime(None)
            .idle_timeout(None)
            .before_acquire(|connection, _| {
                no_sql::check();
                let is_outside = is_outside_transaction(connection);
                Box::pin(async move { Ok(is_outside) })
            })
            .after_connect(|connection, _| Box::pin(prepare_sqlite(connection)))
            .connect(&format!("sqlite:{path}{separator}mode=rwc"))
            .await
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        let durability = options.durability;
        // By a connection of its own: a pool tries all the time and keeps the reason to itself (nobody listens, a wrong password).
        let first =
            tokio::time::timeout(options.acquire_timeout, AnyConnection::connect(url)).await;
        let mut first = first.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        if durability == LedgerDurability::Replicated && !has_standby(&mut first).await? {
            return Err(LedgerError::NotReplicated);
        }
        drop(first);
        pool.max_connections(options.max_connections.max(1))
            .after_connect(move |connection, _| Box::pin(prepare_postgres(connection, durability)))
            .connect(url)
            .await
    } else {
        return Err(LedgerError::Address(
            "must start with sqlite: or postgres://".to_owned(),
        ));
    };
    let pool = pool.map_err(|error| match error {
        sqlx::Error::Configuration(cause) => LedgerError::Address(cause.to_string()),
        other => other.into(),
    })?;
    migrate(&pool, "sale_schema", &SCHEMA).await?;
    Ok(pool)
}

/// What is beside a ledger while `penstock restore` has not put all of a node in place: either half by itself would sell units twice,
/// or lose orders.
pub(crate) fn restore_mark(file: &Path) -> PathBuf {
    let mut name = OsString::from(file.as_os_str());
    name.push(".unfinished-restore");
    PathBuf::from(name)
}

/// Connections that can only read the SQLite database behind `pool`, opened when they are first used: WAL lets them read what is
/// committed while the one connection of `pool` writes. `None` for a database in memory, which belongs to its connection.
pub(super) fn readers(pool: &AnyPool) -> Option<AnyPool> {
    let mut options = (*pool.connect_options()).clone();
    if options.database_url.path().contains(":memory:") {
        return None;
    }
    let kept: Vec<(String, String)> = options
        .database_url
        .query_pairs()
        .filter(|(name, _)| name != "mode")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    options
        .database_url
        .query_pairs_mut()
        .clear()
        .extend_pairs(kept)
        .append_pair("mode", "ro");
    let readers = pool
        .options()
        .clone()
        .max_connections(READERS)
        // A database in WAL mode says so itself, and only its writer may change that.
        .after_connect(|_, _| Box::pin(async { Ok(()) }));
    Some(readers.connect_lazy_with(options))
}

/// WAL keeps readers of other processes (backups, a shell) out of the writer's way; FULL makes a commit survive a power cut.
async fn prepare_sqlite(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    for pragma in [
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA busy_timeout = 5000",
    ] {
        connection.execute(pragma).await?;
    }
    Ok(())
}

/// Whether a connection may be used again. A commit and a rollback that both fail (for want of room) leave a transaction open, which
/// the driver still counts; whatever is "committed" after that would only be a savepoint in it, seen by nobody and gone with the
/// process. Such a connection is closed, which undoes what its callers were told had failed.
fn is_outside_transaction(connection: &AnyConnection) -> bool {
    let is_outside = !connection.is_in_transaction();
    if !is_outside {
        tracing::error!(
            "the ledger's connection is still in a transaction; it is closed and opened anew"
        );
    }
    is_outside
}

/// Bounds what a lost caller can hold, and lets no setting of the role or the database answer before a commit is on disk: an
/// order is acknowledged to the queue after it.
async fn prepare_postgres(
    connection: &mut AnyConnection,
    durability: LedgerDurability,
) -> Result<(), sqlx::Error> {
    // The server may have been configured anew since the start.
    if durability == LedgerDurability::Replicated && !has_standby(connection).await? {
        return Err(sqlx::Error::Protocol(
            LedgerError::NotReplicated.to_string(),
        ));
    }
    // `on` and `remote_apply` promise more than `local` and `off`; what promises less is raised, what promises more is kept.
    connection
        .execute(
            "SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
        )
        .await?;
    connection.execute("SET statement_timeout = '30s'").await?;
    connection
        .execute("SET idle_in_transaction_session_timeout = '60s'")
        .await?;
    Ok(())
}

/// Whether the server has commits wait for a standby.
async fn has_standby(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    let names: String = sqlx::query_scalar("SELECT current_setting('synchronous_standby_names')")
        .fetch_one(connection)
        .await?;
    Ok(!names.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use sqlx::Row;

    use super::*;

    /// A database with a table, and the address to look at it from outside the pool.
    async fn ledger() -> (AnyPool, String, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let pool = connect(&url).await.unwrap();
        let table = "CREATE TABLE written (n BIGINT REFERENCES sale_schema (step) DEFERRABLE INITIALLY DEFERRED)";
        pool.execute(table).await.unwrap();
        (pool, url, folder)
    }

    /// Commits one row through the pool; answers all rows that others can read then.
    async fn committed(pool: &AnyPool, url: &str) -> Vec<i64> {
        let mut tx = pool.begin().await.unwrap();
        tx.execute("INSERT INTO written VALUES (1)").await.unwrap();
        tx.commit().await.unwrap();
        let mut other = AnyConnection::connect(url).await.unwrap();
        let rows = other.fetch_all("SELECT n FROM written ORDER BY n").await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }

    // Broke: whatever was "committed" over such a connection was a savepoint in a transaction that nobody ever ended.
    #[tokio::test]
    async fn what_follows_a_transaction_that_was_left_open_is_committed() {
        let (pool, url, _folder) = ledger().await;
        let mut left = pool.acquire().await.unwrap();
        let mut tx = left.begin().await.unwrap();
        tx.execute("INSERT INTO written VALUES (2)").await.unwrap();
        // Neither committed nor rolled back, as where both fail.
        std::mem::forget(tx);
        drop(left);
        assert_eq!(committed(&pool, &url).await, [1]);
    }

    #[tokio::test]
    async fn what_follows_a_commit_that_failed_is_committed() {
        let (pool, url, _folder) = ledger().await;
        let mut tx = pool.begin().await.unwrap();
        tx.execute("INSERT INTO written VALUES (-1)").await.unwrap();
        assert!(tx.commit().await.is_err(), "no step has that number");
        assert_eq!(committed(&pool, &url).await, [1]);
    }

    #[tokio::test]
    async fn what_follows_a_transaction_whose_future_was_cancelled_is_committed() {
        let (pool, url, _folder) = ledger().await;
        // Given up after each number of polls: before, while and after it begins, writes and commits.
        for polls in 0..12 {
            let mut writing = Box::pin(async {
                let mut tx = pool.begin().await.unwrap();
                tx.execute("INSERT INTO written VALUES (2)").await.unwrap();
                tx.execute("DELETE FROM written").await.unwrap();
                tx.commit().await.unwrap();
            });
            for _ in 0..polls {
                let is_done = (&mut writing).now_or_never().is_some();
                // The connection's thread answers meanwhile, so that the next poll is a step further.
                tokio::task::yield_now().await;
                if is_done {
                    break;
                }
            }
            drop(writing);
            let rows = committed(&pool, &url).await;
            assert!(
                rows.iter().all(|n| *n == 1) && !rows.is_empty(),
                "{polls}: {rows:?}"
            );
        }
    }
}
