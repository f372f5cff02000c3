//! The history file and `loadtest verify`: written, torn, bad, judged.

use std::path::Path;
use std::process::{Command, Output};

use loadtest::history::event::{End, Header};
use loadtest::history::{Event, HistoryWriter, Level, read_file};
use loadtest::oracle::{Allow, Rule, verify_file};

use super::model::{Flaw, history};
use super::tale::{T0_MS, Tale};
use crate::support::{Faults, constant, run_and_check, scenario, serve};

fn header() -> Header {
    Header::new(7, "by hand", T0_MS, Level::Durable)
}

/// Writes a history as text.
fn write(path: &Path, events: &[Event]) {
    let mut text = serde_json::to_string(&header()).unwrap();
    for event in events {
        text.push('\n');
        text.push_str(&serde_json::to_string(event).unwrap());
    }
    text.push('\n');
    std::fs::write(path, text).unwrap();
}

fn verify(file: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg("verify")
        .arg(file)
        .args(more)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    let events = history(3, None);
    let writer = HistoryWriter::create(&path, &header()).unwrap();
    let (Event::End(end), rest) = events.split_last().unwrap() else {
        panic!("the last line is the end");
    };
    for event in rest {
        writer.sender().record_blocking(event.clone());
    }
    let written = writer.finish(end.clone()).unwrap();
    assert_eq!(
        (written.lines, written.dropped),
        (events.len() as u64 + 1, 0)
    );
    let (mut found, mut head) = (Vec::new(), None);
    let keep = |_, event| {
        found.push(event);
        Ok(())
    };
    let read = read_file(&path, |h| head = Some(h), keep, |_, _| {}).unwrap();
    assert_eq!(u64::from(read.lines), written.lines);
    assert_eq!(head, Some(header()));
    assert_eq!(found, events);
}

#[test]
fn a_history_cut_at_any_byte_is_read_up_to_its_last_whole_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    tale.cancelled(20, 30, "ann", "o1");
    tale.rows[0].status = loadtest::ledger::OrderStatus::Released;
    write(&path, &tale.lines());
    let whole = std::fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in first..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (verdict, read) = verify_file(&path, Allow::nothing, |_, _| {}).unwrap();
        assert!(verdict.held, "cut at {cut}: {:#?}", verdict.violations);
        let ends = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u32;
        assert!(
            read.lines == ends || (read.lines == ends + 1 && !read.torn),
            "cut at {cut}"
        );
        assert!(!verdict.not_judged.is_empty() || cut + 1 == whole.len());
    }
}

#[test]
fn events_that_do_not_follow_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    let mut tale = Tale::new();
    tale.order(10, 20, "ann", "r1", 1, "o1");
    let good = tale.lines();
    let bad = |change: fn(&mut Vec<Event>), line: &str, why: &str| {
        let mut events = good.clone();
        change(&mut events);
        write(&path, &events);
        let error = verify_file(&path, Allow::nothing, |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(line) && error.contains(why), "{error}");
        let (code, out, err) = verify(&path, &[]);
        assert_eq!(code, Some(2), "{out}{err}");
        assert!(err.contains(why), "{err}");
    };
    bad(|events| drop(events.remove(0)), "line 2:", "never invoked");
    bad(
        |events| events.insert(1, events[0].clone()),
        "line 3:",
        "invoked before, at line 2",
    );
    bad(
        |events| events.insert(2, events[1].clone()),
        "line 4:",
        "ended before, at line 3",
    );
    bad(
        |events| match &mut events[1] {
            Event::Ok(done) => done.t_us = 9_999,
            other => panic!("{other:?}"),
        },
        "line 3:",
        "ends before it begins",
    );
    bad(
        |events| match events.last_mut() {
            Some(Event::End(end)) => end.dropped = 5,
            other => panic!("{other:?}"),
        },
        "line 7:",
        "5 events were dropped",
    );
    bad(
        |events| events.push(Event::Quiet { t_us: 1 }),
        "line 8:",
        "after the end",
    );
}

