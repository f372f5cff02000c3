//! Breaks and mends what the plan says, each fault by its own clock, and writes both down.
//!
//! **Clocks.** A step moves what the store or a node calls now, and nothing forbids a machine's clock to be wrong by that much.
//! So what must hold is what the oracle's `--skew` says, told the largest step of the run: the window opens and closes, and an
//! unpaid order expires, early or late by the step and by no more; everything else holds as if nobody had touched the clock. Where the
//! ledger has a clock of its own a node's clock, an hour off, moves nothing at all.
//!
//! **Second deliveries** are operations of their own in the history, with an end that nobody knows: their sender has gone.

mod disk;

mod ledger;

mod redis;

mod stranger;

mod twice;

use std::process::{Command, Stdio};

use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::{
    bench::Bench,
    plan::{Break, Damage, Fault, Plan, Target},
    process::Process,
    recorder::HistoryRecorder,
};

/// A process that needs another one, which is broken as well, ends at once and is started again, as a supervisor does.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
const RESTARTS: u32 = 300;

/// Runs every fault of the plan; returns when the last is mended.
pub async fn run(plan: &Plan, bench: &Bench, recorder: &HistoryRecorder) {
    let start = Instant::now();
    let all = plan.faults.iter().map(|fault| async move {
        sleep_until(start + fault.after).await;
        one(fault, bench, recorder).await;
    });
    futures_util::future::join_all(all).await;
}

async fn one(fault: &Fault, bench: &Bench, recorder: &HistoryRecorder) {
    let what = format!("{:?}", fault.what);
    let lasts = fault.lasts;
    match fault.what {
        Break::Kill(target) => {
            // One fault of a process at a time.
            let process = bench.process(target);
            let mut process = process.lock().await;
            let number = recorder.breaks("kill", &what);
            process.kill();
            sleep(lasts).await;
            restart(&mut process).await;
            if target == Target::Postgres {
                bench.has_recovered().await;
            }
            recorder.mends(number, "kill", &what);
        }
        Break::Stop(target) => {
            let process = bench.process(target);
            let process = process.lock().await;
            let number = recorder.breaks("stop", &what);
            let stopped = signal_all(&process, "STOP");
            sleep(lasts).await;
            for pid in stopped.iter().rev() {
                signal(*pid, "CONT");
            }
            recorder.mends(number, "stop", &what);
        }
        Break::Link(link, damage) => {
            let proxy = bench.link(link);
            let number = recorder.breaks("link", &what);
            proxy.damage(damage);
            if damage != Damage::Reset {
                sleep(lasts).await;
                proxy.mend();
            }
            recorder.mends(number, "link", &what);
        }
        Break::Clock(target, step_ms) => {
            let clock = match target {
                Target::Node(at) => bench.nodes[at].clock.as_ref(),
                _ => bench.redis_clock.as_ref(),
            };
            let clock = clock.expect("it was started with one");
            let number = recorder.breaks("clock", &what);
            clock.step(step_ms);
            sleep(lasts).await;
            clock.step(0);
            recorder.mends(number, "clock", &what);
        }
        Break::Failover { behind } => redis::failover(behind, lasts, bench, recorder, &what).await,
        Break::Busy(ms) => redis::busy(ms, bench, recorder, &what).await,
        Break::MoveSlot => redis::move_slot(lasts, bench, recorder, &what).await,
        Break::DiskFull(target) => disk::fill(target, lasts, bench, recorder, &what).await,
        Break::Stranger => stranger::start(bench, recorder, &what).await,
        Break::LedgerBack => ledger::go_back(lasts, bench, recorder, &what).await,
        Break::Standby => ledger::promote(lasts, bench, recorder, &what).await,
        Break::Twice(at) => twice::deliver(&bench.nodes[at].front, lasts, recorder, &what).await,
    }
}

/// Starts a process until it stays.
async fn restart(process: &mut Process) {
    for _ in 0..RESTARTS {
        match process.try_start_again().await {
            Ok(()) => return,
            Err(_) => sleep(RESTART_PAUSE).await,
        }
    }
    panic!("it does not come back:\n{}", process.log_text());
}

/// Signals a process and its children (a PostgreSQL is many), children first; answers whom.
fn signal_all(process: &Process, name: &str) -> Vec<u32> {
    let pid = process.id();
    let mut all = children(pid);
    all.push(pid);
    for pid in &all {
        signal(*pid, name);
    }
    all
}

fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn signal(pid: u32, name: &str) {
    // A child may have ended meanwhile.
    let _ = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status();
}
