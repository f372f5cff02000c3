//! Proves the books: INV-LEDGER-1 and INV-LEDGER-2. Each statement sees one snapshot, so it may run beside payments.

use sqlx::AnyConnection;

use crate::sql;

const UNBALANCED_CURRENCIES: &str = include_str!("queries/unbalanced_currencies.sql");
const BROKEN_TRANSFERS: &str = include_str!("queries/broken_transfers.sql");
const BROKEN_BALANCES: &str = include_str!("queries/broken_balances.sql");

/// An invariant that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name in docs/invariants.md.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

/// Per currency, debits = credits, pending and posted apart.
pub const INV_LEDGER_1: &str = "INV-LEDGER-1";
/// No guarded account below zero, pending counted.
pub const INV_LEDGER_2: &str = "INV-LEDGER-2";

/// All that is wrong with the books; nothing, if all is well. At most a few dozen findings of each kind.
pub async fn check(conn: &mut AnyConnection) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = Vec::new();
    let mut find = |invariant, detail| findings.push(Finding { invariant, detail });
    for row in sqlx::query(UNBALANCED_CURRENCIES)
        .fetch_all(&mut *conn)
        .await?
    {
        let detail = format!(
            "currency {}: pending debits {} and credits {}, posted debits {} and credits {}",
            sql::text(&row, "currency")?,
            sql::int(&row, "pending_debit")?,
            sql::int(&row, "pending_credit")?,
            sql::int(&row, "posted_debit")?,
            sql::int(&row, "posted_credit")?,
        );
        find(INV_LEDGER_1, detail);
    }
    for row in sqlx::query(BROKEN_TRANSFERS).fetch_all(&mut *conn).await? {
        let detail = format!(
            "transfer {}: its entries are not its amount of {} {}",
            sql::text(&row, "id")?,
            sql::int(&row, "amount_minor")?,
            sql::text(&row, "currency")?,
        );
        find(INV_LEDGER_1, detail);
    }
    for row in sqlx::query(BROKEN_BALANCES).fetch_all(conn).await? {
        let detail = format!(
            "account {}: {} available, {} by its entries",
            sql::text(&row, "account")?,
            sql::int(&row, "available_minor")?,
            sql::int(&row, "folded_minor")?,
        );
        find(INV_LEDGER_2, detail);
    }
    Ok(findings)
}
