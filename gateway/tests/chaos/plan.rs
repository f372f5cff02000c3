//! What a run does. [`crate::draw`] decides it from the seed alone.

use std::{fmt, time::Duration};

use loadtest::history::Level;

use crate::goods::Goods;

/// Units of one sku that one buyer may hold.
pub const LIMIT: u64 = 3;

/// How the nodes are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One node, journal and SQLite.
    Embedded,
    /// Two nodes that do everything, Redis and PostgreSQL.
    Redis,
    /// A node that sells and a node that settles, Redis and PostgreSQL.
    RedisSplit,
    /// Two nodes that do everything, a Redis with a replica, and PostgreSQL.
    Replica,
    /// Two nodes that do everything, a Redis Cluster of two primaries, and PostgreSQL.
    Cluster,
}

impl Topology {
    /// What each node does.
    pub fn roles(self) -> &'static [&'static str] {
        match self {
            Topology::Embedded => &["all"],
            Topology::Redis | Topology::Replica | Topology::Cluster => &["all", "all"],
            Topology::RedisSplit => &["edge", "worker"],
        }
    }

    /// Whether stock is in Redis and orders in PostgreSQL.
    pub fn has_servers(self) -> bool {
        self != Topology::Embedded
    }
}

/// A process that can be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A gateway, by its place.
    Node(usize),
    /// The Redis that has the sale's stock: the primary, or the one of the cluster.
    Redis,
    /// PostgreSQL.
    Postgres,
}

/// A link with a proxy in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// From the clients to a node.
    Front(usize),
    /// From a node to Redis; in a cluster, from all nodes to one of its servers.
    Redis(usize),
    /// From a node to PostgreSQL.
    Postgres(usize),
    /// From the replica to its primary.
    Replica,
}

/// What happens to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Connections are closed, new ones refused.
    Cut,
    /// Connections stand, nothing passes: a partition as TCP sees it. What was sent arrives late, when it is mended.
    Stall,
    /// Everything arrives so many milliseconds late.
    Delay(u64),
    /// Every connection is reset once; new ones pass.
    Reset,
}

/// What Redis writes to its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aof {
    /// Nothing.
    Off,
    /// Everything, and a sync once a second.
    EverySec,
    /// Everything, synced before it answers.
    Always,
}

/// One way to break something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// `kill -9`, and a new start when it is mended.
    Kill(Target),
    /// SIGSTOP, and SIGCONT when it is mended.
    Stop(Target),
    /// A damaged link.
    Link(Link, Damage),
    /// `kill -9` of the primary, and its replica in its place; behind: one that was cut off from it for a while. When it is
    /// mended the old primary follows the new one, with nothing of its own.
    Failover { behind: bool },
    /// No file of the process takes another byte.
    DiskFull(Target),
    /// The wall clock of the process goes so many milliseconds ahead, or back; and back again when it is mended.
    Clock(Target, i64),
    /// Redis runs somebody's script for so many milliseconds.
    Busy(u64),
    /// A slot of the sale moves to another primary of the cluster, key by key.
    MoveSlot,
    /// What buyers send to that node arrives there once more, when they have gone.
    Twice(usize),
    /// A node with an embedded store of another installation is started on the same ledger. It must end, and say why.
    Stranger,
    /// The ledger's database is copied, and some time later the copy takes its place: a standby that lagged was promoted, or a backup
    /// restored. What was committed in between is gone.
    LedgerBack,
    /// PostgreSQL has an asynchronous standby, which is cut off for a while; then the primary is killed, and the standby is promoted
    /// and put in its place. What it had not received is gone.
    Standby,
}

impl Break {
    /// Whether the ledger loses what it had committed.
    pub fn takes_ledger_back(self) -> bool {
        matches!(self, Break::LedgerBack | Break::Standby)
    }
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// After the first client.
    pub after: Duration,
    /// Until it is mended.
    pub lasts: Duration,
    /// What.
    pub what: Break,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub topology: Topology,
    /// What the configuration promises of an answer.
    pub level: Level,
    pub aof: Aof,
    pub goods: Goods,
    pub clients: usize,
    pub load: Duration,
    /// Orders expire within the run, if this is short.
    pub pay_within: Duration,
    /// The window opens so long after the first client.
    pub opens_after: Duration,
    /// Buyers only buy and ask, and nobody operates, whatever the faults are.
    pub calm: bool,
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Whether what was taken stays taken until the end of the run.
    pub fn keeps_orders(&self) -> bool {
        self.pay_within > Duration::from_secs(60)
    }

    /// What the oracle holds an answer to. A level loses orders by the faults that docs/durability.md names beside it and by no
    /// other, so a run without such a fault is judged as `durable`: the embedded store loses nothing with its process at any
    /// level, `replicated` nothing with its primary while the one replica is there to be promoted, and `fast` nothing but with
    /// a Redis that had not written it, or a replica that had not seen it. What settlement had taken over by then is not lost
    /// either, but how much that is nobody promises.
    pub fn owes(&self) -> Level {
        let loses = |fault: &Fault| match fault.what {
            Break::Kill(Target::Redis) => self.aof != Aof::Always,
            Break::Failover { .. } => true,
            _ => false,
        };
        let is_lost = self.level == Level::Fast && self.faults.iter().any(loses);
        match is_lost && self.topology.has_servers() {
            true => Level::Fast,
            false => Level::Durable,
        }
    }

    /// Whether buyers only buy and ask, and nobody operates: what only the ledger had (returns, payments, restocks) is lost with it.
    pub fn only_buys(&self) -> bool {
        let mut faults = self.faults.iter();
        self.calm || faults.any(|fault| fault.what.takes_ledger_back())
    }

    /// Whether PostgreSQL has a standby.
    pub fn has_standby(&self) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| fault.what == Break::Standby)
    }

    /// How far a clock that something is decided by is from the others at most. With PostgreSQL a node goes by the database's clock, and
    /// its own, however wrong, decides nothing.
    pub fn step_ms(&self) -> u64 {
        let has_servers = self.topology.has_servers();
        let steps = self.faults.iter().map(|fault| match fault.what {
            Break::Clock(Target::Node(_), _) if has_servers => 0,
            Break::Clock(_, step) => step.unsigned_abs(),
            _ => 0,
        });
        steps.max().unwrap_or(0)
    }

    /// Whether the clock of a process is stepped.
    pub fn steps_clock_of(&self, target: Target) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| matches!(fault.what, Break::Clock(of, _) if of == target))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed={} {:?} {:?} aof={:?} {} clients={} pay_within={:?}",
            self.seed,
            self.topology,
            self.level,
            self.aof,
            self.goods,
            self.clients,
            self.pay_within
        )?;
        for Fault { after, lasts, what } in &self.faults {
            write!(f, "; {what:?} at {after:?} for {lasts:?}")?;
        }
        Ok(())
    }
}
