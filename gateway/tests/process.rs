//! Real processes: the penstock program and a Redis, started, killed and started again on the same ports and folders.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

/// Long enough for a start on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A port that was free a moment ago. A restarted process needs the one it had, so port 0 is no help here.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A child that is killed when the test ends, however it ends.
pub struct Process {
    command: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    ready: SocketAddr,
    child: Option<Child>,
}

impl Process {
    /// Starts a program that is ready once it accepts connections at `ready`.
    pub async fn start(
        command: impl Into<PathBuf>,
        arguments: Vec<String>,
        log: PathBuf,
        ready: SocketAddr,
    ) -> Self {
        let mut process = Self {
            command: command.into(),
            arguments,
            log,
            ready,
            child: None,
        };
        process.start_again().await;
        process
    }

    /// Starts it once more, with the same arguments.
    pub async fn start_again(&mut self) {
        if let Err(why) = self.try_start_again().await {
            panic!("{why}");
        }
    }

    /// The same; says what happened if it ends, or does not become ready.
    pub async fn try_start_again(&mut self) -> Result<(), String> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        // The kernel ends our own program when this one ends, however it ends. (A server by its name is started as it is: then
        // the error of a missing one is its own.)
        let mut command = Command::new(&self.command);
        if self.command.is_absolute() {
            command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(&self.command);
        }
        let child = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; install it: apt-get install redis-server",
                self.command.display()
            )
        });
        self.child = Some(child);
        let waited = timeout(START, async {
            while tokio::net::TcpStream::connect(self.ready).await.is_err() {
                if let Some(status) = self
                    .child
                    .as_mut()
                    .and_then(|child| child.try_wait().unwrap())
                {
                    self.child = None;
                    return Err(format!(
                        "{} ended with {status}:\n{}",
                        self.command.display(),
                        self.log_text()
                    ));
                }
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
        match waited.await {
            Ok(ended) => ended,
            Err(_) => Err(format!(
                "{} was not ready:\n{}",
                self.command.display(),
                self.log_text()
            )),
        }
    }

    /// The next start has these arguments.
    #[allow(dead_code, reason = "only the chaos runs replace a server by another")]
    pub fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    /// `kill -9`: no drain, no flush, no goodbye.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Whether it has not ended by itself.
    #[allow(
        dead_code,
        reason = "the chaos runs have servers that end over a full disk"
    )]
    pub fn is_running(&mut self) -> bool {
        let mut child = self.child.as_mut();
        child
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// What it has printed.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that faults and clients share.
pub type Shared = Arc<Mutex<Process>>;

/// A child that dies with the thread that starts it, and so with this program, whatever becomes of it: the kernel sees to that.
#[allow(
    dead_code,
    reason = "the chaos runs and the tests of starts have servers of their own"
)]
pub async fn child(words: Vec<String>, log: PathBuf, ready: SocketAddr) -> Process {
    Process::start("setpriv", child_words(words), log, ready).await
}

/// The arguments of such a child.
#[allow(dead_code, reason = "see child")]
pub fn child_words(words: Vec<String>) -> Vec<String> {
    let dying = ["--pdeathsig", "KILL"].map(str::to_owned);
    dying.into_iter().chain(words).collect()
}

/// The penstock program, serving with a configuration of its own.
pub struct Penstock {
    pub process: Process,
    pub http: SocketAddr,
    pub admin: SocketAddr,
}

impl Penstock {
    /// Starts it over these stores, in this folder, to do everything. The routes are those of `config/penstock.toml`.
    #[allow(dead_code, reason = "the chaos runs give their nodes roles")]
    pub async fn start(folder: &Path, seckill: &str) -> Self {
        Self::start_as(folder, seckill, "all", Vec::new()).await
    }

    /// The same, in one role, and with variables in its environment (`NAME=value`).
    pub async fn start_as(
        folder: &Path,
        seckill: &str,
        role: &str,
        mut words: Vec<String>,
    ) -> Self {
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let text = format!(
            "[server]\nworkers = 2\ntrusted_headers_from = [\"127.0.0.0/8\"]\n\
             [log]\naccess = \"off\"\n\
             [[listener]]\naddress = \"{http}\"\n\
             [[upstream]]\nname = \"shop\"\nendpoints = [{{ address = \"127.0.0.1:9\" }}]\n\
             [[route]]\nname = \"shop\"\npath = \"/\"\nupstream = \"shop\"\n\
             [[route]]\nname = \"sales\"\npath = \"/v1/sales\"\nhandler = \"sales\"\n\
             [[route]]\nname = \"orders\"\npath = \"/v1/orders\"\nhandler = \"sales\"\n\
             [[route]]\nname = \"payments\"\npath = \"/v1/payment_intents\"\nhandler = \"payments\"\n\
             [admin]\naddress = \"{admin}\"\n\
             [seckill]\n{seckill}\nbuyer = \"header:x-buyer-id\"\nreclaim_after = \"1s\"\n\
             [payment]\napi_key = {{ file = \"{}\" }}\n",
            folder.join("api.key").display(),
        );
        std::fs::write(folder.join("api.key"), API_KEY).unwrap();
        let config = folder.join("penstock.toml");
        std::fs::write(&config, text).unwrap();
        words.push(env!("CARGO_BIN_EXE_penstock").into());
        words.extend(["serve", "--config"].map(str::to_owned));
        words.push(config.display().to_string());
        words.extend(["--role", role].map(str::to_owned));
        let log = folder.join("penstock.log");
        // A worker has no listener but its admin's.
        let ready = if role == "worker" { admin } else { http };
        let process = Process::start("/usr/bin/env", words, log, ready).await;
        Self {
            process,
            http,
            admin,
        }
    }
}

/// The secret key of the payment API in these tests.
pub const API_KEY: &str = "sk_test_0123456789abcdef0123456789abcdef";

/// Waits until `fact` holds; panics with `what` after half a minute.
#[allow(
    dead_code,
    reason = "the chaos runs have their own, which does not panic"
)]
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut fact: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fact().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
