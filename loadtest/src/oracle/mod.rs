//! The oracle: reads a whole history and says whether every promise held at every instant of it. Pure: a history in, a
//! verdict out.
//!
//! An operation takes effect at one instant between its invocation and its answer, nobody outside knows which. So each rule asks
//! whether *any* choice of instants explains what was answered: an order surely holds its units from its acknowledgement at the
//! latest until its release is asked for at the earliest ([`case`] works these out), and may hold them from the first invocation
//! of its request until its release is certain. "Oversold" needs the sure units to exceed the stock; "sold out" is excused by the
//! possible ones. An unknown outcome is allowed both ways. A bounded counter makes this exact and cheap: sorting, and one
//! sweep over the intervals.
//!
//! What a sale promises beyond its answers is asked of the facts at the end: ledger rows and the sale's account.
//!
//! A request id belongs to one buyer and one sku of one sale: that is the key here, as it is in the ledger; a cart is one request a
//! sku, and the same key of each. Not seen
//! from outside, and so not judged: epochs, leases and transfers between segments; what they would break shows as overselling
//! or as units that do not add up.

mod books;
mod buyer;
mod carts;
pub mod case;
mod gate;
mod identity;
mod life;
mod money;
mod rule;
mod steps;
mod stock;
mod text;

use std::path::Path;

use serde::Serialize;

pub use case::Case;
pub use rule::{Example, Rule, Violation};
pub use text::render;

use self::rule::Findings;
use crate::history::{BadHistory, Level, Read, read_file};

/// When an operation ended of which nobody wrote down when: after everything that has a time.
pub(crate) const UNKNOWN_INSTANT: u64 = u64::MAX - 1;

/// What is allowed to be late, and how far clocks may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Allow {
    /// What an acknowledged order is worth.
    pub level: Level,
    /// Between the clocks of clients and server, either way.
    pub skew_ms: u64,
    /// How long a node may say "sold out" from memory after units came back elsewhere. Starts anew after a fault.
    pub sold_out_lag_ms: u64,
    /// From a release or a restock to its units being on sale again; and from the deadline of an unpaid order to its return.
    /// Starts anew after a fault.
    pub return_lag_ms: u64,
    /// At lower levels: an acknowledgement may be lost in a fault that begins within this long.
    pub loss_window_ms: u64,
}

/// Machines that run NTP.
const SKEW_MS: u64 = 250;
/// Other nodes look twice a second.
const SOLD_OUT_LAG_MS: u64 = 1_000;
/// Returns are swept once a second, and told to the store within a quarter of one.
const RETURN_LAG_MS: u64 = 5_000;
/// Redis with `appendfsync everysec` may lose up to two seconds.
const LOSS_WINDOW_MS: u64 = 2_000;

impl Allow {
    /// The defaults, at that level.
    pub fn at(level: Level) -> Allow {
        Allow {
            level,
            skew_ms: SKEW_MS,
            sold_out_lag_ms: SOLD_OUT_LAG_MS,
            return_lag_ms: RETURN_LAG_MS,
            loss_window_ms: LOSS_WINDOW_MS,
        }
    }

    /// Nothing may be late: for histories made by a model.
    pub fn nothing(level: Level) -> Allow {
        Allow {
            skew_ms: 0,
            sold_out_lag_ms: 0,
            return_lag_ms: 0,
            ..Allow::at(level)
        }
    }

    fn is_lossy(&self) -> bool {
        self.level != Level::Durable
    }
}

/// What a history amounts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub held: bool,
    /// The seed that repeats the run.
    pub seed: u64,
    pub allowed: Allow,
    /// How much was looked at.
    pub tally: Tally,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// What could not be judged, and why.
    pub not_judged: Vec<String>,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub operations: u64,
    /// Of those, with what they asked for.
    pub ok: u64,
    pub refused: u64,
    /// Of those, with an unknown end.
    pub unknown: u64,
    /// Orders that clients were told of.
    pub acknowledged: u64,
    pub faults: u64,
    /// Rows of the ledger.
    pub rows: u64,
    /// Acknowledged orders that are not in the ledger, or refused there, within what the level allows.
    pub lost_within_bound: u64,
    /// Units beyond the stock, acknowledged or in the ledger.
    pub oversold_units: u64,
}

impl Verdict {
    /// Whether that rule was found broken.
    pub fn breaks(&self, rule: Rule) -> bool {
        self.violations.iter().any(|found| found.rule == rule)
    }
}

/// Judges a case by every rule.
pub fn judge(case: &Case, allow: &Allow) -> Verdict {
    judge_except(case, allow, &[])
}

/// Judges a case by every rule but some: to ask what a rule alone is worth.
pub fn judge_except(case: &Case, allow: &Allow, skipped: &[Rule]) -> Verdict {
    let mut found = Findings::skipping(skipped);
    let mut tally = case.tally();
    let holdings = stock::Holdings::new(case, allow);
    tally.oversold_units = stock::judge(case, allow, &holdings, &mut found);
    buyer::judge(case, allow, &holdings, &mut found);
    identity::judge(case, allow, &mut found);
    life::judge(case, allow, &mut found);
    gate::judge(case, allow, &mut found);
    money::judge(case, &mut found);
    tally.lost_within_bound = books::judge(case, allow, &mut found);
    let violations = found.into_violations();
    Verdict {
        held: violations.is_empty(),
        seed: case.header().seed,
        allowed: *allow,
        tally,
        violations,
        not_judged: case.not_judged(),
    }
}

/// Reads and judges a file. `allow` gets the level of its header. `progress` gets bytes read and in all.
pub fn verify_file(
    path: &Path,
    allow: impl FnOnce(Level) -> Allow,
    progress: impl FnMut(u64, u64),
) -> Result<(Verdict, Read), BadHistory> {
    let mut header = None;
    let mut case = case::Builder::default();
    let read = read_file(
        path,
        |found| header = Some(found),
        |line, event| case.take(line, event),
        progress,
    )?;
    let header = header.ok_or(BadHistory::Empty)?;
    let allow = allow(header.level);
    let case = case.finish(header).map_err(|why| BadHistory::Line {
        line: read.lines,
        why,
    })?;
    Ok((judge(&case, &allow), read))
}
