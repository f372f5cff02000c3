//! A node that was given the ledger of another one by mistake: its embedded store has a folder, and a stock, of its own.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use tokio::time::{Duration, Instant, sleep};

use crate::{bench::Bench, recorder::HistoryRecorder};

/// Long enough for a start that waits for SQLite's writer on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Starts it with the configuration of the first node, another folder and other ports, and waits for its end.
pub async fn start(bench: &Bench, recorder: &HistoryRecorder, what: &str) {
    let (of_node, folder) = (bench.folder_of(0), bench.folder_of(99));
    fs::create_dir_all(&folder).unwrap();
    let text = fs::read_to_string(of_node.join("penstock.toml")).unwrap();
    let journal = |folder: &std::path::Path| format!("embedded:{}/", folder.display());
    let text = text.replace(&journal(&of_node), &journal(&folder));
    let line = |line: &str| match line.starts_with("address = ") {
        true => "address = \"127.0.0.1:0\"\n".to_owned(),
        false => format!("{line}\n"),
    };
    let text: String = text.lines().map(line).collect();
    let (config, log) = (folder.join("penstock.toml"), folder.join("penstock.log"));
    fs::write(&config, text).unwrap();
    let number = recorder.breaks("stranger", what);
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["serve", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + ENDS_WITHIN;
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break !status.success(),
            None if Instant::now() > deadline => break false,
            None => sleep(Duration::from_millis(20)).await,
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(&log).unwrap();
    // A disk that is full at this moment is as good a reason to end.
    assert!(ended, "a node of another installation started:\n{said}");
    recorder.mends(number, "stranger", what);
}

/// What it says; a run has no place for that, because other faults may come first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_installation_says_whose_the_ledger_is() {
    use crate::plan::{Break, Plan, Topology};

    let _alone = crate::ALONE.lock().await;
    let plan = Plan {
        topology: Topology::Embedded,
        faults: Vec::new(),
        ..Plan::from_seed(12)
    };
    let server = crate::bench::Postgres::start().await;
    let bench = Bench::start(&plan, &server).await;
    let history = bench.folder_of(0).join("history.jsonl");
    let recorder = HistoryRecorder::create(&history, plan.seed, plan.level);
    start(&bench, &recorder, &format!("{:?}", Break::Stranger)).await;
    let said = fs::read_to_string(bench.folder_of(99).join("penstock.log")).unwrap();
    let whose = "the ledger belongs to the embedded store of another installation";
    assert!(said.contains(whose), "{said}");
    bench.end().await;
}
