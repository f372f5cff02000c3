//! Breaks and mends what the plan says, each fault by its own clock, and writes both down.

use std::{process::Command, sync::Arc};

use tokio::{
    sync::Mutex,
    time::{Duration, Instant, sleep, sleep_until},
};

use crate::{
    bench::Bench,
    plan::{Break, Damage, Fault, Link, Plan, Target},
    process::Process,
    proxy::Proxy,
    scribe::Scribe,
};

/// A process that needs another one, which is broken as well, ends at once and is started again, as a supervisor does.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
const RESTARTS: u32 = 300;

/// Runs every fault of the plan; returns when the last is mended.
pub async fn run(plan: &Plan, bench: &Bench, scribe: &Scribe) {
    let start = Instant::now();
    let all = plan.faults.iter().map(|fault| async move {
        sleep_until(start + fault.after).await;
        one(fault, bench, scribe).await;
    });
    futures_util::future::join_all(all).await;
}

async fn one(fault: &Fault, bench: &Bench, scribe: &Scribe) {
    let what = format!("{:?}", fault.what);
    match fault.what {
        Break::Kill(target) => {
            // One fault of a process at a time.
            let process = process(bench, target);
            let mut process = process.lock().await;
            let number = scribe.breaks("kill", &what);
            process.kill();
            sleep(fault.lasts).await;
            restart(&mut process).await;
            if target == Target::Postgres {
                bench.has_recovered().await;
            }
            scribe.mends(number, "kill", &what);
        }
        Break::Stop(target) => {
            let process = process(bench, target);
            let process = process.lock().await;
            let number = scribe.breaks("stop", &what);
            let stopped = signal_all(&process, "STOP");
            sleep(fault.lasts).await;
            for pid in stopped.iter().rev() {
                signal(*pid, "CONT");
            }
            scribe.mends(number, "stop", &what);
        }
        Break::Link(link, damage) => {
            let proxy = proxy(bench, link);
            let number = scribe.breaks("link", &what);
            proxy.damage(damage);
            if damage != Damage::Reset {
                sleep(fault.lasts).await;
                proxy.mend();
            }
            scribe.mends(number, "link", &what);
        }
    }
}

fn process(bench: &Bench, target: Target) -> Arc<Mutex<Process>> {
    match target {
        Target::Node(at) => bench.nodes[at].process.clone(),
        Target::Redis => bench.redis.clone().unwrap(),
        Target::Postgres => bench.postgres.clone().unwrap(),
    }
}

fn proxy(bench: &Bench, link: Link) -> &Proxy {
    match link {
        Link::Front(at) => &bench.nodes[at].front,
        Link::Redis(at) => bench.nodes[at].to_redis.as_ref().unwrap(),
        Link::Postgres(at) => bench.nodes[at].to_postgres.as_ref().unwrap(),
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
        .status();
}
