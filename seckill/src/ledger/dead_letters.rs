//! Queue entries that can never become an order: kept for an operator, so that nothing acknowledged is absent everywhere.

use sqlx::{AnyConnection, Row};

use super::{LedgerError, OrderLedger, rows::read_segment, sql};
use crate::ids::{SaleId, SegmentId};

/// One entry set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The segment whose queue it was in.
    pub segment: SegmentId,
    /// Its place in that queue, or the id of its order; setting the same aside twice records it once.
    pub position: String,
    /// Why.
    pub reason: String,
    /// What was found.
    pub raw: String,
}

impl OrderLedger {
    /// Sets entries aside, all in one transaction.
    pub async fn set_aside(&self, letters: &[DeadLetter], now_ms: u64) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin().await?;
        for letter in letters {
            insert(&mut tx, letter, now_ms).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// What was set aside of a sale, oldest first.
    pub async fn dead_letters(
        &self,
        sale: &SaleId,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LedgerError> {
        const OLDEST: &str = "SELECT sale, sku, segment, position, reason, raw FROM order_dead_letters \
            WHERE sale = $1 ORDER BY at_ms, position LIMIT $2";
        let rows = sqlx::query(OLDEST)
            .bind(sale.as_str())
            .bind(limit as i64)
            .fetch_all(self.reads())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(DeadLetter {
                    segment: read_segment(row, 0)?,
                    position: row.try_get(3)?,
                    reason: row.try_get(4)?,
                    raw: row.try_get(5)?,
                })
            })
            .collect()
    }
}

/// Sets one entry aside inside a transaction.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    letter: &DeadLetter,
    now_ms: u64,
) -> Result<(), LedgerError> {
    const INSERT: &str = "INSERT INTO order_dead_letters (sale, sku, segment, position, reason, raw, at_ms) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    // PostgreSQL takes no NUL in a text; whatever made the entry unreadable may well have put one there.
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    sqlx::query(INSERT)
        .bind(letter.segment.sale.as_str())
        .bind(letter.segment.sku.as_str())
        .bind(i64::from(letter.segment.index))
        .bind(clean(&letter.position))
        .bind(clean(&letter.reason))
        .bind(clean(&letter.raw))
        .bind(sql(now_ms))
        .execute(connection)
        .await?;
    Ok(())
}
