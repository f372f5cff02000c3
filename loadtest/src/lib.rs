//! Open-loop load generator and checker for flash sales.
//!
//! A black box on purpose: it talks HTTP only and shares no code with the program it tests. The path of a run is
//! [`Scenario`] (what to send) → [`plan`] (when, to the nanosecond) → engine (send it, never early) → [`Report`] and
//! [`History`] (what was answered) → [`reconcile`] (is every answer true in the order ledger?) → exit code.

pub mod cli;
mod engine;
mod history;
mod outcome;
pub mod plan;
pub mod reconcile;
mod record;
pub mod report;
pub mod scenario;

pub use engine::{Progress, RunOutput, run};
pub use history::{History, HistorySummary};
pub use outcome::Outcome;
pub use reconcile::{Reconciliation, reconcile};
pub use report::{Exit, Report, render};
pub use scenario::{Problem, Problems, Scenario};

use std::future::Future;

/// Runs the scenario, checks it against the order ledger if an admin address is known, and judges the thresholds.
///
/// This is `run`, `reconcile` and `Report::conclude` in one, for callers that need nothing in between. An interrupted run
/// is not reconciled: what was on the wire when it stopped has no known end.
pub async fn run_and_check(
    scenario: &Scenario,
    progress: impl FnMut(&Progress) + Send,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<Report> {
    let RunOutput {
        mut report,
        history,
    } = run(scenario, progress, stop).await?;
    if scenario.admin.is_some() && scenario.sale.is_some() && !report.interrupted {
        match reconcile(scenario, &history).await {
            Ok(found) => report.reconciliation = Some(found),
            Err(error) => report.notes.push(format!("not reconciled: {error:#}")),
        }
    }
    report.conclude(scenario);
    Ok(report)
}
