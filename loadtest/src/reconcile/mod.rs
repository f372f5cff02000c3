//! After the run: waits until the settlement has caught up, reads the order ledger over the admin API, and has the oracle judge
//! what the clients saw.

mod end_facts;
#[cfg(test)]
mod tests;
mod untimed;

use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use end_facts::EndFacts;

use crate::admin::AdminClient;
use crate::history::ClientLog;
use crate::ledger::{LedgerRow, SaleReport, SkuReport};
use crate::oracle::{Rule, Verdict, Violation};
use crate::plan::Identities;
use crate::scenario::{Sale, Scenario};

/// How often the report is asked for while waiting.
const PAUSE: Duration = Duration::from_millis(200);
/// What is found broken is looked at again this often: a store may still have to hear of a payment, or a row be on its way.
const SECOND_LOOKS: u32 = 10;

/// What the clients saw against the order ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// Units on sale at the start.
    pub stock: u64,
    pub restocked: u64,
    pub available: u64,
    /// Units reserved and not paid.
    pub reserved: u64,
    pub sold: u64,
    /// Orders the store accepted.
    pub accepted: u64,
    /// Orders that reached the ledger.
    pub settled: u64,
    pub paid: u64,
    /// Orders whose units were returned.
    pub returned: u64,
    /// Orders the settlement refused.
    pub refused: u64,
    pub dead_letters: u64,
    /// Orders the ledger holds for this sale.
    pub ledger_orders: u64,
    /// Of those, orders of other clients.
    pub foreign_orders: u64,
    /// Units sold beyond the stock.
    pub oversold: u64,
    /// Request ids with more than one order of a sku.
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The [`Rule`] by its name, or `unreturned`.
    pub rule: String,
    /// The invariant it breaks, as named in `docs/invariants.md`.
    pub invariant: String,
    /// In how many places.
    pub count: u64,
    /// What was seen, with examples.
    pub detail: String,
}

/// Waits for the settlement and judges the run against the ledger. Fails if the admin API cannot be asked.
pub async fn reconcile(scenario: &Scenario, log: &ClientLog) -> anyhow::Result<Reconciliation> {
    Ok(reconcile_with_facts(scenario, log).await?.0)
}

/// The same, with the facts that it was judged by.
pub(crate) async fn reconcile_with_facts(
    scenario: &Scenario,
    log: &ClientLog,
) -> anyhow::Result<(Reconciliation, EndFacts)> {
    let admin = scenario
        .admin
        .as_ref()
        .context("no admin url in the scenario")?;
    let sale = scenario.sale.as_ref().context("no sale in the scenario")?;
    let client = AdminClient::new(admin)?;

    let begin = Instant::now();
    let wait = &scenario.reconcile;
    let is_settled = |report: &SaleReport| report.unsettled() == 0 && report.queue_depth == 0;
    wait_until(&client, &sale.id, wait.settle_timeout, is_settled).await?;
    let settled_after = begin.elapsed();
    if !wait.returns_timeout.is_zero() {
        let nothing_reserved =
            |report: &SaleReport| is_settled(report) && report.skus.iter().all(|s| s.reserved == 0);
        wait_until(&client, &sale.id, wait.returns_timeout, nothing_reserved).await?;
    }

    let mut looks = 0;
    loop {
        let facts = EndFacts::read(&client, &sale.id).await?;
        let found = judged(scenario, sale, log, &facts)?;
        looks += 1;
        if found.findings.is_empty() || looks > SECOND_LOOKS {
            let waited_s = (settled_after.as_secs_f64() * 1e3).round() / 1e3;
            return Ok((Reconciliation { waited_s, ..found }, facts));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks until the report satisfies, or the time is over. What is missing then is a finding.
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

/// The oracle's verdict, the scenario's own wish for returns, and the figures of the account.
fn judged(
    scenario: &Scenario,
    sale: &Sale,
    log: &ClientLog,
    facts: &EndFacts,
) -> anyhow::Result<Reconciliation> {
    let verdict =
        untimed::judged(scenario, sale, log, facts).map_err(|why| anyhow::anyhow!("{why}"))?;
    let report = &facts.report;
    let sum = |of: fn(&SkuReport) -> u64| report.skus.iter().map(of).sum();
    let reserved = sum(|sku| sku.reserved);
    let mut findings: Vec<Finding> = verdict.violations.iter().map(finding).collect();
    if !scenario.reconcile.returns_timeout.is_zero() && reserved > 0 {
        findings.push(Finding {
            rule: "unreturned".into(),
            invariant: Rule::LateReturn.invariant().into(),
            count: reserved,
            detail: format!("{reserved} units of unpaid orders were not returned in time"),
        });
    }
    let ids = Identities::new(scenario);
    let is_foreign = |row: &&LedgerRow| {
        let request = row.request_id.as_deref();
        request.and_then(|id| ids.purchase_of(id)).is_none()
    };
    let found = |rules: &[Rule]| count(&verdict, rules);
    Ok(Reconciliation {
        stock: sum(|sku| sku.stock),
        restocked: sum(|sku| sku.restocked),
        available: sum(|sku| sku.available),
        reserved,
        sold: sum(|sku| sku.sold),
        accepted: report.accepted,
        settled: report.settled,
        paid: report.paid,
        returned: report.returned,
        refused: report.refused,
        dead_letters: report.dead_letters,
        ledger_orders: facts.rows.len() as u64,
        foreign_orders: facts.rows.iter().filter(is_foreign).count() as u64,
        oversold: verdict.tally.oversold_units,
        duplicated: found(&[Rule::TwoOrders, Rule::Resurrected]),
        lost: found(&[Rule::Lost]),
        phantom: found(&[Rule::Phantom]),
        misattributed: found(&[Rule::Misattributed]),
        partial_carts: found(&[Rule::PartialCart]),
        paid_mismatch: found(&[Rule::PaidMismatch, Rule::ReturnedAfterPaid]),
        over_limit: found(&[Rule::BuyerLimit]),
        unsettled: report.unsettled(),
        waited_s: 0.0,
        findings,
    })
}

/// In how many places one of these rules is broken.
fn count(verdict: &Verdict, rules: &[Rule]) -> u64 {
    let broken = verdict.violations.iter();
    let broken = broken.filter(|found| rules.contains(&found.rule));
    broken.map(|found| found.count).sum()
}

fn finding(broken: &Violation) -> Finding {
    let examples: Vec<&str> = broken.examples.iter().map(|one| &*one.what).collect();
    let more = match broken.count > examples.len() as u64 {
        true => "; …",
        false => "",
    };
    Finding {
        rule: broken.rule.name().into(),
        invariant: broken.invariant.into(),
        count: broken.count,
        detail: format!("{}{more}", examples.join("; ")),
    }
}
