//! What the ledger says about a sale, read in one transaction: the counts for the admin API's report, and for
//! [`crate::reconcile`] the same with what is only found by reading every order.

use sqlx::{Any, AnyConnection, Transaction};

use super::{
    LedgerError, OrderLedger, OrderStatus,
    rows::{count, parsed},
};
use crate::ids::{BuyerId, SaleId, SkuId};

/// How many buyers over the limit a report names.
const NAMED_BUYERS: i64 = 20;

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

/// A [`LedgerReport`] and what breaks a rule in it, at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerAudit {
    /// The counts.
    pub report: LedgerReport,
    /// Orders accepted outside the window of the sale (INV-WINDOW-1).
    pub outside_window: u64,
    /// Buyers with more live units than the limit (INV-BUYER-1).
    pub over_limit: Vec<BuyerOverLimit>,
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
    /// Entries set aside.
    pub dead_letters: u64,
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

const SKUS: &str =
    "SELECT sku, stock, total, sold FROM sale_skus WHERE sale = $1 ORDER BY position";
const ORDERS: &str = "SELECT sku, status, COUNT(*), CAST(SUM(quantity) AS BIGINT) FROM order_orders WHERE sale = $1 GROUP BY sku, status";
const DEAD: &str =
    "SELECT sku, COUNT(*) FROM order_dead_letters WHERE sale = $1 AND outcome = '' GROUP BY sku";
const OUTBOX: &str = "SELECT COUNT(*) FROM order_outbox e JOIN order_orders o ON o.order_id = e.order_id \
    WHERE e.delivered_at_ms = 0 AND e.dead_at_ms = 0 AND o.sale = $1";
const EFFECTS: &str = "SELECT COUNT(*) FROM order_effects WHERE sale = $1";
const OUTSIDE: &str = "SELECT COUNT(*) FROM order_orders o JOIN sale_sales s ON s.sale = o.sale \
    WHERE o.sale = $1 AND (o.created_at_ms < s.starts_at_ms OR o.created_at_ms >= s.ends_at_ms)";
const OVER_LIMIT: &str = "SELECT o.buyer, o.sku, CAST(SUM(o.quantity) AS BIGINT) FROM order_orders o \
    WHERE o.sale = $1 AND o.status IN ('reserved', 'paying', 'paid') GROUP BY o.buyer, o.sku \
    HAVING SUM(o.quantity) > (SELECT s.buyer_limit FROM sale_sales s WHERE s.sale = $1) LIMIT $2";

impl OrderLedger {
    /// Counts a sale; `None` if the ledger does not know it. Reads indexes and what is pending, never the orders themselves.
    pub async fn report(&self, sale: &SaleId) -> Result<Option<LedgerReport>, LedgerError> {
        let mut tx = self.begin_read().await?;
        let report = read_report(&mut tx, sale).await?;
        tx.commit().await?;
        Ok(report)
    }

    /// Counts a sale and looks for orders that break its rules; `None` if the ledger does not know it. Reads every order.
    pub async fn audit(&self, sale: &SaleId) -> Result<Option<LedgerAudit>, LedgerError> {
        let mut tx = self.begin_read().await?;
        let Some(report) = read_report(&mut tx, sale).await? else {
            return Ok(None);
        };
        let outside_window = scalar(&mut tx, OUTSIDE, sale).await?;
        let over = sqlx::query(OVER_LIMIT)
            .bind(sale.as_str())
            .bind(NAMED_BUYERS)
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await?;
        let over_limit = over.iter().map(|row| {
            Ok(BuyerOverLimit {
                buyer: parsed(row, 0)?,
                sku: parsed(row, 1)?,
                units: count(row, 2)?,
            })
        });
        Ok(Some(LedgerAudit {
            report,
            outside_window,
            over_limit: over_limit.collect::<Result<_, LedgerError>>()?,
        }))
    }

    /// All reads of one instant: otherwise a settlement between two of them would look like a fault.
    async fn begin_read(&self) -> Result<Transaction<'static, Any>, LedgerError> {
        Ok(if self.is_sqlite {
            self.reads().begin().await?
        } else {
            self.reads()
                .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .await?
        })
    }
}

async fn read_report(
    connection: &mut AnyConnection,
    sale: &SaleId,
) -> Result<Option<LedgerReport>, LedgerError> {
    let mut report = LedgerReport::default();
    for row in sqlx::query(SKUS)
        .bind(sale.as_str())
        .fetch_all(&mut *connection)
        .await?
    {
        let stock = count(&row, 1)?;
        report.skus.push(SkuReport {
            sku: parsed(&row, 0)?,
            stock,
            restocked: count(&row, 2)?.saturating_sub(stock),
            sold: count(&row, 3)?,
            reserved_units: 0,
            paid_units: 0,
            orders: 0,
            dead_letters: 0,
        });
    }
    if report.skus.is_empty() {
        return Ok(None);
    }
    for row in sqlx::query(ORDERS)
        .bind(sale.as_str())
        .fetch_all(&mut *connection)
        .await?
    {
        let (sku, status): (SkuId, OrderStatus) = (parsed(&row, 0)?, parsed(&row, 1)?);
        let (orders, units) = (count(&row, 2)?, count(&row, 3)?);
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
                OrderStatus::Released | OrderStatus::Refused => {}
            }
        }
    }
    for row in sqlx::query(DEAD)
        .bind(sale.as_str())
        .fetch_all(&mut *connection)
        .await?
    {
        let (sku, letters): (SkuId, u64) = (parsed(&row, 0)?, count(&row, 1)?);
        report.dead_letters += letters;
        if let Some(line) = report.skus.iter_mut().find(|line| line.sku == sku) {
            line.dead_letters = letters;
        }
    }
    report.outbox_pending = scalar(connection, OUTBOX, sale).await?;
    report.effects_pending = scalar(connection, EFFECTS, sale).await?;
    Ok(Some(report))
}

async fn scalar(
    connection: &mut AnyConnection,
    statement: &'static str,
    sale: &SaleId,
) -> Result<u64, LedgerError> {
    let row = sqlx::query(statement)
        .bind(sale.as_str())
        .fetch_one(connection)
        .await?;
    count(&row, 0)
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
