//! Real Redis servers and a real Redis Cluster, started by the tests on free ports in temporary folders.
//!
//! A server never outlives the tests: it runs under a small shell that kills it and removes its folder when the pipe from this
//! process closes, and a pipe closes however a process ends. A missing `redis-server` fails the tests; it never skips them.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use crate::conformance::Subject;
use stock::{
    Purchase, SegmentSpec, StockError, StockStore, StoredOrder, Verdict,
    clock::WallClock,
    ids::{OrderId, SaleId, SegmentId, SkuId},
    redis::{RedisOptions, RedisStore},
};
use tempfile::TempDir;
use tokio::time::Instant;

const INSTALL: &str =
    "redis-server and redis-cli are needed; install them: apt-get install redis-server";

/// How long a server may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the pid of the server, and waits for the pipe to close. The folder goes too: nobody drops the shared servers.
const WATCHDOG: &str = r#"
    "$@" >"$FOLDER/log" 2>&1 & server=$!
    echo $server
    read -r end
    kill -9 $server 2>/dev/null
    wait $server 2>/dev/null
    [ "$end" = keep ] || rm -rf "$FOLDER"
"#;

/// One Redis server. Dropping it kills it and removes its folder.
pub struct Server {
    pub port: u16,
    pid: u32,
    settings: Vec<String>,
    watchdog: Child,
    lifeline: Option<ChildStdin>,
    folder: TempDir,
}

impl Server {
    /// Starts a server with settings beyond the defaults, `name` and `value` in turn. Nothing is written to disk by default.
    pub fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let port = free_port();
        let (watchdog, lifeline, pid) = spawn(port, folder.path(), &settings);
        let mut server = Self {
            port,
            pid,
            settings,
            watchdog,
            lifeline: Some(lifeline),
            folder,
        };
        assert!(server.is_up(), "redis did not start: {}", server.log());
        server
    }

    fn is_up(&mut self) -> bool {
        eventually_is(|| try_cli(self.port, &["ping"]).is_some_and(|answer| answer == "PONG"))
    }

    fn stop_watchdog(&mut self, last_word: &[u8]) {
        if let Some(mut lifeline) = self.lifeline.take() {
            let _ = lifeline.write_all(last_word);
        }
        let _ = self.watchdog.wait();
    }

    /// `kill -9`, in the middle of whatever it does. Its files stay.
    pub fn kill(&mut self) {
        signal(self.pid, "KILL");
        self.stop_watchdog(b"keep\n");
    }

    /// Starts it again after [`Server::kill`], with the same port and files.
    pub fn restart(&mut self) {
        let (watchdog, lifeline, pid) = spawn(self.port, self.folder.path(), &self.settings);
        (self.watchdog, self.lifeline, self.pid) = (watchdog, Some(lifeline), pid);
        assert!(self.is_up(), "redis did not come back: {}", self.log());
    }

    /// The same, with other settings.
    pub fn restart_with(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        self.restart();
    }

    /// Stops it from answering; its connections stay open.
    pub fn pause(&self) {
        signal(self.pid, "STOP");
    }

    /// Lets it answer again.
    pub fn resume(&self) {
        signal(self.pid, "CONT");
    }

    /// Runs `redis-cli` against it.
    pub fn cli(&self, words: &[&str]) -> String {
        try_cli(self.port, words)
            .unwrap_or_else(|| panic!("redis-cli {words:?} failed: {}", self.log()))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.resume();
        self.stop_watchdog(b"");
    }
}

/// Three primaries that share the slots.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

impl Cluster {
    pub fn start() -> Self {
        let nodes: Vec<Server> = (0..3).map(|_| Self::start_node()).collect();
        let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (index, (node, (first, last))) in nodes.iter().zip(slots).enumerate() {
            node.cli(&["cluster", "addslotsrange", first, last]);
            node.cli(&["cluster", "set-config-epoch", &(index + 1).to_string()]);
        }
        for node in &nodes[1..] {
            introduce(&nodes[0], node);
        }
        let agree = |node: &Server| {
            let info = node.cli(&["cluster", "info"]);
            info.contains("cluster_state:ok")
                && info.contains("cluster_known_nodes:3")
                && info.contains("cluster_size:3")
        };
        assert!(
            eventually_is(|| nodes.iter().all(agree)),
            "the cluster did not form"
        );
        Self { nodes }
    }

    fn start_node() -> Server {
        let bus = free_port().to_string();
        Server::start(&[
            "cluster-enabled",
            "yes",
            "cluster-node-timeout",
            "3000",
            "cluster-port",
            &bus,
        ])
    }

    /// Starts a replica of a primary, and waits until it has what the primary has.
    pub fn join_replica_of(&self, primary: usize) -> Server {
        let replica = Self::start_node();
        introduce(&self.nodes[primary], &replica);
        let id = self.nodes[primary].cli(&["cluster", "myid"]);
        let is_replica = || replica.cli(&["cluster", "replicate", &id]) == "OK";
        assert!(
            eventually_is(is_replica),
            "the replica never met its primary"
        );
        let is_linked = || {
            replica
                .cli(&["info", "replication"])
                .contains("master_link_status:up")
        };
        assert!(eventually_is(is_linked), "the replica never caught up");
        // The others must know it too, or a client would not learn of it from them.
        let is_known = |node: &Server| {
            node.cli(&["cluster", "nodes"])
                .lines()
                .filter(|line| line.contains("slave"))
                .count()
                == 1
        };
        assert!(
            eventually_is(|| self.nodes.iter().all(is_known)),
            "the cluster never heard of the replica"
        );
        replica
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis-cluster://{}", hosts.join(","))
    }
}

