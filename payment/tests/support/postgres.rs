//! A private PostgreSQL server in a temporary folder, reached through a Unix socket. Shared by the tests that run at the same
//! time, stopped and removed after the last of them, and taken down by the kernel if the test process dies.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use sqlx::{AnyConnection, Connection, Executor};
use tempfile::TempDir;

const INSTALL: &str = "PostgreSQL's server is missing; install it: apt-get install -y postgresql";

pub struct Server {
    folder: TempDir,
    databases: AtomicU32,
    /// Dropped to tell the thread that holds the server process to stop it.
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Server {
    /// The running server, started if there is none.
    pub fn shared() -> Arc<Self> {
        static CURRENT: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap();
        if let Some(server) = current.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *current = Arc::downgrade(&server);
        server
    }

    /// A new empty database; returns its URL.
    pub async fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut conn = AnyConnection::connect(&self.url("postgres")).await.unwrap();
        let sql = format!("CREATE DATABASE {name}");
        conn.execute(sqlx::query(sqlx::AssertSqlSafe(sql)))
            .await
            .unwrap();
        conn.close().await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        let socket = self.folder.path().display();
        format!("postgres://postgres@localhost/{database}?host={socket}")
    }

    fn start() -> Self {
        let bin = installed();
        let folder = tempfile::Builder::new()
            .prefix("pay-pg-")
            .tempdir_in("/tmp")
            .unwrap();
        let data = folder.path().join("data");
        if is_root() {
            run(Command::new("chown").arg("postgres:").arg(folder.path()));
        }
        run(as_server(&bin.join("initdb"), folder.path())
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
            .args(["--no-locale", "--no-sync"]));

        // The kernel signals the server when the thread that spawned it ends, so that thread must stay for as long as it.
        let mut command = as_server(&bin.join("postgres"), folder.path());
        command
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .args(["-c", "max_connections=200", "-c", "deadlock_timeout=50ms"]);
        let (stop, stopped) = mpsc::channel::<()>();
        let keeper = thread::spawn(move || {
            let mut server = command.spawn().unwrap();
            let _ = stopped.recv();
            interrupt(&mut server);
        });
        wait_until_ready(&bin, folder.path());
        Self {
            folder,
            databases: AtomicU32::new(0),
            stop: Some(stop),
            keeper: Some(keeper),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// The folder of the newest installed version.
fn installed() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap_or_else(|_| panic!("{INSTALL}"));
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("postgres").exists() && bin.join("initdb").exists())
        .max()
        .unwrap_or_else(|| panic!("{INSTALL}"))
}

/// PostgreSQL refuses to run as root, so root runs it as its own user. It dies with the thread that starts it.
fn as_server(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command
        .arg(program)
        .current_dir(folder)
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    command
}

fn wait_until_ready(bin: &Path, socket: &Path) {
    for _ in 0..300 {
        let status = Command::new(bin.join("pg_isready"))
            .arg("-q")
            .arg("-h")
            .arg(socket)
            .status();
        if status.is_ok_and(|status| status.success()) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("PostgreSQL did not start within 15 s");
}

/// A fast shutdown: open connections are ended.
fn interrupt(server: &mut Child) {
    let _ = Command::new("kill")
        .args(["-INT", &server.id().to_string()])
        .status();
    let _ = server.wait();
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
