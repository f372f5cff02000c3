//! The program itself: what it prints and how it exits.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{Faults, Running, serve};

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn scenario_file(folder: &Path, server: &Running, more: &str) -> String {
    let url = server.url();
    let toml = format!(
        r#"
        target.url = "{url}"
        admin.url = "{url}"
        generator.connections = 4
        profile = {{ kind = "constant", rate = 200, duration = "300ms" }}
        sale = {{ id = "drop", skus = ["shoe"] }}
        thresholds.max_schedule_lag = "30s"
        {more}
        "#
    );
    let file = folder.join("scenario.toml");
    std::fs::write(&file, toml).unwrap();
    file.to_str().unwrap().to_owned()
}

async fn run(arguments: Vec<String>) -> Output {
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        loadtest(&arguments)
    })
    .await
    .unwrap()
}

#[test]
fn help_ends_with_examples_and_the_table_of_exit_codes() {
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let help = text(&loadtest(arguments).stdout);
        assert!(help.contains("Examples:"), "{help}");
        for code in [
            "0  everything",
            "1  it",
            "2  the",
            "3  a",
            "4  an",
            "5  the",
            "130  interrupted",
        ] {
            assert!(help.contains(code), "{code}: {help}");
        }
    }
}

#[test]
fn validate_prints_every_problem_and_exits_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "nonsense = 1\n[target]\nurl = 5\n").unwrap();
    let output = loadtest(&["validate", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for key in ["nonsense", "target.url", "profile"] {
        assert!(told.contains(key), "{told}");
    }
}

#[test]
fn a_missing_file_or_a_wrong_argument_exits_2() {
    assert_eq!(
        loadtest(&["validate", "/does/not/exist"]).status.code(),
        Some(2)
    );
    assert_eq!(loadtest(&["run"]).status.code(), Some(2));
    assert_eq!(loadtest(&["fly"]).status.code(), Some(2));
}

#[test]
fn completions_are_printed() {
    let output = loadtest(&["completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("complete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_run_exits_0_and_writes_both_reports() {
    let server = serve(20, Faults::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = scenario_file(folder.path(), &server, "");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (json, html) = (path("r.json"), path("r.html"));
    let arguments = ["run", &file, "--json", &json, "--html", &html, "--plain"];
    let output = run(arguments.map(str::to_owned).to_vec()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("accepted"));
    let report: loadtest::Report =
        serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report.count(loadtest::Outcome::Accepted), 20);
    assert!(std::fs::read_to_string(html).unwrap().contains("</html>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_threshold_exits_3() {
    let server = serve(20, Faults::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = scenario_file(folder.path(), &server, "thresholds.p99.accepted = \"1us\"");
    let output = run(vec!["run".into(), file]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stdout).contains("MISSED p99.accepted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_invariant_exits_4_and_is_named() {
    let faults = Faults {
        oversell: 2,
        ..Faults::default()
    };
    let server = serve(20, faults).await;
    let folder = tempfile::tempdir().unwrap();
    let file = scenario_file(folder.path(), &server, "");
    let output = run(vec!["run".into(), file]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(text(&output.stdout).contains("BROKEN oversold (INV-STOCK-1)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_exits_1() {
    let server = serve(20, Faults::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = scenario_file(folder.path(), &server, "");
    let target = ["run", &file, "--target", "http://127.0.0.1:1"].map(str::to_owned);
    let output = run(target.to_vec()).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("cannot connect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_exits_130_with_a_partial_report() {
    let server = serve(20, Faults::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = scenario_file(folder.path(), &server, "");
    let long = std::fs::read_to_string(&file)
        .unwrap()
        .replace("300ms", "60s");
    std::fs::write(&file, long).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while server.purchases() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(text(&output.stdout).contains("interrupted: a partial report"));
}
