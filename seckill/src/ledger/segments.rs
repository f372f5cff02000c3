//! Which segments the stock store was once told to open. A store that no longer knows one of them has lost it, and must not be
//! given its full stock again.

use std::collections::HashMap;

use super::{LedgerError, OrderLedger, query::query};
use crate::ids::{SaleId, SegmentId};

impl OrderLedger {
    /// Remembers that a segment is open in the store, with the first instant this was said. Call it after the store has opened
    /// the segment and before anything of it is sold: a crash in between leaves an open segment without sales, which is opened
    /// again. Repeating it changes nothing.
    pub async fn mark_opened(&self, segment: &SegmentId, now_ms: u64) -> Result<(), LedgerError> {
        const MARK: &str = "INSERT INTO sale_segments (sale, sku, segment, opened_at_ms) VALUES ($1, $2, $3, $4) \
            ON CONFLICT DO NOTHING";
        query!(MARK, segment, now_ms).run(&self.pool).await?;
        Ok(())
    }

    /// Whether a segment was ever marked as open.
    pub async fn is_opened(&self, segment: &SegmentId) -> Result<bool, LedgerError> {
        const MARK: &str =
            "SELECT segment FROM sale_segments WHERE sale = $1 AND sku = $2 AND segment = $3";
        let found: Option<u16> = query!(MARK, segment).first(self.reads()).await?;
        Ok(found.is_some())
    }

    /// The segments of a sale that were ever marked as open.
    pub async fn opened(&self, sale: &SaleId) -> Result<Vec<SegmentId>, LedgerError> {
        const OPENED: &str =
            "SELECT sale, sku, segment FROM sale_segments WHERE sale = $1 ORDER BY sku, segment";
        query!(OPENED, sale).all(self.reads()).await
    }

    /// Where each segment of a sale that was ever open was last seen whole; '' where nobody has looked.
    pub async fn store_addresses_of(
        &self,
        sale: &SaleId,
    ) -> Result<HashMap<SegmentId, String>, LedgerError> {
        const PLACES: &str = "SELECT sale, sku, segment, place FROM sale_segments WHERE sale = $1";
        query!(PLACES, sale).all(self.reads()).await
    }

    /// Remembers where a segment is whole.
    pub async fn set_store_address(
        &self,
        segment: &SegmentId,
        address: &str,
    ) -> Result<(), LedgerError> {
        const SET: &str =
            "UPDATE sale_segments SET place = $4 WHERE sale = $1 AND sku = $2 AND segment = $3";
        query!(SET, segment, address).run(&self.pool).await?;
        Ok(())
    }
}
