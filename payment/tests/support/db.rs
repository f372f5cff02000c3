//! A fresh, empty database per test.

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use payment::SCHEMA;
use seckill::ledger::{self, LedgerError};
use sqlx::{AnyPool, Executor, any::AnyPoolOptions};
use tempfile::TempDir;

use super::postgres::Server;

/// A pool, and what must live as long as it.
pub struct Db {
    pub pool: AnyPool,
    _folder: Option<TempDir>,
    _server: Option<Arc<Server>>,
}

impl Db {
    pub async fn sqlite() -> Self {
        install_drivers();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}?mode=rwc", folder.path().join("pay.db").display());
        let pool = AnyPoolOptions::new()
            .max_connections(1)
            // A second connection taken while one is held would wait for ever; let it fail the test instead.
            .acquire_timeout(Duration::from_secs(20))
            .after_connect(|conn, _| {
                Box::pin(async move {
                    for pragma in [
                        "PRAGMA journal_mode = WAL",
                        "PRAGMA synchronous = FULL",
                        "PRAGMA busy_timeout = 5000",
                    ] {
                        conn.execute(pragma).await?;
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await
            .unwrap();
        Self {
            pool,
            _folder: Some(folder),
            _server: None,
        }
    }

    pub async fn postgres() -> Self {
        install_drivers();
        let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
        let url = server.create_database().await;
        let pool = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(20))
            .connect(&url)
            .await
            .unwrap();
        Self {
            pool,
            _folder: None,
            _server: Some(server),
        }
    }

    /// Lays payment's tables, or takes those of an earlier release over.
    pub async fn lay(&self) -> Result<(), LedgerError> {
        ledger::migrate(&self.pool, SCHEMA.table, SCHEMA.steps).await
    }

    /// Runs statements that change something.
    pub async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    /// The one number a query returns.
    pub async fn int(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// How many rows a table of ours has.
    pub async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

pub fn install_drivers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(sqlx::any::install_default_drivers);
}
