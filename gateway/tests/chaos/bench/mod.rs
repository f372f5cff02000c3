//! The processes of a run: gateways with a proxy in every link, the Redis servers of the run's own, and one PostgreSQL for all
//! runs of a test.

mod clock;

mod postgres;

mod redis;

mod standby;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use loadtest::history::Level;
use tempfile::TempDir;
use tokio::sync::Mutex;

pub use self::{
    clock::Clock,
    postgres::Postgres,
    redis::{METAS, Redis},
    standby::Standby,
};
use crate::{
    plan::{Link, Plan, Target, Topology},
    process::{Penstock, Shared},
    proxy::Proxy,
};

/// A gateway and its links.
pub struct Node {
    pub process: Shared,
    pub admin: SocketAddr,
    /// Where clients reach it.
    pub front: Proxy,
    /// Its own link to Redis; a cluster's servers have theirs.
    pub to_redis: Option<Proxy>,
    pub to_postgres: Option<Proxy>,
    /// It serves the sale API.
    pub sells: bool,
    /// Its clock, if it is stepped.
    pub clock: Option<Clock>,
}

/// Everything that runs.
pub struct Bench {
    pub nodes: Vec<Node>,
    /// One, a primary and its replica, or the primaries of a cluster.
    pub redis: Vec<Redis>,
    /// Which of them has the sale's stock.
    holder: AtomicUsize,
    /// From the replica to its primary.
    pub to_primary: Option<Proxy>,
    pub redis_clock: Option<Clock>,
    /// With the database of this run.
    postgres: Option<(Arc<Postgres>, String)>,
    standby: Option<Standby>,
    folder: TempDir,
}

