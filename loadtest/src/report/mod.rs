//! The report of a run: one serialisable struct that the terminal, the JSON file and the HTML page are made of.
//!
//! Its keys are published in `schema/report.schema.json`; a test holds the two together.

mod build;
mod html;
pub mod render;
mod verdict;

use serde::{Deserialize, Serialize};

pub(crate) use build::Material;
pub use verdict::{Exit, Threshold, Verdict};

use crate::history::ClientSummary;
use crate::outcome::Outcome;
use crate::reconcile::Reconciliation;
use crate::record::{Latencies, Point, quantile};
use crate::scenario::Scenario;

/// A generator busier than this has no time left to be on time.
const TOO_BUSY: f64 = 0.8;

/// Everything a run found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Format of this document: `penstock-loadtest/1`.
    pub format: String,
    pub scenario: ScenarioSummary,
    /// Wall clock of the start, unix milliseconds.
    pub started_unix_ms: i64,
    /// From the start to the last answer.
    pub wall_s: f64,
    /// The run was stopped before its end.
    pub interrupted: bool,
    /// Jobs of the plan that became due.
    pub planned: u64,
    /// Requests put on the wire, resends, payments and polls included.
    pub requests: u64,
    /// Jobs that ended with an answer.
    pub completed: u64,
    /// Jobs per second the plan asked for.
    pub target_rate: f64,
    /// Jobs per second that went out before the plan's end.
    pub achieved_rate: f64,
    /// The second over the first; well below 1 the plan was not kept.
    pub rate_ratio: f64,
    /// Errors per ended job.
    pub error_share: f64,
    /// Requests that had to be sent again because their connection broke, per request: no error of the job, and none of the plan.
    pub broken_share: f64,
    /// Answers by HTTP status, ascending; 0 counts those that never came.
    pub statuses: Vec<StatusCount>,
    /// What became of the requests; only outcomes that occurred.
    pub outcomes: Vec<OutcomeReport>,
    /// All outcomes together, without shed ones.
    pub latency: Latency,
    /// The same from the actual send.
    pub latency_uncorrected: Latency,
    /// Lateness of the generator itself.
    pub schedule_lag: Latency,
    /// Wait for a free connection, of those jobs that found none.
    pub connection_wait: Latency,
    /// Connections and what was sent again because of them.
    pub connections: ConnectionsReport,
    /// What the generator itself cost.
    pub generator: GeneratorReport,
    /// The client's own memory, in totals.
    pub history: ClientSummary,
    /// Questions after a 202, and how many purchases they settled.
    pub polls: PollsReport,
    /// The run over time.
    pub timeline: Vec<Point>,
    /// The check against the order ledger, if there was one.
    pub reconciliation: Option<Reconciliation>,
    /// The thresholds of the scenario and whether they held.
    pub thresholds: Vec<Threshold>,
    /// Whether the figures describe the server at all.
    pub verdict: Verdict,
    /// What deserves a remark.
    pub notes: Vec<String>,
    /// Exit code of the program.
    pub exit_code: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioSummary {
    pub target: String,
    /// `h1` or `h2`.
    pub protocol: String,
    /// `constant`, `ramp` or `spike`.
    pub profile: String,
    pub poisson: bool,
    /// Seed; the same one repeats the run.
    pub seed: u64,
    /// Distinct buyers, bots not counted.
    pub buyers: u64,
    pub bots: u64,
    pub threads: u64,
    pub connections: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutcomeReport {
    pub outcome: Outcome,
    pub count: u64,
    /// From the planned instant: what the buyer felt.
    pub latency: Latency,
    /// From the actual send: hides every wait before it.
    pub latency_uncorrected: Latency,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub mean_ms: f64,
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Latency {
    pub(crate) fn of(latencies: &Latencies) -> Latency {
        let ms = |q: f64| quantile(latencies, q).as_secs_f64() * 1e3;
        Latency {
            mean_ms: round3(latencies.mean() / 1e3),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: latencies.max() as f64 / 1e3,
        }
    }
}

/// Connections and what was sent again because of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionsReport {
    pub opened: u64,
    /// Of those, to replace one the server had closed.
    pub reconnects: u64,
    /// Could not be opened.
    pub failed: u64,
    /// Requests sent again, under the same key, because their connection closed under them.
    pub resends: u64,
}

/// What the generator itself cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratorReport {
    /// CPU time of its threads, where the kernel keeps an account.
    pub cpu_s: Option<f64>,
    /// Time its threads were ready to run without a core.
    pub cpu_wait_s: Option<f64>,
    /// CPU time per request put on the wire.
    pub cpu_us_per_request: Option<f64>,
    /// Share of the run its threads were on a core or waiting for one; near 1 the generator is its own limit.
    pub busy_share: Option<f64>,
    /// Jobs dropped because the run was stopped.
    pub dropped: u64,
}

/// Questions after a 202.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PollsReport {
    pub sent: u64,
    /// Purchases whose end was learnt.
    pub settled: u64,
    /// Payments tried again after a refusal that may pass.
    pub pay_retries: u64,
}

/// The figures of the demo, as one flat object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Units on sale, restocks included.
    pub stock: u64,
    /// Orders the store accepted.
    pub accepted: u64,
    /// Orders that reached the ledger.
    pub settled: u64,
    pub paid: u64,
    /// Orders whose units were returned.
    pub returned: u64,
    /// Units sold beyond the stock.
    pub oversold: u64,
    /// Request ids with more than one order.
    pub duplicated: u64,
    /// Acknowledged orders the ledger does not know.
    pub lost: u64,
    /// Distinct buyers, bots included.
    pub buyers: u64,
    /// Requests put on the wire.
    pub requests: u64,
    /// Median latency from the planned instant.
    pub p50_ms: f64,
    /// 99th percentile from the planned instant.
    pub p99_ms: f64,
    /// Length of the run.
    pub wall_s: f64,
}

impl Report {
    /// The report of one outcome, if it occurred.
    pub fn outcome(&self, outcome: Outcome) -> Option<&OutcomeReport> {
        self.outcomes.iter().find(|one| one.outcome == outcome)
    }

    /// How often an outcome occurred.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcome(outcome).map_or(0, |one| one.count)
    }

    /// The figures of the demo. Without a reconciliation the ledger's figures are zero.
    pub fn summary(&self) -> Summary {
        let ledger = self.reconciliation.clone().unwrap_or_default();
        Summary {
            stock: ledger.stock + ledger.restocked,
            accepted: ledger.accepted,
            settled: ledger.settled,
            paid: ledger.paid,
            returned: ledger.returned,
            oversold: ledger.oversold,
            duplicated: ledger.duplicated,
            lost: ledger.lost,
            buyers: self.scenario.buyers + self.scenario.bots,
            requests: self.requests,
            p50_ms: self.latency.p50_ms,
            p99_ms: self.latency.p99_ms,
            wall_s: self.wall_s,
        }
    }

    /// Judges thresholds and findings, and sets verdict and exit code. To be called once, after the reconciliation.
    pub fn conclude(&mut self, scenario: &Scenario) {
        self.thresholds = verdict::thresholds(self, &scenario.thresholds);
        self.verdict = verdict::verdict(self, &scenario.thresholds);
        let must_reconcile = scenario.admin.is_some() && scenario.sale.is_some();
        self.exit_code = verdict::exit(self, must_reconcile).code();
    }
}

/// How often a status was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCount {
    /// HTTP status; 0 without an answer.
    pub status: u16,
    pub count: u64,
}

fn round3(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
