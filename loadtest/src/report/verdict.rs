//! From figures to a judgement: thresholds, whether the figures describe the server at all, and the exit code.

use serde::{Deserialize, Serialize};

use super::{Report, TOO_BUSY};
use crate::outcome::Outcome;
use crate::scenario::Thresholds;

/// Below this share of the plan sent in time, the figures describe a queue and not the plan.
const KEPT_RATE: f64 = 0.99;

/// One threshold of the scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Key in the scenario file.
    pub name: String,
    /// What was allowed: milliseconds, or a share.
    pub limit: f64,
    /// What was reached; `null` if the outcome never occurred.
    pub actual: Option<f64>,
    pub held: bool,
}

/// Whether the figures describe the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The plan was kept.
    Valid,
    /// The generator was late: its latencies are its own.
    GeneratorBound,
    /// The server could not take the plan: requests waited for connections or were shed.
    ServerBound,
    /// The run was stopped.
    Interrupted,
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Held,
    /// It could not run, or nothing was answered, or the ledger could not be asked.
    CouldNotRun,
    /// The scenario or the command line is wrong.
    BadScenario,
    /// A threshold was missed.
    ThresholdMissed,
    /// Oversold, duplicated, lost or another broken invariant.
    InvariantBroken,
    /// The generator was late; the result is not valid.
    GeneratorSaturated,
    /// Stopped, with a partial report.
    Interrupted,
}

impl Exit {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Held => 0,
            Exit::CouldNotRun => 1,
            Exit::BadScenario => 2,
            Exit::ThresholdMissed => 3,
            Exit::InvariantBroken => 4,
            Exit::GeneratorSaturated => 5,
            Exit::Interrupted => 130,
        }
    }
}

/// Judges every threshold of the scenario.
pub(super) fn thresholds(report: &Report, limits: &Thresholds) -> Vec<Threshold> {
    let mut judged = Vec::new();
    for (outcome, limit) in &limits.p99 {
        let limit = limit.as_secs_f64() * 1e3;
        let actual = report.outcome(*outcome).map(|one| one.latency.p99_ms);
        judged.push(Threshold {
            name: format!("p99.{}", outcome.name()),
            limit,
            actual,
            // What never occurred cannot have been slow.
            held: actual.is_none_or(|actual| actual <= limit),
        });
    }
    if let Some(limit) = limits.max_error_share {
        judged.push(Threshold {
            name: "max_error_share".into(),
            limit,
            actual: Some(report.error_share),
            held: report.error_share <= limit,
        });
    }
    if let Some(limit) = limits.max_broken_share {
        judged.push(Threshold {
            name: "max_broken_share".into(),
            limit,
            actual: Some(report.broken_share),
            held: report.broken_share <= limit,
        });
    }
    judged
}

/// Judges whether the figures describe the server.
pub(super) fn verdict(report: &Report, limits: &Thresholds) -> Verdict {
    let lag_limit_ms = limits.max_schedule_lag.as_secs_f64() * 1e3;
    if report.interrupted {
        Verdict::Interrupted
    } else if report.schedule_lag.p99_ms > lag_limit_ms || is_starved(report) {
        Verdict::GeneratorBound
    } else if report.count(Outcome::Shed) > 0 || report.rate_ratio < KEPT_RATE {
        Verdict::ServerBound
    } else {
        Verdict::Valid
    }
}

/// Whether the plan was not kept because the generator's own threads had no time: busy, or waiting for a processor that others had.
fn is_starved(report: &Report) -> bool {
    let is_busy = report
        .generator
        .busy_share
        .is_some_and(|share| share > TOO_BUSY);
    is_busy && (report.rate_ratio < KEPT_RATE || report.count(Outcome::Shed) > 0)
}

/// The exit: what is worse comes first. A broken invariant is a fact even when the generator was late.
pub(super) fn exit(report: &Report, must_reconcile: bool) -> Exit {
    let broken = report
        .reconciliation
        .as_ref()
        .is_some_and(|found| !found.findings.is_empty());
    if report.interrupted {
        Exit::Interrupted
    } else if report.completed == 0 {
        Exit::CouldNotRun
    } else if broken {
        Exit::InvariantBroken
    } else if must_reconcile && report.reconciliation.is_none() {
        Exit::CouldNotRun
    } else if report.verdict == Verdict::GeneratorBound {
        Exit::GeneratorSaturated
    } else if report.thresholds.iter().any(|one| !one.held) {
        Exit::ThresholdMissed
    } else {
        Exit::Held
    }
}
