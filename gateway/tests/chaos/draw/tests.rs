//! What a bench of seeds must meet.

use super::*;

type Kind = (&'static str, fn(&Break) -> bool);

/// Every kind of fault.
const KINDS: [Kind; 21] = [
    ("kill node", |what| {
        matches!(what, Break::Kill(Target::Node(1)))
    }),
    ("kill redis", |what| *what == Break::Kill(Target::Redis)),
    ("kill postgres", |what| {
        *what == Break::Kill(Target::Postgres)
    }),
    ("stop", |what| *what == Break::Stop(Target::Node(1))),
    ("link to redis", |what| {
        matches!(what, Break::Link(Link::Redis(_), Damage::Stall))
    }),
    ("link to postgres", |what| {
        matches!(what, Break::Link(Link::Postgres(_), Damage::Cut))
    }),
    ("link to clients", |what| {
        matches!(what, Break::Link(Link::Front(_), Damage::Delay(_)))
    }),
    ("link to the replica", |what| {
        matches!(
            what,
            Break::Link(Link::Replica, Damage::Cut | Damage::Stall)
        )
    }),
    ("failover", |what| {
        *what == Break::Failover { behind: false }
    }),
    ("failover to a replica behind", |what| {
        *what == Break::Failover { behind: true }
    }),
    ("full disk of a node", |what| {
        matches!(what, Break::DiskFull(Target::Node(_)))
    }),
    ("full disk of redis or postgres", |what| {
        matches!(what, Break::DiskFull(Target::Redis | Target::Postgres))
    }),
    ("clock ahead", |what| matches!(what, Break::Clock(_, 1..))),
    ("clock back", |what| matches!(what, Break::Clock(_, ..0))),
    ("slow script", |what| matches!(what, Break::Busy(_))),
    ("moving slot", |what| *what == Break::MoveSlot),
    ("second delivery", |what| matches!(what, Break::Twice(_))),
    ("a node of another installation", |what| {
        *what == Break::Stranger
    }),
    ("a ledger that goes back", |what| *what == Break::LedgerBack),
    ("a standby that was promoted", |what| {
        *what == Break::Standby
    }),
    ("a node's clock half an hour off", |what| match what {
        Break::Clock(Target::Node(_), step) => step.abs() > 1_800_000,
        _ => false,
    }),
];

fn plans(seeds: std::ops::RangeInclusive<u64>) -> Vec<Plan> {
    seeds.map(Plan::from_seed).collect()
}

fn occurs(plans: &[Plan], is_kind: fn(&Break) -> bool) -> bool {
    let mut faults = plans.iter().flat_map(|plan| &plan.faults);
    faults.any(|fault| is_kind(&fault.what))
}

#[test]
fn a_seed_repeats_its_plan_and_seeds_differ() {
    assert_eq!(Plan::from_seed(7), Plan::from_seed(7));
    let plans = plans(1..=200);
    for (name, is_kind) in KINDS {
        assert!(occurs(&plans, is_kind), "{name}");
    }
    for target in [Target::Redis, Target::Postgres] {
        let disk = |plan: &Plan| {
            let mut faults = plan.faults.iter();
            faults.any(|fault| fault.what == Break::DiskFull(target))
        };
        assert!(plans.iter().any(disk), "full disk of {target:?}");
        assert!(
            target == Target::Postgres || plans.iter().any(|plan| plan.steps_clock_of(target)),
            "clock of {target:?}"
        );
    }
    use Topology::{Cluster, Embedded, Redis, RedisSplit, Replica};
    for topology in [Embedded, Redis, RedisSplit, Replica, Cluster] {
        assert!(
            plans.iter().any(|plan| plan.topology == topology),
            "{topology:?}"
        );
    }
    for level in [Level::Fast, Level::Replicated, Level::Durable] {
        assert!(plans.iter().any(|plan| plan.level == level), "{level:?}");
    }
    for aof in [Aof::Off, Aof::EverySec, Aof::Always] {
        assert!(plans.iter().any(|plan| plan.aof == aof), "{aof:?}");
    }
}

#[test]
fn any_ten_seeds_in_a_row_meet_every_kind_that_a_digit_stands_for() {
    for first in [1, 38, 190] {
        let plans = plans(first..=first + 9);
        let kinds = [
            KINDS[7], KINDS[8], KINDS[9], KINDS[10], KINDS[11], KINDS[14], KINDS[15], KINDS[16],
        ];
        for (name, is_kind) in kinds {
            assert!(occurs(&plans, is_kind), "{name} from {first}");
        }
        let steps = |what: &Break| matches!(what, Break::Clock(..));
        assert!(occurs(&plans, steps), "a clock from {first}");
    }
}

#[test]
fn only_a_level_that_may_lose_orders_is_judged_so() {
    let of = |level, topology, aof, what| {
        let fault = timed(what, &mut SmallRng::seed_from_u64(1));
        let plan = Plan {
            level,
            topology,
            aof,
            faults: vec![fault],
            ..Plan::from_seed(1)
        };
        plan.owes()
    };
    let kill = Break::Kill(Target::Redis);
    let behind = Break::Failover { behind: true };
    use Level::{Durable, Fast, Replicated};
    assert_eq!(of(Fast, Topology::Redis, Aof::Off, kill), Fast);
    assert_eq!(of(Fast, Topology::Redis, Aof::EverySec, kill), Fast);
    assert_eq!(of(Fast, Topology::Replica, Aof::EverySec, behind), Fast);
    assert_eq!(of(Durable, Topology::Redis, Aof::Always, kill), Durable);
    assert_eq!(of(Replicated, Topology::Replica, Aof::Off, behind), Durable);
    let stop = Break::Stop(Target::Redis);
    assert_eq!(of(Fast, Topology::Redis, Aof::Off, stop), Durable);
    let node = Break::Kill(Target::Node(0));
    assert_eq!(of(Fast, Topology::Embedded, Aof::Always, node), Durable);
}
