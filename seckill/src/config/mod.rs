//! The `[seckill]` table of the configuration: one file for each part of it, with its type, its defaults and its reader.

mod buyer;
mod keys;
pub(crate) mod public_key;
mod store;

use std::{sync::Arc, time::Duration};

use delivery::DownstreamConfig;
use settings::{Inputs, Section};
use stock::{Durability, embedded};

pub use self::store::StoreConfig;
use crate::{
    api::{WaitingConfig, identity::Identity},
    entitlement::TokenKeys,
    ledger::LedgerDurability,
    rebuild::RebuildElsewhere,
};

const LEDGER: &str = "sqlite:data/penstock.db";
/// Long enough for a disk or a Redis that stalls for a moment, short enough that a buyer's browser is still there.
const PURCHASE_DEADLINE: Duration = Duration::from_secs(2);
/// A consumer that has not acknowledged for this long is taken for dead; far above one settlement batch.
const RECLAIM_AFTER: Duration = Duration::from_secs(30);
/// Ten years: longer is no bound at all.
const RETAIN_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Shorter secrets of a MAC can be guessed offline.
const SECRET_MIN: usize = 16;

/// The table in use.
#[derive(Clone)]
pub struct Config {
    /// Where stock is kept.
    pub store: StoreConfig,
    /// URL of the ledger database.
    pub ledger: String,
    /// When a commit of it counts.
    pub ledger_durability: LedgerDurability,
    /// Who says who buys.
    pub buyer: Identity,
    /// How safe an answered order is.
    pub durability: Durability,
    /// How the embedded journal is written.
    pub journal: embedded::WriteMode,
    /// When the embedded store writes a snapshot, in bytes of journal.
    pub snapshot_every: u64,
    /// How long ended and settled sales keep their orders in the embedded store.
    pub retain_ended: Duration,
    /// Longest wait for a verdict.
    pub purchase_deadline: Duration,
    /// When unacknowledged entries are taken over.
    pub reclaim_after: Duration,
    /// What to do if the store was at another address and has nothing here.
    pub rebuild_elsewhere: RebuildElsewhere,
    /// Redis servers for the recovery lease; empty: the ledger's database keeps it.
    pub recovery_locks: Vec<String>,
    /// Where events go, if anywhere.
    pub downstream: Option<DownstreamConfig>,
    /// How buyers wait for news.
    pub waiting: WaitingConfig,
    /// The keys of entitlement tokens.
    pub token_keys: Arc<TokenKeys>,
    /// The key of one-time codes, if sales of slots are wanted.
    pub checkin_key: Option<Vec<u8>>,
}

impl std::fmt::Debug for Config {
    /// Without what may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the table. The result counts only if no problem was noted: what is wrong is filled with its default.
    pub fn read(section: Section<'_>, inputs: &Inputs<'_>) -> Option<Self> {
        let ms = Duration::from_millis;
        let tuning = embedded::Tuning::default();
        let store = store::store(&section, inputs);
        let ledger = ledger(&section);
        let journals = [
            ("auto", embedded::WriteMode::Auto),
            ("plain", embedded::WriteMode::Plain),
        ];
        let rebuild_elsewhere = match section.flag("rebuild_elsewhere") {
            Some(true) => RebuildElsewhere::Allowed,
            Some(false) | None => RebuildElsewhere::Refused,
        };
        let buyer = buyer::buyer(&section, inputs);
        let ledger_durability = ledger_durability(&section, &ledger);
        let durability = durability(&section, &store);
        let journal = section.choice("journal", &journals);
        let snapshot_every = section.size("snapshot_every", 64 << 10..=1 << 40);
        let retain_ended = section.duration("retain_ended", Duration::ZERO..=RETAIN_MAX);
        let purchase_deadline = section.duration("purchase_deadline", ms(10)..=ms(60_000));
        let reclaim_after = section.duration("reclaim_after", ms(1_000)..=ms(3_600_000));
        let recovery_locks = store::recovery_locks(&section);
        let downstream = DownstreamConfig::read(&section, inputs);
        let waiting = section.section("waiting").map(waiting);
        let token_keys = Arc::new(keys::token_keys(&section, inputs));
        let checkin_key = section.secret("checkin_key", SECRET_MIN, inputs);
        section.finish();
        Some(Self {
            store,
            ledger,
            ledger_durability,
            buyer: buyer?,
            durability,
            journal: journal.unwrap_or(embedded::WriteMode::Plain),
            snapshot_every: snapshot_every.unwrap_or(tuning.snapshot_every),
            retain_ended: retain_ended.unwrap_or(tuning.retain_ended),
            purchase_deadline: purchase_deadline.unwrap_or(PURCHASE_DEADLINE),
            reclaim_after: reclaim_after.unwrap_or(RECLAIM_AFTER),
            rebuild_elsewhere,
            recovery_locks,
            downstream,
            waiting: waiting.unwrap_or_default(),
            token_keys,
            checkin_key,
        })
    }
}

fn ledger(seckill: &Section<'_>) -> String {
    const SCHEMES: [&str; 3] = ["sqlite:", "postgres://", "postgresql://"];
    let form = "sqlite:FILE or postgres://USER@HOST/DATABASE";
    let ledger = seckill.parsed("ledger", form, |text| {
        let is_url = SCHEMES
            .iter()
            .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
        is_url.then(|| text.to_owned())
    });
    ledger.unwrap_or_else(|| LEDGER.to_owned())
}

fn ledger_durability(seckill: &Section<'_>, ledger: &str) -> LedgerDurability {
    let levels = [
        ("local", LedgerDurability::Local),
        ("replicated", LedgerDurability::Replicated),
    ];
    let level = seckill.choice("ledger_durability", &levels);
    if level == Some(LedgerDurability::Replicated) && !ledger.starts_with("postgres") {
        seckill.problem(
            "ledger_durability",
            "needs a PostgreSQL ledger; SQLite allows local",
        );
    }
    level.unwrap_or(LedgerDurability::Local)
}

fn durability(seckill: &Section<'_>, store: &StoreConfig) -> Durability {
    let levels = Durability::ALL.map(|level| (level.as_str(), level));
    let level = seckill.choice("durability", &levels);
    if level == Some(Durability::Replicated) && !store.is_redis() {
        seckill.problem(
            "durability",
            "needs a Redis store; the embedded store allows fast and durable",
        );
    }
    level.unwrap_or(Durability::Durable)
}

fn waiting(section: Section<'_>) -> WaitingConfig {
    let defaults = WaitingConfig::default();
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(300));
    let waiting = WaitingConfig {
        max_wait: section
            .duration("max_wait", least..=most)
            .unwrap_or(defaults.max_wait),
        per_node: section
            .integer("per_node", 1..=1_000_000)
            .unwrap_or(defaults.per_node),
        per_buyer: section
            .integer("per_buyer", 1..=1_000)
            .unwrap_or(defaults.per_buyer),
        ..defaults
    };
    section.finish();
    waiting
}

#[cfg(test)]
mod tests;
