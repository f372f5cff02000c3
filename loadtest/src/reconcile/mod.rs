//! After the run: waits until the settlement has caught up, reads the order ledger over the admin API, and judges.
//!
//! Asking and waiting happen here; the judgement itself is [`judge`], a pure function.

mod admin;
mod judge;
mod ledger;

use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use admin::AdminClient;
pub use judge::{Finding, Judged, Rules, judge};
pub use ledger::{LedgerRow, OrderStatus, SaleReport, SkuReport};

use crate::history::History;
use crate::plan::Identities;
use crate::scenario::Scenario;

/// How often the report is asked for while waiting.
const PAUSE: Duration = Duration::from_millis(200);
/// Findings that a row on its way can explain are looked at again this often.
const SECOND_LOOKS: u32 = 5;

/// The client's memory against the order ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// Units on sale at the start.
    pub stock: u64,
    /// Units added later.
    pub restocked: u64,
    /// Units still free.
    pub available: u64,
    /// Units reserved and not paid.
    pub reserved: u64,
    /// Units sold.
    pub sold: u64,
    /// Orders the store accepted.
    pub accepted: u64,
    /// Orders that reached the ledger.
    pub settled: u64,
    /// Orders paid.
    pub paid: u64,
    /// Orders whose units were returned.
    pub returned: u64,
    /// Orders the settlement refused.
    pub refused: u64,
    /// Orders set aside.
    pub dead_letters: u64,
    /// Orders the ledger holds for this sale.
    pub ledger_orders: u64,
    /// Of those, orders of other clients.
    pub foreign_orders: u64,
    /// Units sold beyond the stock.
    pub oversold: u64,
    /// Request ids with more than one order.
    pub duplicated: u64,
    /// Acknowledged orders the ledger does not know.
    pub lost: u64,
    /// Ledger orders of requests that were refused or never sent.
    pub phantom: u64,
    /// Orders answered to one request and recorded for another.
    pub misattributed: u64,
    /// Carts answered or recorded without all their lines.
    #[serde(default)]
    pub partial_carts: u64,
    /// Payments seen by the client and not by the ledger, or the other way round.
    pub paid_mismatch: u64,
    /// Buyers who hold more than they may.
    pub over_limit: u64,
    /// Orders neither settled nor set aside when the wait was over.
    pub unsettled: u64,
    /// How long the settlement took to catch up after the last answer.
    pub waited_s: f64,
    /// Everything broken; empty is good.
    pub findings: Vec<Finding>,
}

/// Waits for the settlement and judges the run against the ledger. Fails if the admin API cannot be asked.
pub async fn reconcile(scenario: &Scenario, history: &History) -> anyhow::Result<Reconciliation> {
    let admin = scenario
        .admin
        .as_ref()
        .context("no admin url in the scenario")?;
    let sale = scenario.sale.as_ref().context("no sale in the scenario")?;
    let client = AdminClient::new(admin)?;
    let ids = Identities::new(scenario);
    let rules = Rules {
        quantity: sale.quantity.into(),
        skus: sale.skus.clone(),
        buyer_limit: client.buyer_limit(&sale.id).await?,
        expect_returns: !scenario.reconcile.returns_timeout.is_zero(),
    };

    let begin = Instant::now();
    let wait = &scenario.reconcile;
    let is_settled = |report: &SaleReport| report.unsettled() == 0 && report.queue_depth == 0;
    wait_until(&client, &sale.id, wait.settle_timeout, is_settled).await?;
    let settled_after = begin.elapsed();
    if rules.expect_returns {
        let nothing_reserved =
            |report: &SaleReport| is_settled(report) && report.skus.iter().all(|s| s.reserved == 0);
        wait_until(&client, &sale.id, wait.returns_timeout, nothing_reserved).await?;
    }

    let mut looks = 0;
    let (report, rows, judged) = loop {
        let report = client.report(&sale.id).await?;
        let rows = client.orders(&sale.id).await?;
        let judged = judge(history, &ids, &rows, &report, &rules);
        looks += 1;
        // The report and the rows are read one after the other: an order paid or returned in between is not a fault.
        if !judged.may_be_in_passing() || looks > SECOND_LOOKS {
            break (report, rows, judged);
        }
        tokio::time::sleep(PAUSE).await;
    };
    Ok(summarise(&report, &rows, judged, &ids, settled_after))
}

/// Asks until the report satisfies, or the time is over. The judge says what is missing then.
async fn wait_until(
    client: &AdminClient,
    sale: &str,
    limit: Duration,
    satisfied: impl Fn(&SaleReport) -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !satisfied(&client.report(sale).await?) && Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn summarise(
    report: &SaleReport,
    rows: &[LedgerRow],
    judged: Judged,
    ids: &Identities,
    settled_after: Duration,
) -> Reconciliation {
    let sum = |of: fn(&SkuReport) -> u64| report.skus.iter().map(of).sum();
    let is_foreign = |row: &&LedgerRow| {
        row.request_id
            .as_deref()
            .and_then(|id| ids.purchase_of(id))
            .is_none()
    };
    Reconciliation {
        stock: sum(|sku| sku.stock),
        restocked: sum(|sku| sku.restocked),
        available: sum(|sku| sku.available),
        reserved: sum(|sku| sku.reserved),
        sold: sum(|sku| sku.sold),
        accepted: report.accepted,
        settled: report.settled,
        paid: report.paid,
        returned: report.returned,
        refused: report.refused,
        dead_letters: report.dead_letters,
        ledger_orders: rows.len() as u64,
        foreign_orders: rows.iter().filter(is_foreign).count() as u64,
        oversold: judged.oversold,
        duplicated: judged.duplicated,
        lost: judged.lost,
        phantom: judged.phantom,
        misattributed: judged.misattributed,
        partial_carts: judged.partial_carts,
        paid_mismatch: judged.paid_mismatch,
        over_limit: judged.over_limit,
        unsettled: report.unsettled(),
        waited_s: (settled_after.as_secs_f64() * 1e3).round() / 1e3,
        findings: judged.findings,
    }
}
