//! What can happen to Redis and to nobody else: a failover, a script that takes its time, a slot that moves.

use tokio::time::{Duration, sleep};

use super::restart;
use crate::{
    bench::{Bench, METAS, Redis},
    plan::Damage,
    recorder::HistoryRecorder,
};

/// Spins on the CPU for the milliseconds of its argument by the server's own clock, and never for ever, whatever becomes of that.
const SPIN: &str = "
    local function now()
        local time = redis.call('TIME')
        return time[1] * 1000 + time[2] / 1000
    end
    local since = now()
    for round = 1, 2000000 do
        local spent = now() - since
        if spent >= tonumber(ARGV[1]) or spent < 0 then return round end
    end
    return 0";
/// How long a key may take on its way, and how often keys are looked for: clients must meet the slot half moved.
const MIGRATE_MS: &str = "2000";
const ROUNDS: u32 = 1_000;

/// The primary dies and its replica takes its place. The old primary comes back as a replica with nothing of its own: it cannot
/// go on selling.
pub async fn failover(
    behind: bool,
    lasts: Duration,
    bench: &Bench,
    recorder: &HistoryRecorder,
    what: &str,
) {
    let mut first = bench.redis[0].process.lock().await;
    let mut second = bench.redis[1].process.lock().await;
    let old = bench.holder();
    let new = 1 - old;
    let link = bench.to_primary.as_ref().expect("there is a replica");
    let number = recorder.breaks("failover", what);
    if behind {
        link.damage(Damage::Cut);
        sleep(lasts).await;
    }
    let dead = if old == 0 { &mut first } else { &mut second };
    dead.kill();
    let heir = &bench.redis[new];
    let promote = ["replicaof", "no", "one"];
    heir.until(&promote, "it is promoted", |said| said.starts_with("OK"))
        .await;
    heir.leads();
    for node in &bench.nodes {
        node.to_redis.as_ref().expect("one each").aim(heir.at);
    }
    bench.stock_is_at(new);
    sleep(lasts / 2).await;

    link.aim(heir.at);
    link.mend();
    bench.redis[old].forgets_and_follows(link.address);
    restart(dead).await;
    // Or the next failover would be to a server that never had anything: both lost at once, which no level promises to survive.
    bench.redis[old].has_caught_up().await;
    recorder.mends(number, "failover", what);
}

/// Nobody else is answered meanwhile; after a while they are told so.
pub async fn busy(ms: u64, bench: &Bench, recorder: &HistoryRecorder, what: &str) {
    let number = recorder.breaks("busy", what);
    // A server that is dead now runs no script.
    let redis = &bench.redis[bench.holder()];
    let said = redis.cli(&["eval", SPIN, "0", &ms.to_string()]).await;
    assert!(!said.starts_with("ERR"), "{said}");
    recorder.mends(number, "busy", what);
}

/// A slot of the sale goes to the other primary as `redis-cli --cluster reshard` moves it, but slowly.
pub async fn move_slot(lasts: Duration, bench: &Bench, recorder: &HistoryRecorder, what: &str) {
    let _first = bench.redis[0].process.lock().await;
    let _second = bench.redis[1].process.lock().await;
    let from_at = bench.holder();
    let (from, to) = (&bench.redis[from_at], &bench.redis[1 - from_at]);
    let number = recorder.breaks("slot", what);
    let key = from
        .until(&["keys", METAS], "the sale's keys", |said| {
            said.starts_with("penstock:")
        })
        .await;
    let key = key.lines().next().unwrap_or_default();
    let is_number = |said: &str| said.parse::<u16>().is_ok();
    let slot = from
        .until(&["cluster", "keyslot", key], "its slot", is_number)
        .await;
    let (from_id, to_id) = (id(from).await, id(to).await);
    set_slot(to, &[&slot, "importing", &from_id]).await;
    set_slot(from, &[&slot, "migrating", &to_id]).await;
    let port = to.at.port().to_string();
    let in_slot = ["cluster", "getkeysinslot", &slot, "100"];
    let moved = |said: &str| said.starts_with("OK") || said.starts_with("NOKEY");
    for round in 0.. {
        assert!(round < ROUNDS, "the slot is never empty");
        let keys = from.cli(&in_slot).await;
        let Some(key) = keys.lines().find(|line| line.starts_with("penstock:")) else {
            // A server that does not answer has not said that it is empty.
            match keys.is_empty() {
                true => break,
                false => continue,
            }
        };
        let migrate = ["migrate", "127.0.0.1", &port, key, "0", MIGRATE_MS];
        from.until(&migrate, "a key moves", moved).await;
        sleep(lasts / 6).await;
    }
    set_slot(to, &[&slot, "node", &to_id]).await;
    set_slot(from, &[&slot, "node", &to_id]).await;
    bench.stock_is_at(1 - from_at);
    recorder.mends(number, "slot", what);
}

async fn id(redis: &Redis) -> String {
    let is_id = |said: &str| said.len() == 40;
    redis.until(&["cluster", "myid"], "its id", is_id).await
}

async fn set_slot(redis: &Redis, words: &[&str]) {
    let words = [&["cluster", "setslot"], words].concat();
    let is_ok = |said: &str| said.starts_with("OK");
    redis.until(&words, "the slot is set", is_ok).await;
}
