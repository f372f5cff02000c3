//! Lays the tables where nobody else does.

use sqlx::AnyPool;

use super::SCHEMA;

/// Lays the tables in an empty database, or one of an earlier release.
pub async fn migrate(pool: &AnyPool) -> Result<(), sqlx::Error> {
    for step in SCHEMA.steps {
        sqlx::raw_sql(*step).execute(pool).await?;
    }
    Ok(())
}
