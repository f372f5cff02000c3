//! Draws a plan from a seed. The last digit of the seed decides the kind of its first fault, so that any ten seeds in a row, and
//! those of `make test`, have a failover to a replica in step and to one behind, a full disk, a stepped clock, a moving slot, a
//! slow script, a second delivery and a replica cut off; chance decides everything else.

#[cfg(test)]
mod tests;

use std::time::Duration;

use loadtest::history::Level;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    goods::Goods,
    plan::{Aof, Break, Damage, Fault, Link, Plan, Target, Topology},
};

const HOUR_MS: i64 = 3_600_000;
/// How long clients buy while things break.
const LOAD: Duration = Duration::from_millis(3_000);

impl Plan {
    /// The plan of a seed.
    pub fn from_seed(seed: u64) -> Plan {
        let mut random = SmallRng::seed_from_u64(seed);
        let kind = seed % 10;
        let topology = topology(kind, &mut random);
        let (level, aof) = promise(topology, &mut random);
        let lead = lead(kind, topology, &mut random);
        let mut faults = vec![timed(lead, &mut random)];
        for _ in 0..random.random_range(1..=3) {
            let what = fault(topology, aof, &mut random);
            faults.push(timed(what, &mut random));
        }
        for fault in &mut faults {
            fault.what = survivable(fault.what, topology, level, aof);
        }
        let back = goes_back(seed);
        let (mut topology, mut level, mut aof) = (topology, level, aof);
        let mut goods = Goods::from_seed(seed);
        if let Some(back) = back {
            // Whatever else breaks, what the ledger lost is still in the store.
            (level, aof) = (Level::Durable, Aof::Always);
            topology = match random.random_range(0..4) {
                0 => Topology::RedisSplit,
                1 => Topology::Cluster,
                _ => Topology::Redis,
            };
            faults = vec![timed(back, &mut random)];
            for _ in 0..random.random_range(0..=2) {
                let what = fault(topology, aof, &mut random);
                faults.push(timed(survivable(what, topology, level, aof), &mut random));
            }
            if random.random_ratio(3, 4) {
                // Enough to be sold while the ledger is behind; of a sku that is cut so little that units have to move.
                let stock = match goods.segments {
                    1 => random.random_range(500..3_000),
                    _ => random.random_range(40..400),
                };
                goods.stock_up(stock);
            }
        }
        if seed % 20 == 12 {
            // Beside the full disk that the digit stands for, on the embedded store.
            faults.push(timed(Break::Stranger, &mut random));
        }
        faults.sort_by_key(|fault| fault.after);
        Plan {
            seed,
            topology,
            level,
            aof,
            goods,
            clients: random.random_range(6..=14),
            load: LOAD,
            pay_within: match random.random_ratio(1, 4) && back.is_none() {
                true => Duration::from_secs(1),
                false => Duration::from_secs(600),
            },
            opens_after: match random.random_ratio(1, 4) {
                true => Duration::from_millis(400),
                false => Duration::ZERO,
            },
            calm: false,
            faults,
        }
    }
}

/// How the ledger of a seed loses what it had committed, if it does: one in ten, half of each way, with every kind of goods.
fn goes_back(seed: u64) -> Option<Break> {
    match (seed % 10, (seed / 10 + seed / 100) % 2) {
        (0, 0) => Some(Break::Standby),
        (0, _) => Some(Break::LedgerBack),
        _ => None,
    }
}

fn topology(kind: u64, random: &mut SmallRng) -> Topology {
    let one_of: &[Topology] = match kind {
        1 | 5 | 9 => &[Topology::Replica],
        2 => &[Topology::Embedded],
        3 => &[Topology::Embedded, Topology::Redis, Topology::RedisSplit],
        4 => &[Topology::Cluster],
        6 => &[Topology::Redis, Topology::RedisSplit],
        7 => &[Topology::Redis, Topology::RedisSplit, Topology::Cluster],
        _ => &[
            Topology::Embedded,
            Topology::Redis,
            Topology::Redis,
            Topology::RedisSplit,
        ],
    };
    one_of[random.random_range(0..one_of.len())]
}

