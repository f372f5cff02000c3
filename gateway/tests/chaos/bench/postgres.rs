//! The PostgreSQL of all runs of one test, with a database for each.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{Shared, child};
use crate::process::free_port;

/// How often a PostgreSQL is asked that may still be starting: for half a minute.
const ASKS: u32 = 600;

/// The PostgreSQL of all runs of one test.
pub struct Postgres {
    pub process: Shared,
    pub address: SocketAddr,
    bin: PathBuf,
    _folder: TempDir,
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

    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (server, port, socket) = (
        program("postgres"),
        port.to_string(),
        folder.path().display().to_string(),
    );
    let settings = [
        "listen_addresses=127.0.0.1",
        "fsync=on",
        "max_connections=200",
        "shared_buffers=32MB",
    ];
    let mut words = user;
    words.extend([server.as_str(), "-D", &data, "-p", &port, "-k", &socket]);
    words.extend(settings.iter().flat_map(|setting| ["-c", setting]));
    // Its log is written by this program, so it need not be the server's user's.
    let log = folder.path().join("postgres.log");
    let process = child(&words, log, address).await;
    Postgres {
        process: Arc::new(Mutex::new(process)),
        address,
        bin,
        _folder: folder,
    }
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
