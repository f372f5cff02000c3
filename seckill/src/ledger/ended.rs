//! Sales whose time is over, many in one question: a node that starts asks this of every sale there ever was.

use std::collections::HashMap;

use super::{
    LedgerError, OrderLedger,
    engine::{Statement, among, list},
    query::{from_row, query},
};
use crate::ids::{SaleId, SegmentId};

/// What the ledger knows of a sale whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Whether the ledger still wants something of its segments: an order may yet be paid or returned, the store has not heard of
    /// one that was, or units are between two segments.
    pub has_work: bool,
    /// Whether it was compared with the store after its end. Then it was at rest once, and nothing is sold since.
    pub is_audited: bool,
}

from_row!(Ended: is_audited, has_work);

/// Each part is one look into an index.
const ENDED: Statement = among!(
    ["SELECT s.sale, s.audited_at_ms, CASE WHEN \
      EXISTS (SELECT 1 FROM sale_skus k WHERE k.sale = s.sale AND EXISTS (SELECT 1 FROM order_orders o \
          WHERE o.sale = k.sale AND o.sku = k.sku AND o.status IN ('reserved', 'paying'))) \
      OR EXISTS (SELECT 1 FROM order_effects e WHERE e.sale = s.sale) \
      OR EXISTS (SELECT 1 FROM sale_transfers t WHERE t.sale = s.sale AND t.state IN ('pending', 'moving')) \
      THEN 1 ELSE 0 END FROM sale_sales s WHERE s.sale"],
    "$1"
);
const EPOCHS: Statement = among!(
    ["SELECT sale, sku, segment, epoch FROM sale_segments WHERE sale"],
    "$1"
);

impl OrderLedger {
    /// What the ledger knows of these sales, in one question.
    pub async fn ended(&self, sales: &[&SaleId]) -> Result<HashMap<SaleId, Ended>, LedgerError> {
        if sales.is_empty() {
            return Ok(HashMap::new());
        }
        let ended = query!(ENDED.on(self.engine), list(sales));
        ended.all(self.reads()).await
    }

    /// The epochs of all segments of these sales that were ever opened, in one question.
    pub async fn epochs_of(
        &self,
        sales: &[&SaleId],
    ) -> Result<HashMap<SegmentId, u64>, LedgerError> {
        if sales.is_empty() {
            return Ok(HashMap::new());
        }
        let epochs = query!(EPOCHS.on(self.engine), list(sales));
        epochs.all(self.reads()).await
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Row, SqlSafeStr};

    use super::*;
    use crate::ledger;

    /// INV-PAST-1: each sale costs looks into indexes, whatever else there is.
    #[tokio::test]
    async fn ended_sales_are_looked_at_through_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        for statement in [ENDED.sqlite, EPOCHS.sqlite] {
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let plan = sqlx::query(sqlx::AssertSqlSafe(explain).into_sql_str()).bind("[]");
            let plan = plan.fetch_all(ledger.pool()).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
            let reads_all = |line: &String| line.starts_with("SCAN") && !line.contains("json_each");
            assert!(!plan.iter().any(reads_all), "{plan:#?}");
            // By sale alone it would read every order that the sale ever had.
            let orders = plan.iter().filter(|line| line.contains("order_orders"));
            let is_narrow = |line: &String| line.contains("(sale=? AND sku=? AND status=?)");
            assert!(orders.clone().all(is_narrow), "{plan:#?}");
        }
    }
}
