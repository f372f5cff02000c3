//! The order ledger: what was sold, to whom, and where each order stands. It has the last word about stock.
//!
//! [`crate::settlement`] writes orders here under `sold + quantity <= total`; the payment side holds and pays them inside its
//! own transaction ([`OrderLedger::hold`], [`OrderLedger::mark_paid`]); [`crate::reaper`] returns the unpaid. Each change writes
//! beside itself, in the same transaction, what others must be told: `order_effects` for the stock store, `order_outbox` for
//! the shop.
//!
//! One SQL dialect serves SQLite and PostgreSQL; `engine.rs` has the spellings in which they differ.

mod audit;
mod checkins;
mod checkout;
mod clock;
mod connect;
mod dead_events;
mod dead_letters;
mod ended;
mod engine;
mod epochs;
mod held_letters;
mod installs;
mod leases;
mod letter_id;
mod lists;
mod lottery;
mod migrate;
mod no_sql;
mod order_watch;
mod orders;
mod outbox;
mod poll_changes;
mod pool;
mod query;
mod refill;
mod repairs;
mod report;
mod rows;
mod sales;
mod schedule;
mod segments;
mod settle;
mod standing;
mod status;
mod store_tasks;
mod transfers;

use std::{sync::Arc, time::Duration};

use metrics::Counter;
use sqlx::AnyPool;
use tokio::sync::Notify;

use self::{
    engine::Engine,
    order_watch::OrderWatch,
    pool::{Operation, Pool},
};
use crate::ids::SkuId;

pub use self::no_sql::forbid_sql_here;
pub use self::{
    audit::{BuyerOverLimit, LedgerAudit, NewOrders},
    checkins::{ATTEMPTS_MAX, CODES_MAX, CheckIn, SlotCounts},
    checkout::{Dropped, Hold, NotPayable, Payment},
    clock::{ClockError, LedgerClock},
    connect::{ConnectOptions, LedgerDurability, connect, connect_with},
    dead_events::{DeadDelivery, EventId, Revived},
    dead_letters::{DeadLetter, ReplayOutcome, StoredDeadLetter},
    ended::Ended,
    epochs::Raised,
    installs::{Registered, Replace},
    leases::{BOOKS, REBUILD, RECONCILE},
    letter_id::LetterId,
    lists::{ListChange, ListChanged, ListCursor, ListName, ListPage, ListSize, MAX_LISTED},
    lottery::{Draw, Entered, Entry, Recorded},
    migrate::migrate,
    order_watch::{OrderSubscription, RequestKey, WatchKey},
    orders::{Cancel, CancelAll},
    refill::Refilled,
    report::{LedgerReport, SkuReport},
    rows::{LedgerOrder, Page},
    sales::{Created, GateMoved, Restock, Restocked},
    schedule::{Edited, Published},
    settle::Settled,
    standing::Standing,
    status::{OrderEvent, OrderStatus},
    store_tasks::{Action, StoreTask},
    transfers::{Transfer, TransferMark, TransferState},
};
pub(crate) use self::{
    connect::restore_mark,
    dead_letters::{Replayed, closed_before},
};

/// Why the ledger gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database could not be reached, is busy or gave up on a conflict. Nothing was changed, or the same call repeated
    /// finds it done: every call is idempotent.
    #[error("ledger unavailable: {0}")]
    Unavailable(sqlx::Error),
    /// The database refuses these values, now and later. The caller must set the input aside.
    #[error("ledger refuses the values: {0}")]
    Invalid(sqlx::Error),
    /// The ledger does not know this sku: the sale was not created here.
    #[error("sku {sku} of sale {sale} is not in the ledger")]
    UnknownSku {
        /// The sale.
        sale: crate::ids::SaleId,
        /// The sku.
        sku: SkuId,
    },
    /// The orders were pulled under an epoch that is over: their segment was or is being rebuilt, and the rebuild has them.
    /// Nothing was changed; the caller forgets them and pulls again.
    #[error("segment {segment} is not at epoch {epoch} any more")]
    StaleEpoch {
        /// Which segment.
        segment: crate::ids::SegmentId,
        /// The epoch of the caller.
        epoch: u64,
    },
    /// A row holds what it should not. An operator must look.
    #[error("ledger row is corrupt: {0}")]
    Corrupt(String),
    /// A restore into this ledger has not ended, so the store beside it is not the one that belongs to it. The operator repeats
    /// `penstock restore`, which begins anew.
    #[error("a restore of {} has not ended: run the same penstock restore again", .0.display())]
    Unrestored(std::path::PathBuf),
    /// Commits are to be on a standby too, and the server has none that they wait for. The operator configures one, or asks for less.
    #[error(
        "ledger_durability = \"replicated\" needs a PostgreSQL ledger whose synchronous_standby_names is not empty: name a standby there, \
         or set ledger_durability = \"local\""
    )]
    NotReplicated,
    /// A newer release has laid tables that this one does not know. The operator starts that release again, or a newer one.
    #[error(
        "the database is at step {done} of {table}, and this release knows {known}: start the release that it comes from, or a newer one"
    )]
    NewerSchema {
        /// The table that counts the steps.
        table: &'static str,
        /// The steps that were done.
        done: i64,
        /// The steps that this release knows.
        known: i64,
    },
    /// The address of the ledger cannot be used. The configuration is at fault.
    #[error("ledger address: {0}")]
    Address(String),
}

