//! What a run does, decided from its seed alone.

use std::{fmt, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Units of one sku that one buyer may hold.
pub const LIMIT: u64 = 3;
/// How long clients buy while things break.
const LOAD: Duration = Duration::from_millis(3_000);

/// How the nodes are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One node, journal and SQLite.
    Embedded,
    /// Two nodes that do everything, Redis and PostgreSQL.
    Redis,
    /// A node that sells and a node that settles, Redis and PostgreSQL.
    RedisSplit,
}

impl Topology {
    /// What each node does.
    pub fn roles(self) -> &'static [&'static str] {
        match self {
            Topology::Embedded => &["all"],
            Topology::Redis => &["all", "all"],
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
    /// The Redis primary.
    Redis,
    /// PostgreSQL.
    Postgres,
}

/// A link with a proxy in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// From the clients to a node.
    Front(usize),
    /// From a node to Redis.
    Redis(usize),
    /// From a node to PostgreSQL.
    Postgres(usize),
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

/// One way to break something. The place for more: a failover, a full disk, a step of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// `kill -9`, and a new start when it is mended.
    Kill(Target),
    /// SIGSTOP, and SIGCONT when it is mended.
    Stop(Target),
    /// A damaged link.
    Link(Link, Damage),
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
    pub stock: u64,
    pub clients: usize,
    pub load: Duration,
    /// Orders expire within the run, if this is short.
    pub pay_within: Duration,
    /// The window opens so long after the first client.
    pub opens_after: Duration,
    pub faults: Vec<Fault>,
}

impl Plan {
    pub fn from_seed(seed: u64) -> Plan {
        let mut random = SmallRng::seed_from_u64(seed);
        let topology = match random.random_range(0..6) {
            0 | 1 => Topology::Embedded,
            2..5 => Topology::Redis,
            _ => Topology::RedisSplit,
        };
        // Far below the demand, so that overselling and underselling both show; and one above it.
        let stocks = [1, 2, LIMIT - 1, LIMIT, LIMIT + 1, 12, 40, 2_000];
        let faults = (0..random.random_range(2..=4)).map(|_| fault(&mut random, topology));
        let mut faults: Vec<Fault> = faults.collect();
        faults.sort_by_key(|fault| fault.after);
        Plan {
            seed,
            topology,
            stock: stocks[random.random_range(0..stocks.len())],
            clients: random.random_range(6..=14),
            load: LOAD,
            pay_within: match random.random_ratio(1, 4) {
                true => Duration::from_secs(1),
                false => Duration::from_secs(600),
            },
            opens_after: match random.random_ratio(1, 4) {
                true => Duration::from_millis(400),
                false => Duration::ZERO,
            },
            faults,
        }
    }

    /// Whether what was taken stays taken until the end of the run.
    pub fn keeps_orders(&self) -> bool {
        self.pay_within > Duration::from_secs(60)
    }
}

fn fault(random: &mut SmallRng, topology: Topology) -> Fault {
    let node = random.random_range(0..topology.roles().len());
    let target = match random.random_range(0..3) {
        0 if topology.has_servers() => Target::Redis,
        1 if topology.has_servers() => Target::Postgres,
        _ => Target::Node(node),
    };
    let link = match random.random_range(0..3) {
        0 if topology.has_servers() => Link::Redis(node),
        1 if topology.has_servers() => Link::Postgres(node),
        _ => Link::Front(node),
    };
    let damage = match random.random_range(0..4) {
        0 => Damage::Cut,
        1 => Damage::Stall,
        2 => Damage::Delay(random.random_range(20..400)),
        _ => Damage::Reset,
    };
    Fault {
        after: Duration::from_millis(random.random_range(200..2_400)),
        lasts: Duration::from_millis(random.random_range(100..1_200)),
        what: match random.random_range(0..6) {
            0 | 1 => Break::Kill(target),
            2 => Break::Stop(target),
            _ => Break::Link(link, damage),
        },
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed={} {:?} stock={} clients={} pay_within={:?}",
            self.seed, self.topology, self.stock, self.clients, self.pay_within
        )?;
        for Fault { after, lasts, what } in &self.faults {
            write!(f, "; {what:?} at {after:?} for {lasts:?}")?;
        }
        Ok(())
    }
}

#[test]
fn a_seed_repeats_its_plan_and_seeds_differ() {
    assert_eq!(Plan::from_seed(7), Plan::from_seed(7));
    let plans: Vec<Plan> = (0..200).map(Plan::from_seed).collect();
    let has = |wanted: fn(&Break) -> bool| {
        let mut faults = plans.iter().flat_map(|plan| &plan.faults);
        faults.any(|fault| wanted(&fault.what))
    };
    assert!(has(|what| *what == Break::Kill(Target::Redis)));
    assert!(has(|what| *what == Break::Kill(Target::Postgres)));
    assert!(has(|what| *what == Break::Stop(Target::Node(1))));
    assert!(has(|what| matches!(
        what,
        Break::Link(Link::Redis(_), Damage::Stall)
    )));
    for topology in [Topology::Embedded, Topology::Redis, Topology::RedisSplit] {
        assert!(plans.iter().any(|plan| plan.topology == topology));
    }
}