impl Bench {
    pub async fn start(plan: &Plan, server: &Arc<Postgres>) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let steps = |target, name: &str| {
            let is_stepped = plan.steps_clock_of(target);
            is_stepped.then(|| Clock::create(folder.path(), name))
        };
        let redis_clock = steps(Target::Redis, "redis");
        let clocks: Vec<Option<Clock>> = (0..plan.topology.roles().len())
            .map(|at| steps(Target::Node(at), &format!("node-{at}")))
            .collect();
        let mut bench = Bench {
            nodes: Vec::new(),
            redis: Vec::new(),
            holder: AtomicUsize::new(0),
            to_primary: None,
            redis_clock,
            postgres: None,
            standby: None,
            folder,
        };
        let at = bench.folder.path();
        match plan.topology {
            Topology::Embedded => {}
            Topology::Redis | Topology::RedisSplit => {
                let clock = bench.redis_clock.as_ref();
                bench.redis = vec![Redis::alone(at.join("redis-0"), plan.aof, clock).await];
            }
            Topology::Replica => {
                let (pair, link) = Redis::pair(at, plan.aof).await;
                (bench.redis, bench.to_primary) = (pair, Some(link));
            }
            Topology::Cluster => bench.redis = Redis::cluster(at, plan.aof).await,
        }
        if plan.topology.has_servers() {
            let database = format!("run_{}_{}", plan.seed, std::process::id());
            server.ask("createdb", &[&database]).await;
            bench.postgres = Some((Arc::clone(server), database));
            if plan.has_standby() {
                bench.standby = Some(server.standby().await);
            }
        }
        for (at, (role, clock)) in plan.topology.roles().iter().zip(clocks).enumerate() {
            let node = bench.node(at, role, plan.level, clock).await;
            bench.nodes.push(node);
        }
        bench
    }

    async fn node(&self, at: usize, role: &str, level: Level, clock: Option<Clock>) -> Node {
        let folder = self.folder_of(at);
        fs::create_dir_all(&folder).unwrap();
        let (mut to_redis, mut to_postgres) = (None, None);
        let stores = match &self.postgres {
            None => format!(
                "store = \"embedded:{0}/journal\"\nledger = \"sqlite:{0}/ledger.db\"",
                folder.display()
            ),
            Some((postgres, database)) => {
                let links = self.redis.iter().filter_map(|redis| redis.link.as_ref());
                let links: Vec<_> = links.map(|link| link.address.to_string()).collect();
                let redis = match links.is_empty() {
                    false => format!("redis-cluster://{}", links.join(",")),
                    true => {
                        let link = Proxy::start(self.redis[0].at).await;
                        format!("redis://{}", to_redis.insert(link).address)
                    }
                };
                // Each node has an address of its own for the one Redis: a node that takes over must not take it for another store.
                let elsewhere = to_redis.is_some();
                let postgres = Proxy::start(postgres.address).await;
                let postgres = to_postgres.insert(postgres).address;
                format!(
                    "store = \"{redis}\"\nledger = \"postgres://postgres@{postgres}/{database}\"\nrebuild_elsewhere = {elsewhere}"
                )
            }
        };
        let level = match level {
            Level::Fast => "fast",
            Level::Replicated => "replicated",
            Level::Durable => "durable",
        };
        let tokens = crate::market::tokens::keys_line(&folder);
        let stores = format!("{stores}\ndurability = \"{level}\"\n{tokens}");
        let preload = clock.as_ref().map(Clock::preload).unwrap_or_default();
        let penstock = Penstock::start_as(&folder, &stores, role, preload).await;
        Node {
            front: Proxy::start(penstock.http).await,
            process: Arc::new(Mutex::new(penstock.process)),
            admin: penstock.admin,
            to_redis,
            to_postgres,
            sells: role != "worker",
            clock,
        }
    }

    /// The folder of a node.
    pub fn folder_of(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    /// Where buyers go.
    pub fn fronts(&self) -> Vec<SocketAddr> {
        let sellers = self.nodes.iter().filter(|node| node.sells);
        sellers.map(|node| node.front.address).collect()
    }

    /// Looks which Redis has the stock. At first nobody knows: the slots of a cluster are where they are.
    pub async fn find_stock(&self) {
        for (at, redis) in self.redis.iter().enumerate() {
            if !redis.stock_keys().await.is_empty() {
                return self.stock_is_at(at);
            }
        }
    }

    /// The Redis that has it now.
    pub fn holder(&self) -> usize {
        self.holder.load(Ordering::Relaxed)
    }

    /// It has gone to another.
    pub fn stock_is_at(&self, at: usize) {
        self.holder.store(at, Ordering::Relaxed);
    }

    pub fn process(&self, target: Target) -> Shared {
        match target {
            Target::Node(at) => self.nodes[at].process.clone(),
            Target::Redis => self.redis[self.holder()].process.clone(),
            Target::Postgres => self.postgres.as_ref().unwrap().0.process.clone(),
        }
    }

    pub fn link(&self, link: Link) -> &Proxy {
        let link = match link {
            Link::Front(at) => Some(&self.nodes[at].front),
            Link::Redis(at) => {
                let own = self.nodes[at].to_redis.as_ref();
                own.or_else(|| self.redis[at].link.as_ref())
            }
            Link::Postgres(at) => self.nodes[at].to_postgres.as_ref(),
            Link::Replica => self.to_primary.as_ref(),
        };
        link.expect("the plan knows the topology")
    }

    /// Changes Redis behind the gateways' back.
    pub async fn redis_cli(&self, words: &[&str]) {
        let said = self.redis[self.holder()].cli(words).await;
        assert!(!said.starts_with("ERR"), "{words:?}: {said}");
    }

    /// Changes the ledger behind the gateways' back.
    pub async fn sql(&self, statement: &str) {
        let (server, database) = self.postgres.as_ref().unwrap();
        server.ask("psql", &["-d", database, "-c", statement]).await;
    }

    /// The server of the ledger, the name of its database, and where a copy of it may be.
    pub fn ledger(&self) -> (&Postgres, &str, PathBuf) {
        let (server, database) = self.postgres.as_ref().unwrap();
        (server, database, self.folder.path().join("ledger.copy"))
    }

    /// The standby of PostgreSQL.
    pub fn standby(&self) -> &Standby {
        self.standby.as_ref().expect("the plan has one")
    }

    /// Waits until a PostgreSQL that was started again has recovered and answers.
    pub async fn has_recovered(&self) {
        let (server, _) = self.postgres.as_ref().unwrap();
        server.ask("pg_isready", &[]).await;
    }

    /// Ends the gateways and removes the run's database: what a server has to look through after a crash must not grow from run
    /// to run.
    pub async fn end(self) {
        for node in &self.nodes {
            node.process.lock().await.kill();
        }
        if let Some((server, database)) = &self.postgres {
            let drop = ["--force", "--if-exists", database];
            server.ask("dropdb", &drop).await;
        }
    }

    /// Keeps the logs for a look into a run that did not hold.
    pub fn keep_logs(&self, to: &Path) {
        for (at, _) in self.nodes.iter().enumerate() {
            let log = self.folder.path().join(format!("node-{at}/penstock.log"));
            let _ = fs::copy(log, to.with_extension(format!("node-{at}.log")));
        }
        for (at, _) in self.redis.iter().enumerate() {
            let log = self.folder.path().join(format!("redis-{at}/redis.log"));
            let _ = fs::copy(log, to.with_extension(format!("redis-{at}.log")));
        }
    }
}
