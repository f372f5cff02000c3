//! Proves the books: INV-LEDGER-1 and INV-LEDGER-2.
//!
//! Each transfer is held against its own entries, so any range of them can be checked by itself and beside payments
//! ([`check_transfers`]). Balances are sums over all entries: [`check`] adds them up page by page, in the caller's transaction.

use std::collections::BTreeMap;

use sqlx::{AnyConnection, Row};

use crate::db::{self, LAST_ID, Page, page_after};

const BROKEN_TRANSFERS: &str = include_str!("queries/broken_transfers.sql");
const SUMS: &str = include_str!("queries/sums.sql");
const PAGE: &str = "SELECT id FROM pay_transfers WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3";
const BALANCES: &str = "SELECT account, available_minor FROM pay_balances";
/// Transfers read by one statement of a whole check.
const PAGE_SIZE: i64 = 10_000;
/// Accounts out of balance that are named.
const NAMED: usize = 50;

/// An invariant that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    /// Its name in docs/invariants.md.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

/// Per currency, debits = credits, pending and posted apart.
pub(super) const INV_LEDGER_1: &str = "INV-LEDGER-1";
/// No guarded account below zero, pending counted.
pub(super) const INV_LEDGER_2: &str = "INV-LEDGER-2";

/// All that is wrong with the books; nothing, if all is well. At most a few dozen findings a page. Give it a transaction that sees one
/// snapshot: a payment between two pages would look like a fault.
pub async fn check(conn: &mut AnyConnection) -> Result<Vec<Finding>, sqlx::Error> {
    let (mut findings, mut sums) = (Vec::new(), Sums::default());
    let mut after = String::new();
    loop {
        let page = page_after(conn, PAGE, &after, LAST_ID, PAGE_SIZE).await?;
        findings.extend(broken_transfers(conn, &after, &page).await?);
        sums.add(conn, &after, &page).await?;
        if page.is_last {
            break;
        }
        after = page.up_to;
    }
    sums.unbalanced_currencies(&mut findings);
    sums.broken_balances(conn, &mut findings).await?;
    Ok(findings)
}

/// Holds at most `limit` transfers after an id, up to and with `last`, against their entries.
pub(crate) async fn check_transfers(
    conn: &mut AnyConnection,
    after: &str,
    last: &str,
    limit: i64,
) -> Result<(Page, Vec<Finding>), sqlx::Error> {
    let page = page_after(conn, PAGE, after, last, limit).await?;
    let findings = broken_transfers(conn, after, &page).await?;
    Ok((page, findings))
}

async fn broken_transfers(
    conn: &mut AnyConnection,
    after: &str,
    page: &Page,
) -> Result<Vec<Finding>, sqlx::Error> {
    let broken = sqlx::query(BROKEN_TRANSFERS).bind(after).bind(&page.up_to);
    let broken = broken.fetch_all(conn).await?;
    let finding = |row| {
        let detail = format!(
            "transfer {}: its entries are not its amount of {} {}",
            db::text(row, "id")?,
            db::int(row, "amount_minor")?,
            db::text(row, "currency")?,
        );
        Ok(Finding {
            invariant: INV_LEDGER_1,
            detail,
        })
    };
    broken.iter().map(finding).collect()
}

/// What the entries read so far say of each account. Bounded by the accounts, of which there are a few dozen a currency.
#[derive(Default)]
struct Sums(BTreeMap<(String, String), Sum>);

/// Wider than a column, so that adding up damaged books cannot overflow.
#[derive(Clone, Copy, Default)]
struct Sum {
    pending_debit: i128,
    pending_credit: i128,
    posted_debit: i128,
    posted_credit: i128,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.pending_debit += other.pending_debit;
        self.pending_credit += other.pending_credit;
        self.posted_debit += other.posted_debit;
        self.posted_credit += other.posted_credit;
    }

    fn is_balanced(&self) -> bool {
        self.pending_debit == self.pending_credit && self.posted_debit == self.posted_credit
    }

    /// What a guarded account of these entries can still give.
    fn available(&self) -> i128 {
        self.posted_credit - self.posted_debit - self.pending_debit
    }
}

impl Sums {
    async fn add(
        &mut self,
        conn: &mut AnyConnection,
        after: &str,
        page: &Page,
    ) -> Result<(), sqlx::Error> {
        let rows = sqlx::query(SUMS).bind(after).bind(&page.up_to);
        for row in rows.fetch_all(conn).await? {
            let account = (db::text(&row, "account")?, db::text(&row, "currency")?);
            self.0.entry(account).or_default().add(Sum {
                pending_debit: db::int(&row, "pending_debit")?.into(),
                pending_credit: db::int(&row, "pending_credit")?.into(),
                posted_debit: db::int(&row, "posted_debit")?.into(),
                posted_credit: db::int(&row, "posted_credit")?.into(),
            });
        }
        Ok(())
    }

    fn unbalanced_currencies(&self, findings: &mut Vec<Finding>) {
        let mut currencies: BTreeMap<&str, Sum> = BTreeMap::new();
        for ((_, currency), sum) in &self.0 {
            currencies.entry(currency).or_default().add(*sum);
        }
        let unbalanced = currencies.into_iter().filter(|(_, sum)| !sum.is_balanced());
        findings.extend(unbalanced.map(|(currency, sum)| Finding {
            invariant: INV_LEDGER_1,
            detail: format!(
                "currency {currency}: pending debits {} and credits {}, posted debits {} and credits {}",
                sum.pending_debit, sum.pending_credit, sum.posted_debit, sum.posted_credit
            ),
        }));
    }

    /// Guarded accounts: what the balance says and what the entries say must agree and not be below zero.
    async fn broken_balances(
        &self,
        conn: &mut AnyConnection,
        findings: &mut Vec<Finding>,
    ) -> Result<(), sqlx::Error> {
        let mut accounts: BTreeMap<String, (i128, i128)> = BTreeMap::new();
        for row in sqlx::query(BALANCES).fetch_all(conn).await? {
            let balance: i64 = row.try_get(1)?;
            accounts.insert(row.try_get(0)?, (balance.into(), 0));
        }
        for ((account, _), sum) in &self.0 {
            if account.starts_with("merchant:") {
                accounts.entry(account.clone()).or_default().1 += sum.available();
            }
        }
        let broken = accounts
            .into_iter()
            .filter(|(_, (balance, by_entries))| balance != by_entries || *balance < 0);
        let finding = |(account, (balance, by_entries))| Finding {
            invariant: INV_LEDGER_2,
            detail: format!("account {account}: {balance} available, {by_entries} by its entries"),
        };
        findings.extend(broken.take(NAMED).map(finding));
        Ok(())
    }
}
