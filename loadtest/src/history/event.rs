//! The lines of a history file: their fields, and nothing of what they mean together.
//!
//! The first line is the [`Header`]. Every other line is an [`Event`]; its `e` says which. Times are `t_us`, microseconds of
//! one monotonic clock since the header was written, and `wall_ms`, unix milliseconds of the same machine, which only the
//! window of a sale and the deadline of a payment are compared with.

use serde::{Deserialize, Serialize};

use crate::ledger::{LedgerRow, OrderStatus, SaleReport};

/// The format written here, and the only one read.
pub const VERSION: u32 = 1;
/// What the header says of the clocks.
pub const CLOCK: &str =
    "t_us: monotonic microseconds since the header; wall_ms: unix milliseconds of the client";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub history: u32,
    /// The seed that repeats the run.
    pub seed: u64,
    /// Where the requests went.
    pub target: String,
    /// Wall clock at `t_us` = 0, unix milliseconds.
    pub started_unix_ms: u64,
    /// What the times are.
    pub clock: String,
    /// What an answered order is worth here; see [`Level`].
    #[serde(default)]
    pub level: Level,
}

impl Header {
    /// The header of a history that begins now, which is `started_unix_ms` on the wall.
    pub fn new(seed: u64, target: impl Into<String>, started_unix_ms: u64, level: Level) -> Self {
        Header {
            history: VERSION,
            seed,
            target: target.into(),
            started_unix_ms,
            clock: CLOCK.into(),
            level,
        }
    }
}

/// What the server promises of an answered order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A fault may take back what was answered just before it.
    Fast,
    /// The same, if a fault takes primary and replica.
    Replicated,
    /// What was answered stays.
    #[default]
    Durable,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Buy,
    /// Buy several skus, all or nothing.
    CartBuy,
    /// Give an unpaid order back; without an order, the whole cart of a request.
    Cancel,
    Pay,
    /// Ask for an order, by its id or by the request that may have made it.
    Poll,
    /// Ask for a cart, by the request that may have made it.
    CartPoll,
    Restock,
    /// An operator stops the sale for a while.
    Pause,
    /// An operator lets it go on.
    Resume,
    /// An operator ends it.
    Close,
    /// The stock is put under examination.
    Freeze,
    /// The examination is over.
    Thaw,
}

/// A request goes out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invoke {
    pub t_us: u64,
    /// Unix milliseconds.
    pub wall_ms: u64,
    /// Names this operation; its answer repeats it.
    pub op: u64,
    /// Who sends it. One client waits for an answer before it sends the next.
    pub client: u32,
    /// What is asked for.
    pub f: Action,
    pub sale: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub buyer: String,
    /// The idempotency key; of a restock, its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<(String, u64)>,
    /// The order that is cancelled, paid or asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub order: String,
    /// The entitlement it is bought with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
}

impl Invoke {
    /// An operation on a sale, by nobody yet.
    pub fn new(f: Action, sale: impl Into<String>) -> Self {
        Invoke {
            t_us: 0,
            wall_ms: 0,
            op: 0,
            client: 0,
            f,
            sale: sale.into(),
            buyer: String::new(),
            request: String::new(),
            lines: Vec::new(),
            order: String::new(),
            token: String::new(),
        }
    }
}

/// An operation ends: with what it asked for (`ok`), with a definite no (`fail`), or with nobody knowing (`info`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub t_us: u64,
    /// Unix milliseconds.
    pub wall_ms: u64,
    pub op: u64,
    /// HTTP status; 0 if there was no answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub status: u16,
    /// The `code` of a refusal, or why nothing is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// The order it names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub order: String,
    /// Where that order stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<OrderStatus>,
    /// When that order goes back if it is not paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay_by_ms: Option<u64>,
    /// The payment that succeeded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub intent: String,
    /// The orders of a cart that it names, one for each sku; then `order`, `state` and `pay_by_ms` above are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<CartOrder>,
}

