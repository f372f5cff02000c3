//! Queue entries that can never become an order: kept for an operator, so that nothing acknowledged is absent everywhere.

use sqlx::AnyConnection;

use super::{LedgerError, OrderLedger, sql};
use crate::ids::SegmentId;

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
