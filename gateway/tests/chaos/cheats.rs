//! The negative control: runs in which something cheats behind the gateway's back. A bench that lets one of them pass proves
//! nothing by its other verdicts.

use std::{sync::Arc, time::Duration};

use loadtest::{history::Level, oracle::Rule};
use tokio::time::{Instant, sleep};

use crate::{
    bench::{Bench, Postgres},
    goods::{Goods, Kind, SALE},
    plan::{Aof, Break, Fault, Plan, Target, Topology},
    run,
};

/// How often a cheat is repeated while clients buy.
const AGAIN: Duration = Duration::from_millis(25);
/// Runs, each with a seed of its own, of which one must be caught. A bench that is blind catches none.
const ATTEMPTS: u64 = 3;

/// Calls everything that is free reserved. The sum must stay right, or the functions themselves refuse to go on.
const HIDE: &str = "\
    local free = redis.call('HGET', KEYS[1], 'available')
    redis.call('HINCRBY', KEYS[1], 'reserved', free)
    return redis.call('HSET', KEYS[1], 'available', 0)";
/// Calls everything that is reserved free.
const INVENT: &str = "\
    local held = redis.call('HGET', KEYS[1], 'reserved')
    redis.call('HINCRBY', KEYS[1], 'available', held)
    return redis.call('HSET', KEYS[1], 'reserved', 0)";

/// What is done behind the gateway's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cheat {
    /// Redis forgets which requests it knows.
    ForgetsRequests,
    /// Redis forgets what each buyer holds.
    ForgetsBuyers,
    /// Redis says that nothing is left.
    HidesStock,
    /// Redis says that there is more than there is.
    InventsStock,
    /// The same of one of several segments.
    HidesASegment,
    /// The same of one of several segments.
    InventsInASegment,
    /// Redis forgets which requests it knows, and so which tokens were used.
    ForgetsTokens,
    /// An order vanishes from the ledger.
    LosesARow,
    /// A released order stands in the ledger as reserved.
    TurnsBack,
    /// One line of a cart vanishes from the ledger.
    TearsACart,
    /// One line of a cart stands in the ledger as released, and nobody asked for it.
    ReturnsALine,
}

/// One order of each cart.
const LINES: &str = "order_id IN (SELECT MAX(order_id) FROM order_orders WHERE status = 'reserved' \
                     GROUP BY buyer, request_id HAVING COUNT(*) > 1)";

