//! The processes of a run: gateways with a proxy in every link, a Redis of the run's own, and one PostgreSQL for all runs of a
//! test, with a database for each.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{
    plan::Topology,
    process::{Penstock, Process, free_port},
    proxy::Proxy,
};

/// A process that faults and clients share.
pub type Shared = Arc<Mutex<Process>>;

/// A gateway and its links.
pub struct Node {
    pub process: Shared,
    pub admin: SocketAddr,
    /// Where clients reach it.
    pub front: Proxy,
    pub to_redis: Option<Proxy>,
    pub to_postgres: Option<Proxy>,
    /// It serves the sale API.
    pub sells: bool,
}

/// Everything that runs.
pub struct Bench {
    pub nodes: Vec<Node>,
    pub redis: Option<Shared>,
    pub postgres: Option<Shared>,
    /// Redis, PostgreSQL, and the database of this run.
    servers: Option<(SocketAddr, SocketAddr, String)>,
    server: Option<Arc<Postgres>>,
    folder: TempDir,
}

impl Bench {
    pub async fn start(topology: Topology, seed: u64, server: &Arc<Postgres>) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench {
            nodes: Vec::new(),
            redis: None,
            postgres: None,
            servers: None,
            server: None,
            folder,
        };
        if topology.has_servers() {
            let (redis, redis_at) = redis(bench.folder.path()).await;
            bench.redis = Some(Arc::new(Mutex::new(redis)));
            let postgres = Arc::clone(server);
            let database = format!("run_{seed}_{}", std::process::id());
            postgres.ask("createdb", &[&database]).await;
            bench.postgres = Some(postgres.process.clone());
            bench.server = Some(Arc::clone(&postgres));
            bench.servers = Some((redis_at, postgres.address, database));
        }
        for (at, role) in topology.roles().iter().enumerate() {
            let node = bench.node(at, role).await;
            bench.nodes.push(node);
        }
        bench
    }

    async fn node(&self, at: usize, role: &str) -> Node {
        let folder = self.folder.path().join(format!("node-{at}"));
        fs::create_dir_all(&folder).unwrap();
        let (mut to_redis, mut to_postgres) = (None, None);
        let stores = match &self.servers {
            None => format!(
                "store = \"embedded:{0}/journal\"\nledger = \"sqlite:{0}/ledger.db\"",
                folder.display()
            ),
            Some((redis, postgres, database)) => {
                let redis = to_redis.insert(Proxy::start(*redis).await).address;
                let postgres = to_postgres.insert(Proxy::start(*postgres).await).address;
                format!(
                    "store = \"redis://{redis}\"\nledger = \"postgres://postgres@{postgres}/{database}\""
                )
            }
        };
        let stores = format!("{stores}\ndurability = \"durable\"");
        let penstock = Penstock::start_as(&folder, &stores, role).await;
        Node {
            front: Proxy::start(penstock.http).await,
            process: Arc::new(Mutex::new(penstock.process)),
            admin: penstock.admin,
            to_redis,
            to_postgres,
            sells: role != "worker",
        }
    }

    /// Where buyers go.
    pub fn fronts(&self) -> Vec<SocketAddr> {
        let sellers = self.nodes.iter().filter(|node| node.sells);
        sellers.map(|node| node.front.address).collect()
    }

    /// Changes Redis behind the gateways' back.
    pub fn redis_cli(&self, words: &[&str]) {
        let (redis, ..) = self.servers.as_ref().unwrap();
        let port = redis.port().to_string();
        let said = Command::new("redis-cli")
            .args(["-p", &port])
            .args(words)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(!said.starts_with("ERR"), "{words:?}: {said}");
    }

    /// Changes the ledger behind the gateways' back.
    pub async fn sql(&self, statement: &str) {
        let (.., database) = self.servers.as_ref().unwrap();
        let server = self.server.as_ref().unwrap();
        server.ask("psql", &["-d", database, "-c", statement]).await;
    }

    /// Waits until a PostgreSQL that was started again has recovered and answers.
    pub async fn has_recovered(&self) {
        self.server.as_ref().unwrap().ask("pg_isready", &[]).await;
    }

    /// Ends the gateways and removes the run's database: what a server has to look through after a crash must not grow from run
    /// to run.
    pub async fn end(self) {
        for node in &self.nodes {
            node.process.lock().await.kill();
        }
        if let Some((.., database)) = &self.servers {
            self.server
                .as_ref()
                .unwrap()
                .ask("dropdb", &["--force", "--if-exists", database])
                .await;
        }
    }

    /// Keeps the logs for whoever looks into a run that did not hold.
    pub fn keep_logs(&self, to: &Path) {
        for (at, _) in self.nodes.iter().enumerate() {
            let log = self.folder.path().join(format!("node-{at}/penstock.log"));
            let _ = fs::copy(log, to.with_extension(format!("node-{at}.log")));
        }
        let _ = fs::copy(
            self.folder.path().join("redis.log"),
            to.with_extension("redis.log"),
        );
    }
}

/// A child that dies with the thread that starts it, and so with this program, whatever becomes of it: the kernel sees to that.
async fn child(words: &[&str], log: PathBuf, ready: SocketAddr) -> Process {
    let arguments = ["--pdeathsig", "KILL"].iter().chain(words);
    let arguments = arguments.map(|&word| word.to_owned()).collect();
    Process::start("setpriv", arguments, log, ready).await
}

async fn redis(folder: &Path) -> (Process, SocketAddr) {
    let found = Command::new("redis-server").arg("--version").output();
    assert!(
        found.is_ok_and(|found| found.status.success()),
        "redis-server is needed; install it: apt-get install redis-server"
    );
    let port = free_port();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let (port, dir) = (port.to_string(), folder.display().to_string());
    let words = [
        "redis-server",
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--dir",
        &dir,
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--maxmemory-policy",
        "noeviction",
    ];
    (child(&words, folder.join("redis.log"), at).await, at)
}

/// How often a PostgreSQL is asked that may still be starting: for half a minute.
const ASKS: u32 = 600;

/// The PostgreSQL of all runs of one test.
pub struct Postgres {
    process: Shared,
    address: SocketAddr,
    bin: PathBuf,
    _folder: TempDir,
}

impl Postgres {
    /// Does something to a database. A server that listens may still be starting, at first or after a fault.
    async fn ask(&self, program: &str, arguments: &[&str]) {
        let port = self.address.port().to_string();
        let mut tries = 0;
        loop {
            let done = Command::new(self.bin.join(program))
                .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
                .args(arguments)
                .output()
                .unwrap();
            if done.status.success() {
                return;
            }
            tries += 1;
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(tries < ASKS, "{program} {arguments:?}: {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
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
    let log = std::env::temp_dir().join(format!("penstock-chaos-{}.log", std::process::id()));
    let process = child(&words, log.clone(), address).await;
    let _ = fs::remove_file(log);
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
