//! Makes the report of what the generator threads measured.

use std::time::Duration;

use super::{
    ConnectionsReport, GeneratorReport, Latency, OutcomeReport, PollsReport, Report,
    ScenarioSummary, StatusCount, TOO_BUSY, Verdict, round3,
};
use crate::history::ClientSummary;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::record::{Latencies, Point, Recorder, ThreadCpu, latencies};
use crate::scenario::{Scenario, Shape};

/// What the engine hands in.
pub(crate) struct Material<'a> {
    pub started_unix_ms: i64,
    pub wall: Duration,
    pub recorder: &'a Recorder,
    pub history: ClientSummary,
    pub cpu: Option<ThreadCpu>,
    pub timeline: Vec<Point>,
    pub interrupted: bool,
    pub notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(s: &Scenario, plan: &Plan, m: Material<'_>) -> Report {
        let counts = m.recorder.counts;
        let ended = Ended::of(m.recorder);
        let planned_s = (plan.t0_ns + plan.length_ns) as f64 / 1e9;
        let length_s = match m.interrupted {
            true => planned_s.min(m.wall.as_secs_f64()),
            false => planned_s,
        }
        .max(1e-3);
        let generator = generator(s, &m);
        let mut notes = m.notes;
        if let Some(busy) = generator.busy_share.filter(|share| *share > TOO_BUSY) {
            notes.push(format!(
                "the generator's threads were busy {:.0} % of the run: part of the latency may be its own",
                busy * 100.0
            ));
        }
        let status = |(status, count): (&u16, &u64)| StatusCount {
            status: *status,
            count: *count,
        };
        Report {
            format: "penstock-loadtest/1".into(),
            scenario: ScenarioSummary::of(s),
            started_unix_ms: m.started_unix_ms,
            wall_s: round3(m.wall.as_secs_f64()),
            interrupted: m.interrupted,
            planned: counts.planned,
            requests: counts.sent,
            completed: ended.answered,
            target_rate: round3(counts.planned as f64 / length_s),
            achieved_rate: round3(counts.sent_in_time as f64 / length_s),
            rate_ratio: round3(ratio(counts.sent_in_time, counts.planned)),
            error_share: ratio(ended.errors, ended.all),
            broken_share: ratio(counts.resends, counts.sent),
            statuses: m.recorder.statuses.iter().map(status).collect(),
            outcomes: ended.outcomes,
            latency: Latency::of(&ended.planned),
            latency_uncorrected: Latency::of(&ended.actual),
            schedule_lag: Latency::of(&m.recorder.lag),
            connection_wait: Latency::of(&m.recorder.connection_wait),
            connections: ConnectionsReport {
                opened: counts.connects,
                reconnects: counts.reconnects,
                failed: counts.connects_failed,
                resends: counts.resends,
            },
            generator,
            history: m.history,
            polls: PollsReport {
                sent: counts.polls,
                settled: counts.polls_settled,
                pay_retries: counts.pay_retries,
            },
            timeline: m.timeline,
            reconciliation: None,
            thresholds: Vec::new(),
            verdict: Verdict::Valid,
            notes,
            exit_code: 0,
        }
    }
}

/// The requests that ended.
struct Ended {
    outcomes: Vec<OutcomeReport>,
    all: u64,
    answered: u64,
    errors: u64,
    /// Latencies of all but the shed ones, from the planned instant.
    planned: Latencies,
    /// The same from the actual send.
    actual: Latencies,
}

impl Ended {
    fn of(recorder: &Recorder) -> Ended {
        let mut ended = Ended {
            outcomes: Vec::new(),
            all: 0,
            answered: 0,
            errors: 0,
            planned: latencies(),
            actual: latencies(),
        };
        for outcome in Outcome::ALL {
            let Some(pair) = recorder.outcome(outcome) else {
                continue;
            };
            let count = pair.planned.len();
            ended.all += count;
            if outcome.is_answered() {
                ended.answered += count;
            }
            if outcome.is_error() {
                ended.errors += count;
            }
            if outcome != Outcome::Shed {
                let fits = "all histograms have the same bounds";
                ended.planned.add(&pair.planned).expect(fits);
                ended.actual.add(&pair.actual).expect(fits);
            }
            ended.outcomes.push(OutcomeReport {
                outcome,
                count,
                latency: Latency::of(&pair.planned),
                latency_uncorrected: Latency::of(&pair.actual),
            });
        }
        ended
    }
}

fn generator(s: &Scenario, m: &Material<'_>) -> GeneratorReport {
    let counts = m.recorder.counts;
    let seconds = |ns: u64| round3(ns as f64 / 1e9);
    let thread_s = m.wall.as_secs_f64().max(1e-3) * s.generator.threads as f64;
    GeneratorReport {
        cpu_s: m.cpu.map(|cpu| seconds(cpu.used_ns)),
        cpu_wait_s: m.cpu.map(|cpu| seconds(cpu.waited_ns)),
        cpu_us_per_request: m
            .cpu
            .filter(|_| counts.sent > 0)
            .map(|cpu| round3(cpu.used_ns as f64 / 1e3 / counts.sent as f64)),
        busy_share: m
            .cpu
            .map(|cpu| round3((cpu.used_ns + cpu.waited_ns) as f64 / 1e9 / thread_s)),
        dropped: counts.dropped,
    }
}

impl ScenarioSummary {
    fn of(s: &Scenario) -> Self {
        ScenarioSummary {
            target: s.target.url.clone(),
            protocol: s.target.protocol.name().into(),
            profile: match s.profile.shape {
                Shape::Constant { .. } => "constant",
                Shape::Ramp { .. } => "ramp",
                Shape::Spike { .. } => "spike",
            }
            .into(),
            poisson: s.profile.poisson,
            seed: s.seed,
            buyers: s.buyers.count.into(),
            bots: s.bots.count.into(),
            threads: s.generator.threads as u64,
            connections: s.generator.connections as u64,
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
