//! Full disks: the kernel's limit of a file's size, set on a running process, makes every write that would lengthen a file fail.
//! Needs no privileges. The error is EFBIG where a full disk says ENOSPC; the gateway, Redis and PostgreSQL look at neither
//! number, only that the write failed.

use std::{os::unix::fs::MetadataExt, process::Command};

use tokio::time::{Duration, sleep};

use super::{children, restart};
use crate::{bench::Bench, plan::Target, process::Process, recorder::HistoryRecorder};

const LAST_WORDS: Duration = Duration::from_millis(50);

/// No file of the process takes another byte until it is mended.
pub async fn fill(
    target: Target,
    lasts: Duration,
    bench: &Bench,
    recorder: &HistoryRecorder,
    what: &str,
) {
    let process = bench.process(target);
    let mut process = process.lock().await;
    let number = recorder.breaks("disk", what);
    squeeze(&process);
    sleep(lasts).await;
    relieve(&mut process).await;
    if target == Target::Postgres {
        bench.has_recovered().await;
    }
    recorder.mends(number, "disk", what);
}

/// The parent first: a child born meanwhile has its limit.
fn squeeze(process: &Process) {
    let pid = process.id();
    assert!(
        limit(pid, "1"),
        "prlimit is refused: run the tests as root or as the one who owns the servers"
    );
    for child in children(pid) {
        limit(child, "1");
    }
}

/// There is room again. Some end over a full disk (a Redis that must sync before it answers, a PostgreSQL that cannot write its
/// log) and are started again.
async fn relieve(process: &mut Process) {
    if process.is_running() {
        let pid = process.id();
        limit(pid, "unlimited");
        for child in children(pid) {
            limit(child, "unlimited");
        }
    }
    // What was refused may end a process a moment later.
    sleep(LAST_WORDS).await;
    if !process.is_running() {
        restart(process).await;
    }
}

/// Sets the soft limit; the hard one stays, so that it can be raised again. The owner of a process may do that, and root only by
/// becoming the owner (a container takes the other way from it).
fn limit(pid: u32, bytes: &str) -> bool {
    let Ok(owner) = std::fs::metadata(format!("/proc/{pid}")) else {
        return false;
    };
    let own = std::fs::metadata("/proc/self").map(|own| own.uid());
    let mut words = Vec::new();
    if own.is_ok_and(|own| own != owner.uid()) {
        words.push("setpriv".to_owned());
        words.push(format!("--reuid={}", owner.uid()));
        words.push(format!("--regid={}", owner.gid()));
        words.push("--clear-groups".to_owned());
    }
    let prlimit = [
        "prlimit",
        "--pid",
        &pid.to_string(),
        &format!("--fsize={bytes}:"),
    ];
    words.extend(prlimit.map(str::to_owned));
    let set = Command::new(&words[0]).args(&words[1..]).output();
    set.expect("prlimit is needed; install it: apt-get install util-linux")
        .status
        .success()
}

/// Whether the limit is what it is taken for; `gateway/tests/disk_full.rs` asks that of a node.
#[tokio::test]
async fn a_full_disk_refuses_what_each_server_writes_until_there_is_room() {
    use crate::{
        bench::{Postgres, Redis},
        plan::Aof,
    };

    let _alone = crate::ALONE.lock().await;
    let server = Postgres::start().await;
    let create = ["-c", "CREATE TABLE room (units int)"];
    {
        let mut process = server.process.lock().await;
        squeeze(&process);
        assert!(server.once("psql", &create).is_err());
        relieve(&mut process).await;
    }
    server.ask("psql", &create).await;

    for aof in [Aof::EverySec, Aof::Always] {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::alone(folder.path().join("redis"), aof, None).await;
        let set = ["set", "a", "b"];
        assert_eq!(redis.cli(&set).await, "OK");
        let mut process = redis.process.lock().await;
        squeeze(&process);
        redis
            .until(&set, "it refuses, or ends", |said| said != "OK")
            .await;
        relieve(&mut process).await;
        redis.until(&set, "it goes on", |said| said == "OK").await;
    }
}