/// A level, and what Redis must write for it.
fn promise(topology: Topology, random: &mut SmallRng) -> (Level, Aof) {
    let choices = match topology {
        // The journal takes the place of the append-only file.
        Topology::Embedded => &[(Level::Durable, Aof::Always), (Level::Fast, Aof::Always)][..],
        Topology::Replica => &[
            (Level::Replicated, Aof::Always),
            (Level::Replicated, Aof::EverySec),
            (Level::Replicated, Aof::Off),
            (Level::Fast, Aof::Off),
            (Level::Fast, Aof::EverySec),
        ],
        _ => &[
            (Level::Durable, Aof::Always),
            (Level::Durable, Aof::Always),
            (Level::Fast, Aof::Off),
            (Level::Fast, Aof::EverySec),
        ],
    };
    choices[random.random_range(0..choices.len())]
}

/// The first fault of a kind of seed.
fn lead(kind: u64, topology: Topology, random: &mut SmallRng) -> Break {
    match kind {
        1 => Break::Failover { behind: false },
        5 => Break::Failover { behind: true },
        2 => Break::DiskFull(Target::Node(0)),
        3 => clock(topology, random),
        4 => Break::MoveSlot,
        6 => match random.random_ratio(1, 2) {
            true => Break::DiskFull(Target::Redis),
            false => Break::DiskFull(Target::Postgres),
        },
        7 => Break::Busy(random.random_range(100..1_500)),
        8 => Break::Twice(0),
        9 => match random.random_ratio(1, 2) {
            true => Break::Link(Link::Replica, Damage::Cut),
            false => Break::Link(Link::Replica, Damage::Stall),
        },
        _ => usual(topology, random),
    }
}

/// Any fault that the topology knows.
fn fault(topology: Topology, aof: Aof, random: &mut SmallRng) -> Break {
    let own = match topology {
        Topology::Embedded => Break::DiskFull(Target::Node(0)),
        Topology::Replica => match random.random_range(0..3) {
            0 => Break::Link(Link::Replica, damage(random)),
            at => Break::Failover { behind: at == 1 },
        },
        Topology::Cluster => Break::MoveSlot,
        _ if aof != Aof::Off => Break::DiskFull(Target::Redis),
        _ => Break::DiskFull(Target::Postgres),
    };
    match random.random_range(0..12) {
        0 | 1 => own,
        2 if topology.has_servers() => Break::Busy(random.random_range(100..1_500)),
        3 => clock(topology, random),
        4 => Break::Twice(0),
        _ => usual(topology, random),
    }
}

/// Ends, halts and broken links.
fn usual(topology: Topology, random: &mut SmallRng) -> Break {
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
    match random.random_range(0..6) {
        0 | 1 => Break::Kill(target),
        2 => Break::Stop(target),
        _ => Break::Link(link, damage(random)),
    }
}

fn damage(random: &mut SmallRng) -> Damage {
    match random.random_range(0..4) {
        0 => Damage::Cut,
        1 => Damage::Stall,
        2 => Damage::Delay(random.random_range(20..400)),
        _ => Damage::Reset,
    }
}

/// Of a node, or of the one Redis: where there are two, a failover or a moved slot is a step of its own.
fn clock(topology: Topology, random: &mut SmallRng) -> Break {
    let has_one = matches!(topology, Topology::Redis | Topology::RedisSplit);
    let target = match has_one && random.random_ratio(1, 2) {
        true => Target::Redis,
        false => Target::Node(random.random_range(0..topology.roles().len())),
    };
    let most = match (target, topology.has_servers()) {
        // It must not matter at all.
        (Target::Node(_), true) => HOUR_MS,
        _ => 4_000,
    };
    let step = random.random_range(1_000..most);
    let sign = [-1, 1][random.random_range(0..2)];
    Break::Clock(target, step * sign)
}

/// A fault that the run's promise says nothing about becomes one that it does: a Redis that writes no file has no full disk,
/// and a `replicated` primary that comes back by itself with less than it had takes it from its replica too, which is the loss
/// of both. (Replication without a file needs somebody who promotes the replica instead.)
fn survivable(what: Break, topology: Topology, level: Level, aof: Aof) -> Break {
    match what {
        Break::DiskFull(Target::Redis) if aof == Aof::Off => Break::DiskFull(Target::Postgres),
        Break::Kill(Target::Redis)
            if topology == Topology::Replica
                && level == Level::Replicated
                && aof != Aof::Always =>
        {
            Break::Failover { behind: false }
        }
        what => what,
    }
}

fn timed(what: Break, random: &mut SmallRng) -> Fault {
    Fault {
        after: Duration::from_millis(random.random_range(200..2_400)),
        lasts: Duration::from_millis(random.random_range(100..1_200)),
        what,
    }
}
