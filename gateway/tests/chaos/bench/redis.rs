//! The Redis servers of a run: one alone, a primary with its replica, or a cluster of two primaries.

use std::{fs, net::SocketAddr, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use tokio::{
    process::Command,
    sync::Mutex,
    time::{Instant, sleep},
};

use super::Clock;
use crate::{
    plan::Aof,
    process::{Shared, child, free_port},
    proxy::Proxy,
};

/// How long something may take that needs other servers, some of which may be broken now.
const PATIENCE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(20);

/// The counters of every segment: of a sku, whose hash tag is the segment, and of carts, whose hash tag is the sale.
pub const METAS: &str = "penstock:{*:meta";

/// One server.
pub struct Redis {
    pub process: Shared,
    /// Where it listens.
    pub at: SocketAddr,
    /// The way to it that a server of a cluster tells others to take.
    pub link: Option<Proxy>,
    folder: PathBuf,
    settings: String,
}

impl Redis {
    /// A server with nobody beside it.
    pub async fn alone(folder: PathBuf, aof: Aof, clock: Option<&Clock>) -> Redis {
        let preload = clock.map(Clock::preload).unwrap_or_default();
        Self::start(folder, free_port(), aof, String::new(), None, preload).await
    }

    /// A primary and its replica, and the link between them.
    pub async fn pair(folder: &std::path::Path, aof: Aof) -> (Vec<Redis>, Proxy) {
        let primary = Self::alone(folder.join("redis-0"), aof, None).await;
        let replica = Self::alone(folder.join("redis-1"), aof, None).await;
        let link = Proxy::start(primary.at).await;
        replica.follow(link.address).await;
        (vec![primary, replica], link)
    }

    /// Two primaries with half of the slots each.
    pub async fn cluster(folder: &std::path::Path, aof: Aof) -> Vec<Redis> {
        let mut servers = Vec::new();
        let mut buses = Vec::new();
        for at in 0..2 {
            let (port, bus) = (free_port(), free_port().to_string());
            let link = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port))).await;
            let settings = format!(
                "cluster-enabled yes\ncluster-node-timeout 5000\ncluster-port {bus}\ncluster-announce-ip 127.0.0.1\n\
                 cluster-announce-port {}\ncluster-announce-bus-port {bus}\n",
                link.address.port()
            );
            let folder = folder.join(format!("redis-{at}"));
            let none = Vec::new();
            servers.push(Self::start(folder, port, aof, settings, Some(link), none).await);
            buses.push(bus);
        }
        for (server, (first, last, epoch)) in servers
            .iter()
            .zip([("0", "8191", "1"), ("8192", "16383", "2")])
        {
            server.cli(&["cluster", "addslotsrange", first, last]).await;
            server.cli(&["cluster", "set-config-epoch", epoch]).await;
        }
        let port = servers[1].at.port().to_string();
        let meet = ["cluster", "meet", "127.0.0.1", &port, &buses[1]];
        servers[0].cli(&meet).await;
        for server in &servers {
            server
                .until(&["cluster", "info"], "one cluster", |info| {
                    info.contains("cluster_state:ok") && info.contains("cluster_size:2")
                })
                .await;
            // The other one is known by the way to it, not by the port that it was met at.
            server
                .until(&["cluster", "nodes"], "links", |nodes| {
                    let links = servers.iter().filter_map(|server| server.link.as_ref());
                    { links }.all(|link| nodes.contains(&format!(":{}@", link.address.port())))
                })
                .await;
        }
        servers
    }

    async fn start(
        folder: PathBuf,
        port: u16,
        aof: Aof,
        more: String,
        link: Option<Proxy>,
        preload: Vec<String>,
    ) -> Redis {
        let found = Command::new("redis-server").arg("--version").output().await;
        assert!(
            found.is_ok_and(|found| found.status.success()),
            "redis-server is needed; install it: apt-get install redis-server"
        );
        fs::create_dir_all(&folder).unwrap();
        let (appendonly, appendfsync) = match aof {
            Aof::Off => ("no", "everysec"),
            Aof::EverySec => ("yes", "everysec"),
            Aof::Always => ("yes", "always"),
        };
        // A script is called slow, and calls are refused with BUSY, within the faults that last longest.
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsave \"\"\nappendonly {appendonly}\nappendfsync {appendfsync}\n\
             maxmemory-policy noeviction\nrepl-diskless-sync-delay 0\nbusy-reply-threshold 600\n{more}",
            folder.display()
        );
        let configuration = folder.join("redis.conf");
        fs::write(&configuration, &settings).unwrap();
        let configuration = configuration.display().to_string();
        // A full disk must be an error to it as it is in the world, not the signal that comes with a limit of the kernel.
        let mut words = vec!["env", "--ignore-signal=XFSZ"];
        words.extend(preload.iter().map(String::as_str));
        words.extend(["redis-server", configuration.as_str()]);
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let process = child(
            words.iter().map(|word| word.to_string()).collect(),
            folder.join("redis.log"),
            at,
        )
        .await;
        Redis {
            process: Arc::new(Mutex::new(process)),
            at,
            link,
            folder,
            settings,
        }
    }

    /// What it answers, or why it does not.
    pub async fn cli(&self, words: &[&str]) -> String {
        let said = Command::new("redis-cli")
            .args(["-p", &self.at.port().to_string()])
            .args(words)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let said = [said.stdout, said.stderr].concat();
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    /// Asks until the answer is right: a server may be loading, busy, or alone for a moment.
    pub async fn until(
        &self,
        words: &[&str],
        what: &str,
        is_right: impl Fn(&str) -> bool,
    ) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.cli(words).await;
            if is_right(&said) {
                return said;
            }
            assert!(Instant::now() < deadline, "{what}: {words:?}: {said}");
            sleep(AGAIN).await;
        }
    }

    /// Follows another, and has what that one has.
    pub async fn follow(&self, primary: SocketAddr) {
        let port = primary.port().to_string();
        let words = ["replicaof", "127.0.0.1", &port];
        self.until(&words, "it follows", |said| said.starts_with("OK"))
            .await;
        self.has_caught_up().await;
    }

    /// Waits until the replica is in step.
    pub async fn has_caught_up(&self) {
        self.until(&["info", "replication"], "it is in step", |info| {
            info.contains("master_link_status:up")
        })
        .await;
    }

    /// Once it is dead: throws away what it had, and lets it follow that address when it starts again.
    pub fn forgets_and_follows(&self, primary: SocketAddr) {
        let _ = fs::remove_dir_all(self.folder.join("appendonlydir"));
        let _ = fs::remove_file(self.folder.join("dump.rdb"));
        let settings = format!("{}replicaof 127.0.0.1 {}\n", self.settings, primary.port());
        fs::write(self.folder.join("redis.conf"), settings).unwrap();
    }

    /// Once it was promoted: a new start must not make it a replica again.
    pub fn leads(&self) {
        fs::write(self.folder.join("redis.conf"), &self.settings).unwrap();
    }

    /// The keys of the sale that it has.
    pub async fn stock_keys(&self) -> Vec<String> {
        let said = self.cli(&["keys", METAS]).await;
        let keys = said.lines().filter(|line| line.starts_with("penstock:"));
        let mut keys: Vec<String> = keys.map(str::to_owned).collect();
        keys.sort();
        keys
    }
}
