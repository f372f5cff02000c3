//! A PostgreSQL of a test, for as many databases as it has runs.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::process::{Shared, child, free_port};

const SETTINGS: [&str; 4] = [
    "listen_addresses=127.0.0.1",
    "fsync=on",
    "max_connections=200",
    "shared_buffers=32MB",
];
/// How often a PostgreSQL is asked that may still be starting: for half a minute.
pub const ASKS: u32 = 600;

/// The PostgreSQL of all runs of one test.
pub struct Postgres {
    pub process: Shared,
    pub address: SocketAddr,
    bin: PathBuf,
    pub folder: TempDir,
    /// As whom the server runs.
    user: Vec<&'static str>,
    /// Standbys that it had.
    pub standbys: AtomicU32,
}

impl Postgres {
    /// Does something to a database. A server that listens may still be starting, at first or after a fault.
    pub async fn ask(&self, program: &str, arguments: &[&str]) {
        let mut tries = 0;
        while let Err(said) = self.once(program, arguments) {
            tries += 1;
            assert!(tries < ASKS, "{program} {arguments:?}: {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The same, or what it says against it.
    pub fn once(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let port = self.address.port().to_string();
        let done = Command::new(self.bin.join(program))
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
            .args(arguments)
            .output()
            .unwrap();
        match done.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }
}

impl Postgres {
    /// What a server answers to a query.
    pub fn say(&self, at: SocketAddr, query: &str) -> String {
        self.try_say(at, query)
            .unwrap_or_else(|said| panic!("{query}: {said}"))
    }

    /// The same, or what it says against it.
    pub fn try_say(&self, at: SocketAddr, query: &str) -> Result<String, String> {
        let url = format!("postgres://postgres@{at}/postgres");
        try_done(self.program("psql").args([&url, "-tAc", query]))
    }

    pub fn start_words(&self, data: &str, at: SocketAddr) -> Vec<String> {
        start_words(&self.bin, self.folder.path(), &self.user, data, at)
    }

    /// A program of PostgreSQL, run by the server's own user.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(&self.user).arg(self.bin.join(name));
        command.current_dir(self.folder.path());
        command
    }

    /// Starts a server of the calling test's own: a child dies with the thread that started it, and a test is a thread.
    pub async fn start() -> Arc<Postgres> {
        Arc::new(start_postgres().await)
    }
}

async fn start_postgres() -> Postgres {
    let bin = postgres_programs();
    let folder = tempfile::tempdir().unwrap();
    // PostgreSQL refuses to run as root; then the folder and the server belong to its own user.
    let is_root =
        fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"));
    let mut user = Vec::new();
    if is_root {
        let owner = Command::new("chown")
            .arg("postgres:postgres")
            .arg(folder.path())
            .status();
        assert!(
            owner.is_ok_and(|status| status.success()),
            "no user postgres: apt-get install postgresql"
        );
        user.extend(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    let data = folder.path().join("data").display().to_string();
    let program = |name: &str| bin.join(name).display().to_string();
    let made = Command::new("setpriv")
        .args(&user)
        .arg(program("initdb"))
        .args([
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );

    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // Its log is written by this program, so it need not be the server's user's.
    let log = folder.path().join("postgres.log");
    let words = start_words(&bin, folder.path(), &user, &data, address);
    let process = child(words, log, address).await;
    Postgres {
        process: Arc::new(Mutex::new(process)),
        address,
        bin,
        folder,
        user,
        standbys: AtomicU32::new(0),
    }
}

/// Runs a program that must succeed; answers what it says.
pub fn done(command: &mut Command) -> String {
    try_done(command).unwrap_or_else(|said| panic!("{command:?}: {said}"))
}

/// The same, or what it says against it.
fn try_done(command: &mut Command) -> Result<String, String> {
    let done = command.output().unwrap();
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

/// What starts a server over a folder.
fn start_words(
    bin: &Path,
    folder: &Path,
    user: &[&str],
    data: &str,
    at: SocketAddr,
) -> Vec<String> {
    let server = bin.join("postgres").display().to_string();
    let (socket, port) = (folder.display().to_string(), at.port().to_string());
    let own = [&server, "-D", data, "-p", &port, "-k", &socket];
    let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
    let words = user.iter().copied().chain(own).chain(settings);
    words.map(str::to_owned).collect()
}

/// The folder of the newest installed server.
fn postgres_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<u32>().ok());
            name.unwrap_or(0)
        });
    newest
        .expect("PostgreSQL is needed; install it: apt-get install postgresql")
        .join("bin")
}
