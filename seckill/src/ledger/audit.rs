//! Orders that break a rule of their sale, for [`crate::reconcile`]. All orders of one sale are read once, at its end, and when
//! somebody asks; while sales run, only what is new is read, all sales together, in bounded pieces (INV-PAST-1).

use super::{
    LedgerError, LedgerReport, OrderLedger,
    query::{from_row, query},
    report::read_counts,
};
use crate::ids::{BuyerId, OrderId, SaleId, SkuId};

/// How many buyers over the limit an audit names.
const NAMED_BUYERS: i64 = 20;

/// A [`LedgerReport`] and what breaks a rule in it, at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerAudit {
    /// The counts; `outbox_pending` is not among them.
    pub report: LedgerReport,
    /// Orders accepted outside the window of the sale (INV-WINDOW-1).
    pub outside_window: u64,
    /// Buyers with more live units than the limit (INV-BUYER-1).
    pub over_limit: Vec<BuyerOverLimit>,
}

/// A buyer with more live units than the sale allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuyerOverLimit {
    /// Who.
    pub buyer: BuyerId,
    /// Of what.
    pub sku: SkuId,
    /// How many.
    pub units: u64,
}

/// What one piece of new orders breaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewOrders {
    /// The last order of the piece; `None` if it was not full, and all orders up to the bound were read.
    pub up_to: Option<OrderId>,
    /// Orders outside the window of their sale.
    pub outside_window: Vec<(SaleId, u64)>,
    /// Buyers of these orders with more live units than the limit, older orders counted.
    pub over_limit: Vec<(SaleId, BuyerOverLimit)>,
}

from_row!(BuyerOverLimit: buyer, sku, units);

const OUTSIDE: &str = "SELECT COUNT(*) FROM order_orders o JOIN sale_sales s ON s.sale = o.sale \
    WHERE o.sale = $1 AND (o.created_at_ms < s.starts_at_ms OR o.created_at_ms >= s.ends_at_ms)";
const OVER_LIMIT: &str = "SELECT o.buyer, o.sku, CAST(SUM(o.quantity) AS BIGINT) FROM order_orders o \
    WHERE o.sale = $1 AND o.status IN ('reserved', 'paying', 'paid') GROUP BY o.buyer, o.sku \
    HAVING SUM(o.quantity) > (SELECT s.buyer_limit FROM sale_sales s WHERE s.sale = $1) LIMIT $2";
const PIECE: &str = "SELECT order_id FROM order_orders WHERE order_id > $1 AND order_id < $2 ORDER BY order_id LIMIT $3";
const NEW_OUTSIDE: &str = include_str!("sql/new_outside_window.sql");
const NEW_OVER_LIMIT: &str = include_str!("sql/new_over_limit.sql");
const UNAUDITED: &str =
    "SELECT sale FROM sale_sales WHERE audited_at_ms = 0 AND stage = 'published'";

impl OrderLedger {
    /// Counts a sale and looks for orders that break its rules; `None` if the ledger does not know it. Reads every order.
    pub async fn audit(&self, sale: &SaleId) -> Result<Option<LedgerAudit>, LedgerError> {
        let mut tx = self.begin_read().await?;
        let Some(report) = read_counts(&mut tx, sale).await? else {
            return Ok(None);
        };
        let outside_window = query!(OUTSIDE, sale).one(&mut *tx).await?;
        let over_limit = query!(OVER_LIMIT, sale, NAMED_BUYERS).all(&mut *tx).await?;
        tx.commit().await?;
        Ok(Some(LedgerAudit {
            report,
            outside_window,
            over_limit,
        }))
    }

    /// Looks for the same in at most `limit` orders between two ids, of all sales.
    pub async fn audit_new(
        &self,
        after: OrderId,
        before: OrderId,
        limit: usize,
    ) -> Result<NewOrders, LedgerError> {
        let mut tx = self.begin_read().await?;
        let piece: Vec<OrderId> = query!(PIECE, after, before, limit).all(&mut *tx).await?;
        let Some(&last) = piece.last() else {
            return Ok(NewOrders::default());
        };
        let outside = query!(NEW_OUTSIDE, after, last).all(&mut *tx).await?;
        let over = query!(NEW_OVER_LIMIT, after, last, NAMED_BUYERS)
            .all(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(NewOrders {
            up_to: (piece.len() == limit).then_some(last),
            outside_window: outside,
            over_limit: over,
        })
    }

    /// Published sales that were not audited at their end yet.
    pub async fn unaudited(&self) -> Result<Vec<SaleId>, LedgerError> {
        query!(UNAUDITED).all(self.reads()).await
    }

    /// A sale was audited after its end.
    pub async fn mark_audited(&self, sale: &SaleId, now_ms: u64) -> Result<(), LedgerError> {
        query!(
            "UPDATE sale_sales SET audited_at_ms = $2 WHERE sale = $1",
            sale,
            now_ms
        )
        .run(&self.pool)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Row, SqlSafeStr};

    use super::*;
    use crate::ledger;

    /// INV-PAST-1: what is asked on a timer finds its rows by an index, whatever there was before.
    #[tokio::test]
    async fn a_piece_of_new_orders_is_found_by_index() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        for statement in [PIECE, NEW_OUTSIDE, NEW_OVER_LIMIT, UNAUDITED] {
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let plan = sqlx::query(sqlx::AssertSqlSafe(explain).into_sql_str());
            let plan = plan.bind("a").bind("b").bind(9);
            let plan = plan.fetch_all(ledger.pool()).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
            // `n` is the piece itself; the other index holds only what is to be found.
            let reads_all = |line: &String| {
                line.starts_with("SCAN")
                    && !line.starts_with("SCAN n")
                    && !line.contains("INDEX sale_sales_unaudited")
            };
            assert!(!plan.iter().any(reads_all), "{plan:#?}");
        }
    }
}