/// One order of a cart in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartOrder {
    /// What it is for.
    pub sku: String,
    pub order: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<OrderStatus>,
    /// When it goes back if it is not paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay_by_ms: Option<u64>,
}

fn is_zero(status: &u16) -> bool {
    *status == 0
}

/// Which end of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Start,
    End,
}

/// Something is broken on purpose, or mended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub t_us: u64,
    /// Joins the two ends of one fault.
    pub fault: u64,
    pub phase: Phase,
    /// `kill`, `pause`, `cut` …
    pub kind: String,
    pub what: String,
}

/// A sale as its document says, with what the rules need of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SaleFacts {
    pub id: String,
    /// First instant of the window, unix milliseconds.
    pub starts_at_ms: u64,
    /// First instant after it.
    pub ends_at_ms: u64,
    /// Units of one sku that one buyer may hold; 0 is no limit.
    #[serde(default)]
    pub buyer_limit: u64,
    pub skus: Vec<SkuFacts>,
}

/// One sku of a sale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkuFacts {
    pub sku: String,
    /// Units at the start.
    pub stock: u64,
}

/// The end of the file, written when the run ended by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub t_us: u64,
    /// Unix milliseconds.
    pub wall_ms: u64,
    /// Events that were not written because the writer could not follow. Such a history is not judged.
    pub dropped: u64,
    /// After the last fault buyers came until "sold out" was the answer: every unit must be taken.
    #[serde(default)]
    pub drained: bool,
}

/// Any line but the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "e", rename_all = "snake_case")]
pub enum Event {
    /// A request goes out.
    Invoke(Invoke),
    /// It got what it asked for.
    Ok(Done),
    /// It was refused, and nothing happened.
    Fail(Done),
    /// It may have happened.
    Info(Done),
    /// Something is broken or mended.
    Fault(Fault),
    /// Every fault is mended and everything accepted has been settled.
    Quiet {
        t_us: u64,
    },
    Sale(SaleFacts),
    /// One row of the ledger at the end. A cart is an order, and so a row, for each of its skus.
    Row {
        sale: String,
        row: LedgerRow,
    },
    /// The sale's own account at the end; comes after its last row.
    Report {
        sale: String,
        report: SaleReport,
    },
    /// Nothing follows.
    End(End),
}

#[derive(Deserialize)]
struct Tag<'a> {
    e: &'a str,
}

#[derive(Deserialize)]
struct QuietFields {
    t_us: u64,
}

#[derive(Deserialize)]
struct RowFields {
    sale: String,
    row: LedgerRow,
}

#[derive(Deserialize)]
struct ReportFields {
    sale: String,
    report: SaleReport,
}

impl Event {
    /// Reads a line. By hand and in two steps: serde's own way would copy every line into a tree first.
    pub fn parse(line: &str) -> Result<Event, serde_json::Error> {
        use serde_json::from_str;
        let tag: Tag<'_> = from_str(line)?;
        Ok(match tag.e {
            "invoke" => Event::Invoke(from_str(line)?),
            "ok" => Event::Ok(from_str(line)?),
            "fail" => Event::Fail(from_str(line)?),
            "info" => Event::Info(from_str(line)?),
            "fault" => Event::Fault(from_str(line)?),
            "quiet" => Event::Quiet {
                t_us: from_str::<QuietFields>(line)?.t_us,
            },
            "sale" => Event::Sale(from_str(line)?),
            "row" => {
                let RowFields { sale, row } = from_str(line)?;
                Event::Row { sale, row }
            }
            "report" => {
                let ReportFields { sale, report } = from_str(line)?;
                Event::Report { sale, report }
            }
            "end" => Event::End(from_str(line)?),
            other => {
                let known = "invoke, ok, fail, info, fault, quiet, sale, row, report, end";
                return Err(serde::de::Error::custom(format!(
                    "e = {other:?}: must be one of {known}"
                )));
            }
        })
    }
}
