//! A PostgreSQL server of the tests' own: private folder, free port, fsync on, gone when the test process is gone.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::Connection;

/// How long a server may take to start on a busy machine.
const START_POLLS: u32 = 600;

/// A running server.
pub struct Server {
    port: u16,
    /// Holds the pipe whose end stops the server; see [`start`].
    _keeper: Child,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The URL of a new, empty database. The first call starts the server.
pub async fn new_database() -> String {
    SERVER.get_or_init(|| start("")).new_database().await
}

impl Server {
    /// A server of one test's own, with these options besides.
    pub fn with(options: &str) -> Self {
        start(options)
    }

    /// A standby that keeps the log and nothing else: commits wait for it where `synchronous_standby_names` has `pg_receivewal`.
    pub async fn standby(&self, folder: &Path) -> Child {
        // It ends at once if its first connection is refused.
        drop(self.connection().await);
        Command::new(binaries().join("pg_receivewal"))
            .args(["--synchronous", "-h", "127.0.0.1", "-U", "postgres"])
            .args(["-p", &self.port.to_string(), "-D"])
            .arg(folder)
            .stderr(Stdio::null())
            .spawn()
            .expect("pg_receivewal")
    }

    /// The URL of a new, empty database.
    pub async fn new_database(&self) -> String {
        let port = self.port;
        let mut connection = self.connection().await;
        let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create)
            .execute(&mut connection)
            .await
            .expect("a new database");
        format!("postgres://postgres@127.0.0.1:{port}/{name}")
    }

    /// A connection, as soon as the server answers.
    async fn connection(&self) -> sqlx::PgConnection {
        let mut polls = 0;
        loop {
            match sqlx::PgConnection::connect(&self.url()).await {
                Ok(connection) => return connection,
                Err(error) if polls == START_POLLS => panic!("PostgreSQL did not start: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            polls += 1;
        }
    }

    /// The URL of the database that every server has.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

fn start(options: &str) -> Server {
    static SERVERS: AtomicU32 = AtomicU32::new(0);
    let bin = binaries();
    let number = SERVERS.fetch_add(1, Ordering::Relaxed);
    let dir =
        std::env::temp_dir().join(format!("penstock-postgres-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a temporary folder");
    // PostgreSQL refuses to run as root; then the folder and the server belong to its own user.
    let is_root =
        fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"));
    let user = if is_root {
        "setpriv --reuid=postgres --regid=postgres --clear-groups"
    } else {
        ""
    };
    if is_root {
        let chown = Command::new("chown")
            .arg("postgres:postgres")
            .arg(&dir)
            .status();
        assert!(
            chown.is_ok_and(|status| status.success()),
            "no user postgres: apt-get install -y postgresql"
        );
    }
    let data = dir.join("data");
    let init = format!(
        "{user} {bin}/initdb -D {data} -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync",
        bin = bin.display(),
        data = data.display()
    );
    let made = Command::new("sh")
        .args(["-c", &init])
        .current_dir(&dir)
        .output()
        .expect("sh");
    assert!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );

    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    // A static is never dropped, so the server is tied to a pipe instead: however this process ends, the pipe's other end
    // closes, and the shell stops the server and removes its folder.
    let keep = format!(
        "{user} {bin}/postgres -D {data} -p {port} -k {dir} -c listen_addresses=127.0.0.1 -c fsync=on \
         -c max_connections=200 -c shared_buffers=64MB {options} >{log} 2>&1 & server=$!; \
         trap '' INT TERM; cat >/dev/null; kill -QUIT $server; wait $server; rm -rf {dir}",
        bin = bin.display(),
        data = data.display(),
        dir = dir.display(),
        log = dir.join("log").display(),
    );
    let keeper = Command::new("sh")
        .args(["-c", &keep])
        .current_dir(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What ends the tests' group must not end the one that cleans up.
        .process_group(0)
        .spawn()
        .expect("sh");
    for _ in 0..START_POLLS {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Server {
        port,
        _keeper: keeper,
    }
}

/// The folder of the newest installed server.
fn binaries() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
    {
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        found.push((version, entry.path().join("bin")));
    }
    for path in std::env::var("PATH").unwrap_or_default().split(':') {
        found.push((0, Path::new(path).to_path_buf()));
    }
    found.retain(|(_, bin)| bin.join("postgres").exists() && bin.join("initdb").exists());
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    match found.into_iter().next() {
        Some((_, bin)) => bin,
        None => panic!("PostgreSQL is not installed: apt-get install -y postgresql"),
    }
}
