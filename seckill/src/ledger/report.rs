//! What the ledger says about a sale, read in one transaction: the counts for the admin API's report, and for [`crate::reconcile`].
//! What is only found by reading orders is in `audit.rs`.

use sqlx::AnyConnection;

use super::{LedgerError, OrderLedger, OrderStatus, engine::Engine, pool::Tx, query::query};
use crate::ids::{SaleId, SkuId};

/// The ledger's side of a sale.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// One line per sku, in the order of the sale.
    pub skus: Vec<SkuReport>,
    /// Orders ever recorded, refused ones included.
    pub settled: u64,
    /// Orders paid.
    pub paid: u64,
    /// Orders released.
    pub returned: u64,
    /// Orders refused.
    pub refused: u64,
    /// Entries set aside.
    pub dead_letters: u64,
    /// Events not yet delivered.
    pub outbox_pending: u64,
    /// Effects the store has not answered.
    pub effects_pending: u64,
}

/// One sku in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkuReport {
    /// The sku.
    pub sku: SkuId,
    /// Units at the start.
    pub stock: u64,
    /// Units added since.
    pub restocked: u64,
    /// The guarded counter: units of live orders.
    pub sold: u64,
    /// Units of reserved and paying orders, summed from the rows.
    pub reserved_units: u64,
    /// Units of paid orders, summed from the rows.
    pub paid_units: u64,
    /// Orders ever recorded, refused ones included.
    pub orders: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Entries set aside.
    pub dead_letters: u64,
}

const SKUS: &str =
    "SELECT sku, stock, total, sold FROM sale_skus WHERE sale = $1 ORDER BY position";
const ORDERS: &str = "SELECT sku, status, COUNT(*), CAST(SUM(quantity) AS BIGINT) FROM order_orders WHERE sale = $1 GROUP BY sku, status";
const DEAD: &str =
    "SELECT sku, COUNT(*) FROM order_dead_letters WHERE sale = $1 AND outcome = '' GROUP BY sku";
const OUTBOX: &str = "SELECT COUNT(*) FROM order_outbox e JOIN order_orders o ON o.order_id = e.order_id \
    WHERE e.delivered_at_ms = 0 AND e.dead_at_ms = 0 AND o.sale = $1";
const EFFECTS: &str = "SELECT COUNT(*) FROM order_effects WHERE sale = $1";
impl OrderLedger {
    /// Counts a sale; `None` if the ledger does not know it.
    pub async fn report(&self, sale: &SaleId) -> Result<Option<LedgerReport>, LedgerError> {
        let mut tx = self.begin_read().await?;
        let mut report = read_counts(&mut tx, sale).await?;
        if let Some(report) = &mut report {
            report.outbox_pending = query!(OUTBOX, sale).one(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(report)
    }

    /// The same without the events that wait, which may be many and say nothing about stock. `outbox_pending` is 0.
    pub async fn counts(&self, sale: &SaleId) -> Result<Option<LedgerReport>, LedgerError> {
        let mut tx = self.begin_read().await?;
        let counts = read_counts(&mut tx, sale).await?;
        tx.commit().await?;
        Ok(counts)
    }

    /// All reads of one instant: otherwise a settlement between two of them would look like a fault.
    pub(super) async fn begin_read(&self) -> Result<Tx, LedgerError> {
        Ok(match self.engine {
            Engine::Sqlite => self.reads().begin().await?,
            Engine::Postgres => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                self.reads().begin_with(begin).await?
            }
        })
    }
}

pub(super) async fn read_counts(
    connection: &mut AnyConnection,
    sale: &SaleId,
) -> Result<Option<LedgerReport>, LedgerError> {
    let mut report = LedgerReport::default();
    let skus: Vec<(SkuId, u64, u64, u64)> = query!(SKUS, sale).all(&mut *connection).await?;
    for (sku, stock, total, sold) in skus {
        report.skus.push(SkuReport {
            sku,
            stock,
            restocked: total.saturating_sub(stock),
            sold,
            reserved_units: 0,
            paid_units: 0,
            orders: 0,
            refused: 0,
            dead_letters: 0,
        });
    }
    if report.skus.is_empty() {
        return Ok(None);
    }
    let orders: Vec<(SkuId, OrderStatus, u64, u64)> =
        query!(ORDERS, sale).all(&mut *connection).await?;
    for (sku, status, orders, units) in orders {
        report.settled += orders;
        match status {
            OrderStatus::Reserved | OrderStatus::Paying => {}
            OrderStatus::Paid => report.paid += orders,
            OrderStatus::Released => report.returned += orders,
            OrderStatus::Refused => report.refused += orders,
        }
        if let Some(line) = report.skus.iter_mut().find(|line| line.sku == sku) {
            line.orders += orders;
            match status {
                OrderStatus::Reserved | OrderStatus::Paying => line.reserved_units += units,
                OrderStatus::Paid => line.paid_units += units,
                OrderStatus::Released => {}
                OrderStatus::Refused => line.refused = orders,
            }
        }
    }
    let dead: Vec<(SkuId, u64)> = query!(DEAD, sale).all(&mut *connection).await?;
    for (sku, letters) in dead {
        report.dead_letters += letters;
        if let Some(line) = report.skus.iter_mut().find(|line| line.sku == sku) {
            line.dead_letters = letters;
        }
    }
    report.effects_pending = query!(EFFECTS, sale).one(connection).await?;
    Ok(Some(report))
}

#[cfg(test)]
mod tests {
    use sqlx::{Row, SqlSafeStr};

    use super::*;
    use crate::ledger;

    // The report is asked for every few seconds: it must not read every order of every sale.
    #[tokio::test]
    async fn the_report_counts_orders_from_an_index_alone() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {ORDERS}")).into_sql_str();
        let plan = sqlx::query(explain)
            .bind("spring")
            .fetch_all(ledger.pool())
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        assert_eq!(
            plan,
            ["SEARCH order_orders USING COVERING INDEX order_orders_counts (sale=?)"]
        );
    }
}
