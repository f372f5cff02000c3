//! Open-loop load generator and checker for flash sales.
//!
//! A black box on purpose: it talks HTTP only and shares no code with the program it tests. The path of a run is
//! [`Scenario`] (what to send) → [`plan`] (when, to the nanosecond) → engine (send it, never early) → [`Report`] and
//! [`ClientLog`] (what was answered) → [`reconcile()`] (is every answer true in the order ledger?) → exit code.
//!
//! A scenario can be built in code:
//!
//! ```no_run
//! use std::time::Duration;
//! use loadtest::scenario::{Admin, Protocol, Sale, Shape, Trust};
//! use loadtest::{Scenario, render, run_and_check};
//!
//! # async fn demo(ca_pem: String) -> anyhow::Result<()> {
//! let mut scenario = Scenario::new(
//!     "https://localhost:8443",
//!     Shape::Spike {
//!         duration: Duration::from_secs(10),
//!         first_share: 0.6,
//!         first_within: Duration::from_secs(1),
//!         warm_up: Duration::from_secs(1),
//!         warm_up_rate: 200.0,
//!     },
//! );
//! scenario.target.protocol = Protocol::H2;
//! scenario.target.trust = Trust::CaPem(ca_pem);
//! scenario.admin = Some(Admin { url: "http://127.0.0.1:9900".into(), token_file: None });
//! scenario.sale = Some(Sale { id: "demo".into(), skus: vec!["sneaker-42".into()], ..Sale::default() });
//! scenario.buyers.count = 20_000;
//! scenario.retry.percent = 10.0;
//!
//! let progress = |p: &loadtest::Progress| eprintln!("{}", render::progress_line(p));
//! let report = run_and_check(&scenario, progress, std::future::pending()).await?;
//! print!("{}", render::text(&report, false));
//! std::process::exit(report.exit_code.into());
//! # }
//! ```

#![warn(unreachable_pub)]
#![allow(
    missing_docs,
    reason = "only our own programs and tests use this library; docs stand where they teach"
)]

pub mod admin;
pub mod cli;
mod engine;
pub mod history;
pub mod ledger;
pub mod live;
pub mod oracle;
mod outcome;
pub mod plan;
pub mod reconcile;
mod record;
pub mod report;
pub mod scenario;

pub use engine::{RunOutput, run};
pub use history::{ClientLog, ClientSummary};
pub use outcome::Outcome;
pub use reconcile::{Reconciliation, reconcile};
pub use record::Progress;
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
    if let (Some(admin), Some(sale)) = (&scenario.admin, &scenario.sale)
        && scenario.check().is_empty()
    {
        // A run of minutes is too long to learn that nothing was on sale.
        let found = admin::AdminClient::new(admin)?.has_sale(&sale.id).await;
        anyhow::ensure!(
            found,
            "no sale {:?} at {}: create it first (penstock sale create)",
            sale.id,
            admin.url
        );
    }
    let RunOutput {
        mut report,
        log,
        recording,
    } = run(scenario, progress, stop).await?;
    let mut facts = None;
    if scenario.admin.is_some() && scenario.sale.is_some() && !report.interrupted {
        match reconcile::reconcile_with_facts(scenario, &log).await {
            Ok((found, read)) => {
                report.reconciliation = Some(found);
                facts = Some(read);
            }
            Err(error) => report.notes.push(format!("not reconciled: {error:#}")),
        }
    }
    if let Some(recording) = recording
        && let Err(error) = recording.finish(facts)
    {
        report
            .notes
            .push(format!("the history is not whole: {error:#}"));
    }
    report.conclude(scenario);
    Ok(report)
}
