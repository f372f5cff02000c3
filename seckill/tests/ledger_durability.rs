//! What a commit of the ledger promises, on a PostgreSQL that is configured otherwise.

use std::time::Duration;

use seckill::ledger::{
    ConnectOptions, LedgerDurability, LedgerError, OrderLedger, connect, connect_with,
};
use sqlx::{AnyPool, Connection};

use crate::support::{
    ledger::{T0, eventually, sale},
    postgres,
};

async fn setting(pool: &AnyPool) -> String {
    let read = "SELECT current_setting('synchronous_commit')";
    sqlx::query_scalar(read).fetch_one(pool).await.unwrap()
}

fn replicated() -> ConnectOptions {
    ConnectOptions {
        durability: LedgerDurability::Replicated,
        ..ConnectOptions::default()
    }
}

/// INV-ORDER-3: an order is acknowledged to the queue after its commit, so a commit must be on disk.
#[tokio::test]
async fn what_promises_less_than_a_synced_commit_is_raised_and_more_is_kept() {
    for (configured, expected) in [
        ("off", "on"),
        ("local", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        let url = postgres::new_database().await;
        let name = url.rsplit_once('/').unwrap().1;
        let mut admin = sqlx::PgConnection::connect(&url).await.unwrap();
        let alter = format!("ALTER DATABASE {name} SET synchronous_commit = {configured}");
        sqlx::query(sqlx::AssertSqlSafe(alter))
            .execute(&mut admin)
            .await
            .unwrap();
        let pool = connect(&url).await.unwrap();
        assert_eq!(setting(&pool).await, expected, "{configured}");
    }
}

#[tokio::test]
async fn a_replicated_ledger_is_refused_where_commits_wait_for_no_standby() {
    for url in [postgres::new_database().await, "sqlite::memory:".to_owned()] {
        let refused = connect_with(&url, &replicated()).await;
        assert!(
            matches!(refused, Err(LedgerError::NotReplicated)),
            "{url}: {refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicated_ledger_waits_for_its_standby() {
    let server = postgres::Server::with("-c synchronous_standby_names=pg_receivewal");
    let folder = tempfile::tempdir().unwrap();
    let mut standby = server.standby(folder.path()).await;
    let mut connected = None;
    eventually("the standby follows", async || {
        let waiting = async { connect_with(&server.url(), &replicated()).await };
        connected = tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .ok()
            .and_then(Result::ok);
        connected.is_some()
    })
    .await;
    let ledger = OrderLedger::new(connected.unwrap());
    assert_eq!(setting(ledger.pool()).await, "on");
    let create = async |id: &str| {
        let mut sale = sale(5);
        sale.id = id.parse().unwrap();
        ledger.create_sale(&sale, T0).await
    };
    create("followed").await.unwrap();
    standby.kill().unwrap();
    standby.wait().unwrap();
    let alone = tokio::time::timeout(Duration::from_millis(700), create("alone")).await;
    assert!(alone.is_err(), "committed without the standby: {alone:?}");
}
