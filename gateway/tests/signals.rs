//! What a real process does as a process: signals, none of which but SIGKILL ends a request, and the files it makes.

use std::{net::SocketAddr, path::Path, time::Duration};

use crate::{
    process::{Process, eventually, free_port},
    support::{Origin, raw, reply, status},
};

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// The program before a shop that takes a second, with its access log in a file.
async fn serve(folder: &Path) -> (Origin, Process, SocketAddr) {
    let origin = Origin::start(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        reply(200, "late")
    })
    .await;
    let (http, admin) = (free_port(), free_port());
    let http = SocketAddr::from(([127, 0, 0, 1], http));
    let config = folder.join("penstock.toml");
    let text = format!(
        "[log]\naccess = \"{}\"\n[admin]\naddress = \"127.0.0.1:{admin}\"\n[[listener]]\naddress = \"{http}\"\n\
         [[upstream]]\nname = \"shop\"\nendpoints = [{{ address = \"{}\" }}]\n\
         [[route]]\npath = \"/\"\nupstream = \"shop\"\n",
        folder.join("access.log").display(),
        origin.address
    );
    std::fs::write(&config, text).unwrap();
    let words = vec![
        "serve".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ];
    let log = folder.join("penstock.log");
    let process = Process::start(env!("CARGO_BIN_EXE_penstock"), words, log, http).await;
    (origin, process, http)
}

fn send(process: &Process, signal: &str) {
    let id = process.id().to_string();
    let sent = std::process::Command::new("kill")
        .args([&format!("-{signal}"), id.as_str()])
        .status();
    assert!(sent.unwrap().success());
}

/// Broke: SIGHUP, SIGUSR1 and SIGUSR2 killed at once, and a log that was moved away was written on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_is_no_stop_ends_no_request_and_reopens_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (_origin, mut process, http) = serve(folder.path()).await;
    let log = folder.path().join("access.log");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    for (at, signal) in ["HUP", "USR1", "USR2"].into_iter().enumerate() {
        let asked = tokio::spawn(raw(http, ASK));
        tokio::time::sleep(Duration::from_millis(300)).await;
        send(&process, signal);
        assert_eq!(status(&asked.await.unwrap()), 200, "{signal}");
        assert!(process.is_running(), "{signal}");
        eventually("the line is written", async || {
            read(&log).matches("\"status\":200").count() == 1 + usize::from(signal == "USR2")
        })
        .await;
        if signal == "USR1" {
            // The next line goes on in the same file: USR2 moves nothing.
            continue;
        }
        let moved = folder.path().join(format!("access.log.{at}"));
        std::fs::rename(&log, &moved).unwrap();
        send(&process, "HUP");
        eventually("a new file is there", async || log.exists()).await;
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&log).unwrap().permissions());
    assert_eq!(mode & 0o007, 0, "others read no addresses");
}

/// Broke: SIGQUIT killed at once, and a second SIGTERM lost a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_in_flight_however_often_it_is_asked() {
    for signals in [&["QUIT"][..], &["TERM", "TERM", "QUIT"], &["INT"]] {
        let folder = tempfile::tempdir().unwrap();
        let (_origin, mut process, http) = serve(folder.path()).await;
        let asked = tokio::spawn(raw(http, ASK));
        tokio::time::sleep(Duration::from_millis(300)).await;
        for signal in signals {
            send(&process, signal);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(status(&asked.await.unwrap()), 200, "{signals:?}");
        eventually("it ends", || std::future::ready(!process.is_running())).await;
    }
    // At a keyboard the second one means now.
    let folder = tempfile::tempdir().unwrap();
    let (_origin, mut process, http) = serve(folder.path()).await;
    let asked = tokio::spawn(raw(http, ASK));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = tokio::time::Instant::now();
    send(&process, "INT");
    tokio::time::sleep(Duration::from_millis(100)).await;
    send(&process, "INT");
    assert_eq!(asked.await.unwrap(), "");
    eventually("it ends", || std::future::ready(!process.is_running())).await;
    assert!(
        begun.elapsed() < Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
}

/// Broke: database, journal and their folders were readable by everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_program_makes_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let stores = format!(
        "store = \"embedded:{0}/journal\"\nledger = \"sqlite:{0}/ledger.db\"\njournal = \"plain\"",
        data.display()
    );
    let _node = crate::process::Penstock::start(folder.path(), &stores).await;
    let mut seen = 0;
    let mut left = vec![data];
    while let Some(path) = left.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{} is {mode:o}", path.display());
        seen += 1;
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    assert!(seen > 4, "{seen}");
}
