//! Creates payment's tables (`schema.sql`). Run once at start, by every process that shares the database.

use sqlx::{AnyPool, Executor};

use super::{MayRetry, is_conflict};

const SCHEMA: &str = include_str!("schema.sql");

/// Tries of one statement: two processes that start together may both create the same table, and PostgreSQL fails one of them.
const TRIES: u32 = 5;

/// Creates what is missing; what is there stays as it is.
pub async fn migrate(pool: &AnyPool) -> Result<(), sqlx::Error> {
    let mut conn = pool.acquire().await?;
    for statement in statements(SCHEMA) {
        let mut tries = 1;
        while let Err(error) = (&mut *conn).execute(sqlx::query(statement)).await {
            if tries == TRIES || !(error.may_retry() || is_conflict(&error)) {
                return Err(error);
            }
            tries += 1;
        }
    }
    Ok(())
}

/// The statements of a file that has no semicolon inside one.
fn statements(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split(';').map(str::trim).filter(|statement| {
        statement
            .lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_creates_something_if_it_is_missing() {
        let all: Vec<_> = statements(SCHEMA).collect();
        assert!(all.len() > 10);
        for statement in all {
            let sql = statement
                .lines()
                .find(|line| line.starts_with("CREATE"))
                .unwrap();
            assert!(sql.contains("IF NOT EXISTS"), "{sql}");
        }
    }
}
