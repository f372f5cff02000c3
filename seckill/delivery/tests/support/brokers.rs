//! Real brokers, NATS and RabbitMQ, started by the tests on free ports in temporary folders, and killed in the middle of things.
//!
//! A broker never outlives the tests: it runs under a small shell that kills it and removes its folder when the pipe from this
//! process closes. It leads a process group, so that the helpers it starts end with it. A missing broker fails the tests.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;

/// RabbitMQ takes ten seconds on an idle machine, and here the machine is busy.
const STARTS_WITHIN: Duration = Duration::from_secs(240);

/// Tells the pid of the broker, which is the id of its group, and waits for the pipe to close.
const WATCHDOG: &str = r#"
    setsid "$@" >>"$FOLDER/log" 2>&1 & broker=$!
    echo $broker
    read -r end
    kill -9 "-$broker" 2>/dev/null
    wait $broker 2>/dev/null
    [ "$end" = keep ] || rm -rf "$FOLDER"
"#;

/// One broker. Dropping it kills it and removes its folder.
pub struct Broker {
    pub port: u16,
    /// With TLS, where the broker has it; its certificate is [`Broker::certificate`].
    pub tls_port: u16,
    command: Vec<String>,
    env: Vec<(&'static str, String)>,
    group: u32,
    watchdog: Option<(Child, ChildStdin)>,
    folder: TempDir,
}

impl Broker {
    /// A NATS server with JetStream, which is not running yet. `more` are further words of its command line.
    pub fn nats(more: &[&str]) -> Self {
        let (port, folder) = (free_port(), folder());
        let store = folder.path().join("jetstream").display().to_string();
        let server = installed("nats-server", &["/usr/sbin", "/usr/bin"]);
        let port_text = port.to_string();
        let words = [
            &server,
            "-a",
            "127.0.0.1",
            "-p",
            &port_text,
            "-js",
            "-sd",
            &store,
        ];
        let words = words.iter().chain(more).map(|&word| word.to_owned());
        Self::new(port, 0, folder, words.collect(), Vec::new())
    }

    /// A RabbitMQ node with its own port mapper and no plugins, which is not running yet.
    pub fn rabbitmq() -> Self {
        let (port, tls_port, folder) = (free_port(), free_port(), folder());
        // Not the wrapper in PATH: that one runs as the user of the system's service, in its folders.
        let server = installed("rabbitmq-server", &["/usr/lib/rabbitmq/bin"]);
        let epmd = installed("epmd", &["/usr/bin"]);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.file = false\n\
             vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 1MB\n\
             listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
            at("cert.pem"),
            at("key.pem"),
        );
        let own =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(at("cert.pem"), own.cert.pem()).expect("a file in our folder");
        std::fs::write(at("key.pem"), own.signing_key.serialize_pem())
            .expect("a file in our folder");
        std::fs::write(at("rabbitmq.conf"), config).expect("a file in our folder");
        std::fs::write(at("plugins"), "[].").expect("a file in our folder");
        let env = vec![
            ("HOME", at("")),
            ("RABBITMQ_NODENAME", format!("penstock{port}@localhost")),
            ("RABBITMQ_MNESIA_BASE", at("data")),
            ("RABBITMQ_LOG_BASE", at("logs")),
            ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            ("RABBITMQ_PID_FILE", at("pid")),
            ("RABBITMQ_DIST_PORT", free_port().to_string()),
            ("ERL_EPMD_PORT", free_port().to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            // Two cores for everybody: one scheduler that does not spin.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 1:1 +sbwt none".to_owned(),
            ),
        ];
        // A node that finds no port mapper starts one as a daemon, which stays: ours must be there first.
        let both = format!("{epmd} & until {epmd} -names; do sleep 0.1; done; {server}");
        let words = ["sh", "-c", &both].map(str::to_owned);
        Self::new(port, tls_port, folder, words.into(), env)
    }

    fn new(
        port: u16,
        tls_port: u16,
        folder: TempDir,
        command: Vec<String>,
        env: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            port,
            tls_port,
            command,
            env,
            group: 0,
            watchdog: None,
            folder,
        }
    }

    /// Starts it, again after [`Broker::kill`], and waits until it takes connections.
    pub fn start(&mut self) {
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .args(&self.command)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("FOLDER", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What ends the tests' group must not end the one that cleans up.
            .process_group(0)
            .spawn()
            .expect("a shell can be started");
        let mut group = String::new();
        BufReader::new(watchdog.stdout.take().expect("piped above"))
            .read_line(&mut group)
            .expect("the shell tells the pid");
        self.group = group.trim().parse().expect("a pid is a number");
        let lifeline = watchdog.stdin.take().expect("piped above");
        self.watchdog = Some((watchdog, lifeline));
        let port = self.port;
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let is_late = Instant::now() > deadline;
            assert!(!is_late, "the broker did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The certificate of its TLS port, for the name `localhost`, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// `kill -9`, in the middle of whatever it does. Its files stay.
    pub fn kill(&mut self) {
        self.end(b"keep\n");
    }

    /// Stops it from answering; its connections stay open.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it answer again.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.group);
        let sent = Command::new("kill").args([name, "--", &group]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {name}");
    }

    fn end(&mut self, last_word: &[u8]) {
        if let Some((mut watchdog, mut lifeline)) = self.watchdog.take() {
            let _ = lifeline.write_all(last_word);
            drop(lifeline);
            let _ = watchdog.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end(b"");
    }
}

/// A port outside the range that the system hands out, so that no client's connection takes it while its server is down.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..30_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other test binaries may look for ports at the same time.
    let first = std::process::id().wrapping_mul(97) as u16;
    for _ in PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + first.wrapping_add(step) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free in {PORTS:?}");
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn installed(program: &str, folders: &[&str]) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = folders.iter().map(PathBuf::from);
    let found = known
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|file: &PathBuf| Path::is_file(file));
    let found = found.unwrap_or_else(|| {
        panic!("{program} is missing; install it: scripts/install-test-deps.sh, or apt-get install rabbitmq-server nats-server")
    });
    found.display().to_string()
}