/// Makes two cluster nodes know each other; the rest of the cluster hears of it from them.
fn introduce(node: &Server, newcomer: &Server) {
    let bus = newcomer.cli(&["config", "get", "cluster-port"]);
    let bus = bus.lines().last().expect("the setting has a value");
    node.cli(&[
        "cluster",
        "meet",
        "127.0.0.1",
        &newcomer.port.to_string(),
        bus,
    ]);
}

/// Waits until a replica has all that its primary has now.
pub fn catch_up(replica: &Server, primary: &Server) {
    let offset = |node: &Server, field: &str| -> u64 {
        let info = node.cli(&["info", "replication"]);
        let value = info
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map_or(0, |value| {
            value.trim().parse().expect("an offset is a number")
        })
    };
    let goal = offset(primary, "master_repl_offset");
    assert!(
        eventually_is(|| offset(replica, "slave_repl_offset") >= goal),
        "the replica never caught up"
    );
}

/// Waits until a replica follows its primary.
pub fn wait_for_link(replica: &Server) {
    let is_linked = || {
        let info = replica.cli(&["info", "replication"]);
        info.contains("master_link_status:up")
    };
    assert!(eventually_is(is_linked), "the replica never caught up");
}

/// The server that tests share which do it no harm.
pub fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&[]))
}

/// The cluster that tests share.
pub fn shared_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

/// Connects, with the defaults.
pub async fn connect(url: &str) -> RedisStore {
    RedisStore::connect(url, RedisOptions::default())
        .await
        .expect("the server is up")
}

/// The same, as a subject of the conformance suite.
pub async fn subject(url: &str) -> Subject {
    Subject::new(Arc::new(connect(url).await), wall_clock())
}

pub fn wall_clock() -> WallClock {
    Arc::new(now_ms)
}

pub fn now_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("it is after 1970");
    since
        .as_millis()
        .try_into()
        .expect("it is before the year 500,000,000")
}

/// A segment of a new sale that is in its window.
pub fn spec(stock: u64, buyer_limit: u32) -> SegmentSpec {
    let sale = SaleId::try_new(&format!("sale-{:016x}", rand::random::<u64>())).unwrap();
    SegmentSpec {
        id: SegmentId::first(sale, SkuId::try_new("shoe").unwrap()),
        stock,
        starts_at_ms: now_ms() - 600_000,
        ends_at_ms: now_ms() + 600_000,
        buyer_limit,
        pay_within_ms: 900_000,
        durability: None,
    }
}

pub fn purchase(segment: &SegmentId, buyer: &str, request: &str) -> Purchase {
    Purchase {
        order: OrderId::new(now_ms(), segment.tag(), rand::random()),
        buyer: buyer.parse().unwrap(),
        request: request.parse().unwrap(),
        fingerprint: 1,
        quantity: 1,
        metadata: None,
    }
}

/// Buys one unit, where nothing speaks against it.
pub async fn take(store: &dyn StockStore, spec: &SegmentSpec, epoch: u64) -> StoredOrder {
    let wish = purchase(&spec.id, "ann", "r1");
    let mut verdicts = store.buy_many(&spec.id, epoch, vec![wish]).await.unwrap();
    match verdicts.remove(0) {
        Verdict::Accepted { order, .. } => order,
        other => panic!("{other:?}"),
    }
}

/// Asks until a call is neither unavailable nor unknown: what a caller with the same ids does after a fault.
pub async fn insist<T>(mut call: impl AsyncFnMut() -> Result<T, StockError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(StockError::Unavailable(_) | StockError::Unknown(_))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("the store did not come back: {error}"),
        }
    }
}

fn spawn(port: u16, folder: &Path, settings: &[String]) -> (Child, ChildStdin, u32) {
    let redis = installed("redis-server");
    let mut watchdog = Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(redis)
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
        ])
        .arg(folder)
        .args(
            settings
                .chunks(2)
                .flat_map(|pair| [format!("--{}", pair[0]), pair[1].clone()]),
        )
        .env("FOLDER", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What ends the tests' group must not end the one that cleans up.
        .process_group(0)
        .spawn()
        .expect("a shell can be started");
    let mut pid = String::new();
    BufReader::new(watchdog.stdout.take().expect("piped above"))
        .read_line(&mut pid)
        .expect("the shell tells the pid");
    let lifeline = watchdog.stdin.take().expect("piped above");
    (
        watchdog,
        lifeline,
        pid.trim().parse().expect("a pid is a number"),
    )
}

/// Debian's servers, or for a run by hand another Redis or Valkey: `REDIS_SERVER=/opt/valkey/bin/valkey-server cargo test …`.
fn installed(program: &str) -> PathBuf {
    let named = std::env::var_os("REDIS_SERVER").filter(|_| program == "redis-server");
    if let Some(server) = named {
        return server.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{program} is missing. {INSTALL}"))
}

/// A port that nobody listens on, each told once. Below the range from which the kernel takes the near end of connections: one
/// of those would be gone again before the server binds it, and once in a while was.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 10_000..30_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Other test binaries may look for ports at the same time.
    let first = std::process::id().wrapping_mul(97);
    for _ in PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + first.wrapping_add(step) % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).expect("the range is below 2^16");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free in {PORTS:?}");
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Runs `redis-cli` against a server that may not answer.
pub fn try_cli(port: u16, words: &[&str]) -> Option<String> {
    let output = Command::new(installed("redis-cli"))
        .args(["-p", &port.to_string()])
        .args(words)
        .output()
        .expect(INSTALL);
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// For what happens outside of any runtime.
pub fn eventually_is(mut fact: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if fact() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}