impl LedgerError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether a start that failed by it may succeed later: the database is away, starting or full of callers. What it refuses for
    /// another reason (a password, a name, a right) stays refused.
    pub fn may_pass(&self) -> bool {
        let Self::Unavailable(error) = self else {
            return false;
        };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
            // SQLSTATE classes: connection, rollback, resources, operator intervention. SQLite: busy, locked.
            sqlx::Error::Database(cause) => cause.code().is_some_and(|code| {
                ["08", "40", "53", "57"]
                    .iter()
                    .any(|class| code.len() == 5 && code.starts_with(class))
                    || matches!(code.parse::<u32>(), Ok(number) if code.len() < 5 && matches!(number & 0xff, 5 | 6))
            }),
            _ => false,
        }
    }

    /// Whether the database failed for a reason that is not known to concern all of it: a trigger that raises, a limit of its own.
    /// It may be the order's, so a batch that has failed often enough is tried order by order.
    pub(crate) fn may_be_about_one_order(&self) -> bool {
        match self {
            Self::Unavailable(sqlx::Error::Database(cause)) => !cause
                .code()
                .is_some_and(|code| concerns_the_database(&code)),
            _ => false,
        }
    }

    /// Whether the ledger refuses one order for its own sake, so that the others of its batch may still be settled.
    pub(crate) fn is_about_one_order(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Corrupt(_))
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::error::ErrorKind;
        let is_invalid = match &error {
            // SQLSTATE class 22 is "data exception": too long, not a number, not text.
            sqlx::Error::Database(cause) => {
                !matches!(cause.kind(), ErrorKind::Other)
                    || cause
                        .code()
                        .is_some_and(|code| code.len() == 5 && code.starts_with("22"))
            }
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                true
            }
            _ => false,
        };
        if is_invalid {
            Self::Invalid(error)
        } else {
            Self::Unavailable(error)
        }
    }
}

/// Whether a code says that the database, its connection or its tables are the trouble: another order would meet the same.
fn concerns_the_database(code: &str) -> bool {
    // SQLite numbers its causes; the low byte is the kind: error, busy, locked, no memory, read-only, interrupted, i/o, corrupt, full,
    // cannot open, schema, no database.
    if let (Ok(number), 1..=4) = (code.parse::<u32>(), code.len()) {
        return matches!(number & 0xff, 1 | 5..=11 | 13 | 14 | 17 | 26);
    }
    // SQLSTATE classes: connection, transaction state, login, catalogue, rollback, syntax or access, resources, object state,
    // operator intervention, system.
    ["08", "25", "28", "3D", "40", "42", "53", "55", "57", "58"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// The ledger. Cheap to clone; all clones share one pool and wake one another.
#[derive(Clone)]
pub struct OrderLedger {
    pool: Pool,
    /// Where committed data is read: on SQLite connections beside the one that writes, if the database is a file.
    readers: Pool,
    engine: Engine,
    has_outbox: bool,
    shared: Arc<Shared>,
}

struct Shared {
    /// For [`OrderLedger::subscribe`].
    order_watch: OrderWatch,
    effects: Notify,
    outbox: Notify,
    expired: Counter,
    cancelled: Counter,
}

impl OrderLedger {
    /// A ledger over a pool that [`connect`] made and migrated. Orders write outbox events; see [`OrderLedger::without_outbox`].
    pub fn new(pool: AnyPool) -> Self {
        let engine = Engine::of(&pool);
        let readers = match engine {
            Engine::Sqlite => connect::readers(&pool),
            Engine::Postgres => None,
        };
        let released = |reason: &'static str| metrics::counter!("penstock_orders_released_total", "reason" => reason);
        Self {
            readers: Pool::new(readers.unwrap_or_else(|| pool.clone()), Operation::Read),
            pool: Pool::new(pool, Operation::Write),
            engine,
            has_outbox: true,
            shared: Arc::new(Shared {
                order_watch: OrderWatch::default(),
                effects: Notify::new(),
                outbox: Notify::new(),
                expired: released("expired"),
                cancelled: released("cancelled"),
            }),
        }
    }

    /// The same ledger writing no events: for a shop that listens to none, whose outbox would only grow.
    pub fn without_outbox(mut self) -> Self {
        self.has_outbox = false;
        self
    }

    /// The pool, for the other parts that keep tables in the same database.
    pub fn pool(&self) -> &AnyPool {
        self.pool.uncounted()
    }

    /// Where those parts read committed data: on SQLite never behind the writer.
    pub fn readers(&self) -> &AnyPool {
        self.reads().uncounted()
    }

    /// Where committed data is read. When [`OrderLedger::pool`] is closed, reads end too.
    fn reads(&self) -> &Pool {
        match self.pool().is_closed() {
            true => &self.pool,
            false => &self.readers,
        }
    }

    /// Shows how many connections to the database there are and how many of them work.
    pub(crate) fn show_connections(&self) {
        self.pool.show();
        self.readers.show();
    }

    /// Tells the workers of this process that a transaction which called [`OrderLedger::mark_paid`] has committed. Without it
    /// they find its effects at their next poll.
    pub fn wake(&self) {
        self.shared.effects.notify_one();
        self.shared.outbox.notify_one();
        self.shared.order_watch.notify();
    }

    /// Waits until effects may be pending, or until `at_most` has passed.
    pub(crate) async fn effects_due(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.shared.effects.notified()).await;
    }
}

/// A count as SQL keeps it.
fn sql(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::concerns_the_database;

    #[test]
    fn what_another_order_would_meet_too_is_not_held_against_one() {
        // SQLite: busy, a stale snapshot, i/o of a write, full; PostgreSQL: serialization, timeout, disk full, read-only.
        for code in ["5", "517", "778", "13", "40001", "57014", "53100", "25006"] {
            assert!(concerns_the_database(code), "{code}");
        }
        // A trigger that raises, on SQLite and PostgreSQL; an index row that is too big; an internal error.
        for code in ["1811", "P0001", "54000", "XX000"] {
            assert!(!concerns_the_database(code), "{code}");
        }
    }
}