#[test]
fn verify_exits_with_its_verdict_and_writes_it_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (path, json) = (folder.path().join("h.jsonl"), folder.path().join("v.json"));
    write(&path, &history(1, None));
    let (code, out, err) = verify(
        &path,
        &["--return-lag", "20ms", "--json", json.to_str().unwrap()],
    );
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.ends_with("verdict   every rule held\n"), "{out}");
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(told["held"], true);
    assert_eq!(told["seed"], 7);

    write(&path, &history(1, Some(Flaw::NoReplayCheck)));
    let (code, out, _) = verify(&path, &["--json", json.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("BROKEN    resurrected (INV-ORDER-1)"), "{out}");
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let lines = &told["violations"][0]["examples"][0]["lines"];
    assert!(
        lines.as_array().is_some_and(|lines| lines.len() >= 2),
        "{told}"
    );

    assert_eq!(verify(&folder.path().join("none"), &[]).0, Some(2));
    assert_eq!(verify(&path, &["--skew", "soon"]).0, Some(2));
}

#[test]
fn the_level_of_the_command_line_overrules_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    let mut tale = Tale::new();
    tale.bought(0, 10, Tale::wish("ann", "r1", 1), "o1");
    tale.fault(1_000, 1_100);
    write(&path, &tale.lines());
    assert_eq!(verify(&path, &[]).0, Some(1));
    let (code, out, _) = verify(&path, &["--level", "fast"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("lost      1 acknowledged orders"), "{out}");
}

#[test]
fn a_writer_that_is_never_finished_keeps_what_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    let writer = HistoryWriter::create(&path, &header()).unwrap();
    let sender = writer.sender();
    sender.record(Event::Quiet { t_us: 1 });
    // A kill leaves no time for a last word: the line must be in the file while the writer still waits.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::fs::read_to_string(&path).unwrap().lines().count() < 2 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the line was never flushed"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let written = writer.finish(End::default()).unwrap();
    assert_eq!(written.lines, 3);
}

#[test]
fn a_writer_that_cannot_follow_drops_events_and_the_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    // A reader that does not read: the pipe fills, then the writer's buffer, then its queue.
    let opening = std::thread::spawn({
        let path = path.clone();
        move || std::fs::File::open(path).unwrap()
    });
    let writer = HistoryWriter::create(&path, &header()).unwrap();
    let mut source = opening.join().unwrap();
    let sender = writer.sender();
    for t_us in 0..200_000 {
        sender.record(Event::Quiet { t_us });
    }
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut source, &mut text).unwrap();
        text
    });
    let written = writer.finish(End::default()).unwrap();
    assert!(written.dropped > 0, "{written:?}");
    assert_eq!(written.lines + written.dropped, 200_002);
    let file = folder.path().join("h.jsonl");
    std::fs::write(&file, reading.join().unwrap()).unwrap();
    let error = verify_file(&file, Allow::nothing, |_, _| {}).unwrap_err();
    let told = format!("{} events were dropped", written.dropped);
    assert!(error.to_string().contains(&told), "{error}");
}

#[test]
fn a_disk_that_takes_nothing_is_said_at_once() {
    assert!(HistoryWriter::create(Path::new("/dev/full"), &header()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_writes_a_history_that_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults {
        unknown_every: Some(5),
        ..Faults::default()
    };
    let server = serve(30, faults).await;
    let mut s = scenario(&server, constant(300.0, 500));
    s.generator.threads = 2;
    s.retry.percent = 30.0;
    let path = folder.path().join("h.jsonl");
    s.history_file = Some(path.clone());
    let report = run_and_check(&s).await;
    assert_eq!(report.exit_code, 0, "{report:?}");
    let (verdict, _) = verify_file(&path, Allow::at, |_, _| {}).unwrap();
    assert!(verdict.held, "{:#?}", verdict.violations);
    assert_eq!(verdict.tally.rows, 30);
    assert!(
        verdict.tally.acknowledged == 30 && verdict.tally.refused > 50,
        "{:?}",
        verdict.tally
    );
    assert!(verdict.not_judged.is_empty(), "{:?}", verdict.not_judged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_oversells_is_caught_from_the_history_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults {
        oversell: 2,
        ..Faults::default()
    };
    let server = serve(30, faults).await;
    let mut s = scenario(&server, constant(300.0, 500));
    let path = folder.path().join("h.jsonl");
    s.history_file = Some(path.clone());
    run_and_check(&s).await;
    let (verdict, _) = verify_file(&path, Allow::at, |_, _| {}).unwrap();
    assert!(verdict.breaks(Rule::Oversold), "{:#?}", verdict.violations);
}
