//! Lays tables in numbered steps, each once, under one lock. Another crate that shares the ledger's database lays its tables with the same function:
//! the caller gives the steps and the name of the table that counts them.

use sqlx::{AnyPool, AssertSqlSafe};

use super::LedgerError;

/// Two nodes that lay tables at once wait for one another. The number is arbitrary and only has to be the same.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7363467)";

/// Takes the tables to the last of `steps`, all or nothing. `table` counts the steps that are done; a database that has more of them
/// than this program knows is refused. Both are text of the program, never of a caller outside it.
pub async fn migrate(
    pool: &AnyPool,
    table: &'static str,
    steps: &[&'static str],
) -> Result<(), LedgerError> {
    let mut tx = pool.begin().await?;
    if tx.backend_name() == "PostgreSQL" {
        sqlx::query(LOCK).execute(&mut *tx).await?;
    }
    let create = format!("CREATE TABLE IF NOT EXISTS {table} (step BIGINT NOT NULL PRIMARY KEY)");
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(&mut *tx)
        .await?;
    let last = format!("SELECT MAX(step) FROM {table}");
    let done: Option<i64> = sqlx::query_scalar(AssertSqlSafe(last))
        .fetch_one(&mut *tx)
        .await?;
    let (done, known) = (done.unwrap_or(0), steps.len() as i64);
    if done > known {
        return Err(LedgerError::NewerSchema { table, done, known });
    }
    let record = format!("INSERT INTO {table} (step) VALUES ($1)");
    for (step, statements) in (1..).zip(steps).skip(done as usize) {
        sqlx::raw_sql(*statements).execute(&mut *tx).await?;
        sqlx::query(AssertSqlSafe(record.as_str()))
            .bind(step)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::connect, *};

    #[tokio::test]
    async fn each_step_is_done_once_and_a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.db");
        let pool = connect(&format!("sqlite:{}", file.display()))
            .await
            .unwrap();
        let steps = [
            "CREATE TABLE a (n BIGINT); INSERT INTO a VALUES (1)",
            "INSERT INTO a VALUES (2)",
        ];
        migrate(&pool, "test_schema", &steps[..1]).await.unwrap();
        migrate(&pool, "test_schema", &steps).await.unwrap();
        migrate(&pool, "test_schema", &steps).await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM a")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(rows, 2);

        let newer = migrate(&pool, "test_schema", &steps[..1]).await;
        assert!(
            matches!(
                newer,
                Err(LedgerError::NewerSchema {
                    done: 2,
                    known: 1,
                    ..
                })
            ),
            "{newer:?}"
        );
        let broken = [
            "",
            "",
            "CREATE TABLE b (n BIGINT); SELECT nothing FROM nowhere",
        ];
        assert!(migrate(&pool, "test_schema", &broken).await.is_err());
        // A step that fails leaves nothing.
        let begun = migrate(&pool, "test_schema", &["", "", "CREATE TABLE b (n BIGINT)"]).await;
        begun.unwrap();
    }
}