impl Cheat {
    /// Cheats while clients buy, again and again until then.
    pub async fn during_the_load(self, bench: &Bench, until: Instant) {
        let key_in =
            |segment: u64, part: &str| format!("penstock:{{{SALE}:shoe:{segment}}}:{part}");
        let key = |part: &str| key_in(0, part);
        while Instant::now() < until {
            match self {
                // A buyer's first request stands beside his units.
                Cheat::ForgetsRequests | Cheat::ForgetsTokens => {
                    let words = ["DEL", &key("requests"), &key("buyers")];
                    bench.redis_cli(&words).await;
                }
                Cheat::ForgetsBuyers => bench.redis_cli(&["DEL", &key("buyers")]).await,
                Cheat::HidesStock => bench.redis_cli(&["EVAL", HIDE, "1", &key("meta")]).await,
                Cheat::InventsStock => bench.redis_cli(&["EVAL", INVENT, "1", &key("meta")]).await,
                Cheat::HidesASegment => {
                    bench
                        .redis_cli(&["EVAL", HIDE, "1", &key_in(1, "meta")])
                        .await;
                }
                Cheat::InventsInASegment => {
                    bench
                        .redis_cli(&["EVAL", INVENT, "1", &key_in(1, "meta")])
                        .await;
                }
                Cheat::LosesARow | Cheat::TurnsBack | Cheat::TearsACart | Cheat::ReturnsALine => {
                    return;
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Cheats when everything has settled.
    pub async fn at_the_end(self, bench: &Bench) {
        let statement = match self {
            Cheat::LosesARow => {
                "DELETE FROM order_orders WHERE order_id IN (SELECT MIN(order_id) FROM order_orders)"
                    .to_owned()
            }
            Cheat::TurnsBack => {
                "UPDATE order_orders SET status = 'reserved' WHERE status = 'released'".to_owned()
            }
            Cheat::TearsACart => format!("DELETE FROM order_orders WHERE {LINES}"),
            Cheat::ReturnsALine => {
                format!("UPDATE order_orders SET status = 'released' WHERE {LINES}")
            }
            _ => return,
        };
        bench.sql(&statement).await;
    }
}

/// Runs without a fault, but with a cheat, and answers which rules the oracle found broken.
async fn broken_by(cheat: Cheat, goods: Goods, attempt: u64, server: &Arc<Postgres>) -> Vec<Rule> {
    let plan = Plan {
        topology: Topology::Redis,
        level: Level::Durable,
        aof: Aof::Always,
        goods,
        clients: 10,
        load: Duration::from_millis(1_200),
        pay_within: Duration::from_secs(600),
        opens_after: Duration::ZERO,
        faults: Vec::new(),
        // Apart from the seeds of the runs: it names the database and the history.
        ..Plan::from_seed(1_000_000 + 1_000 * attempt + cheat as u64)
    };
    let ended = run::run_with(&plan, server, Some(cheat)).await;
    println!("{cheat:?}, attempt {attempt}: {:?}", ended.broken());
    ended.broken()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cheat_behind_the_gateway_is_caught() {
    let _alone = crate::ALONE.lock().await;
    let server = Postgres::start().await;
    let one_of = |kind, stock, segments| {
        let mut goods = Goods {
            kind,
            segments,
            ..Goods::plain(stock)
        };
        if kind == Kind::Carts {
            goods.skus.extend(Goods::plain(stock).skus);
            goods.skus[1].name = "sock";
        }
        goods
    };
    for (cheat, goods, by) in [
        (
            Cheat::ForgetsRequests,
            Goods::plain(400),
            vec![Rule::TwoOrders, Rule::Resurrected, Rule::Lost],
        ),
        (
            Cheat::ForgetsBuyers,
            Goods::plain(400),
            vec![Rule::BuyerLimit],
        ),
        (
            Cheat::HidesStock,
            Goods::plain(400),
            vec![Rule::FalseSoldOut],
        ),
        (
            Cheat::InventsStock,
            Goods::plain(3),
            vec![Rule::Oversold, Rule::Lost],
        ),
        (Cheat::LosesARow, Goods::plain(40), vec![Rule::Lost]),
        (
            Cheat::TurnsBack,
            Goods::plain(40),
            vec![Rule::StatusBackwards],
        ),
        (
            Cheat::HidesASegment,
            one_of(Kind::Segments, 24, 4),
            vec![Rule::FalseSoldOut],
        ),
        (
            Cheat::InventsInASegment,
            one_of(Kind::Segments, 8, 4),
            vec![Rule::Oversold, Rule::Lost],
        ),
        (
            Cheat::ForgetsTokens,
            one_of(Kind::Tokens, 400, 1),
            vec![Rule::TokenReused],
        ),
        (
            Cheat::TearsACart,
            one_of(Kind::Carts, 40, 1),
            vec![Rule::PartialCart],
        ),
        (
            Cheat::ReturnsALine,
            one_of(Kind::Carts, 40, 1),
            vec![Rule::PartialCart],
        ),
    ] {
        // Some cheats show only to clients who come at the right moment, and a busy machine has few of them in a second.
        let mut found = Vec::new();
        for attempt in 0..ATTEMPTS {
            found = broken_by(cheat, goods.clone(), attempt, &server).await;
            if by.iter().any(|rule| found.contains(rule)) {
                break;
            }
        }
        assert!(
            by.iter().any(|rule| found.contains(rule)),
            "{cheat:?}: {found:?}"
        );
    }
}

/// A level that is claimed and not kept: at `durable` an answer says that the primary's disk has the order, and a replica that
/// is behind knows nothing of it. PostgreSQL stands still meanwhile, or settlement would have saved what the replica had not
/// seen. At `replicated` the same faults lose nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_behind_is_caught_at_durable_and_loses_nothing_at_replicated() {
    let _alone = crate::ALONE.lock().await;
    let server = Postgres::start().await;
    let fault = |after, lasts, what| Fault {
        after: Duration::from_millis(after),
        lasts: Duration::from_millis(lasts),
        what,
    };
    let plan = |level, number: u64| Plan {
        topology: Topology::Replica,
        level,
        aof: Aof::Always,
        goods: Goods::plain(2_000),
        clients: 12,
        load: Duration::from_millis(3_000),
        pay_within: Duration::from_secs(600),
        opens_after: Duration::ZERO,
        // A client that pays, returns or operates waits for PostgreSQL; when all wait, nothing is sold that could be lost.
        calm: true,
        faults: vec![
            fault(400, 2_000, Break::Stop(Target::Postgres)),
            fault(600, 900, Break::Failover { behind: true }),
        ],
        ..Plan::from_seed(1_000_100 + number)
    };
    let mut is_caught = false;
    for number in 0..ATTEMPTS {
        let ended = run::run(&plan(Level::Durable, number), &server).await;
        println!("durable, attempt {number}: {:?}", ended.broken());
        is_caught |= ended.broken().contains(&Rule::Lost);
        if is_caught {
            break;
        }
    }
    assert!(is_caught);
    let ended = run::run(&plan(Level::Replicated, 9), &server).await;
    println!("replicated: {:?}", ended.broken());
    assert_eq!(ended.why(), None);
}
