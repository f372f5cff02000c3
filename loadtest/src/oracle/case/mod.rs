//! A history in memory: operations with both their ends, then the requests and orders they are about, with the instants at
//! which each order may and must have held its units.

mod build;
mod order;

use std::collections::HashMap;

pub use build::Builder;
pub use order::{Key, Order, Row};

use super::Tally;
use super::steps::Faults;
use crate::history::event::{Action, End, Header, SaleFacts};
use crate::ledger::{OrderStatus, SaleReport};

/// An interned text. 0 is the empty one.
pub type Name = u32;
/// A sku of a sale, by its place in [`Case::skus`].
pub type SkuAt = u32;
/// Skus and units, sorted, each sku once.
pub type Lines = Box<[(SkuAt, u64)]>;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With what it asked for.
    Ok,
    /// Refused: nothing happened.
    Fail,
    /// Nobody knows, or no end is in the file.
    Unknown,
}

/// An operation with both its ends. What is about a whole cart is an operation for each of its skus, the parts, which share all but
/// their line and its order: a cart is an order a line, and each of them then lives for itself.
#[derive(Clone, Debug)]
pub struct Op {
    /// Line of its invocation.
    pub line: u32,
    /// Line of its answer; 0 if there is none.
    pub done_line: u32,
    /// What was asked for.
    pub f: Action,
    pub sale: Name,
    pub buyer: Name,
    /// Under which request id.
    pub request: Name,
    /// With which entitlement.
    pub token: Name,
    /// What is bought, or added; of a cart, the one line of this part.
    pub lines: Lines,
    /// All lines of a cart of several; empty otherwise.
    pub cart: Lines,
    /// It is the only part, or the first: what is said once of a request is said of this one.
    pub is_first: bool,
    /// The order it is about, named in the request or in the answer.
    pub order: Name,
    /// From here on it may take effect …
    pub start: u64,
    /// … and here it has, or never will; the end of time if that is not known.
    pub end: u64,
    /// The same in unix milliseconds.
    pub start_ms: u64,
    /// The same in unix milliseconds.
    pub end_ms: u64,
    pub answer: Answer,
    pub status: u16,
    /// The `code` of a refusal.
    pub code: Name,
    /// The status of the order in the answer.
    pub state: Option<OrderStatus>,
    /// The deadline of the order in the answer.
    pub pay_by_ms: Option<u64>,
    /// The payment in the answer.
    pub intent: Name,
}

impl Op {
    /// A purchase of one sku or several.
    pub fn is_purchase(&self) -> bool {
        matches!(self.f, Action::Buy | Action::CartBuy)
    }

    pub fn is_ok(&self) -> bool {
        self.answer == Answer::Ok
    }

    /// It may have taken effect.
    pub fn may_have_happened(&self) -> bool {
        self.answer != Answer::Fail
    }

    /// Everything the request names: of a cart, all its lines.
    pub fn content(&self) -> &[(SkuAt, u64)] {
        match self.cart.is_empty() {
            true => &self.lines,
            false => &self.cart,
        }
    }

    /// Whether both ask for the same. A cart of one line is another request than the purchase of that line.
    pub fn asks_the_same(&self, other: &Op) -> bool {
        self.f == other.f && self.content() == other.content()
    }

    pub fn both_lines(&self) -> [u32; 2] {
        [self.line, self.done_line]
    }
}

/// A sku of a sale.
#[derive(Clone, Debug)]
pub struct Sku {
    pub sale: Name,
    pub sku: Name,
    /// Units at the start, if the sale's document is there.
    pub stock: Option<u64>,
}

/// A history, ready to be judged.
#[derive(Debug)]
pub struct Case {
    header: Header,
    names: Vec<Box<str>>,
    /// Every operation, the parts of a cart one by one.
    pub ops: Vec<Op>,
    /// Every sku that is sold or named.
    pub skus: Vec<Sku>,
    pub keys: Vec<Key>,
    /// The orders, from answers and from the ledger.
    pub orders: Vec<Order>,
    pub rows: Vec<Row>,
    pub sales: HashMap<Name, SaleFacts>,
    /// The sales' accounts, with their lines.
    pub reports: HashMap<Name, (u32, SaleReport)>,
    pub(super) faults: Faults,
    fault_count: u64,
    /// When every fault was mended and everything settled.
    pub quiet: Option<u64>,
    pub end: Option<End>,
}

impl Case {
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn text(&self, name: Name) -> &str {
        &self.names[name as usize]
    }

    /// `sale/sku`.
    pub fn sku_text(&self, sku: SkuAt) -> String {
        let Sku { sale, sku, .. } = self.skus[sku as usize];
        format!("{}/{}", self.text(sale), self.text(sku))
    }

    /// The code of a refusal.
    pub fn code(&self, op: &Op) -> &str {
        self.text(op.code)
    }

    /// Whether the end of the sale's books is in the file: its account, and so all its rows.
    pub fn has_books(&self, sale: Name) -> bool {
        self.reports.contains_key(&sale)
    }

    /// An instant of the wall on the monotonic clock.
    pub fn us_of(&self, wall_ms: u64) -> u64 {
        wall_ms
            .saturating_sub(self.header.started_unix_ms)
            .saturating_mul(1000)
    }

    pub(super) fn tally(&self) -> Tally {
        let ops = || self.ops.iter().filter(|op| op.is_first);
        let count = |answer| ops().filter(|op| op.answer == answer).count() as u64;
        Tally {
            operations: ops().count() as u64,
            ok: count(Answer::Ok),
            refused: count(Answer::Fail),
            unknown: count(Answer::Unknown),
            acknowledged: self.orders.iter().filter(|o| o.is_acknowledged()).count() as u64,
            faults: self.fault_count,
            rows: self.rows.len() as u64,
            lost_within_bound: 0,
            oversold_units: 0,
        }
    }

    pub(super) fn not_judged(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.end.is_none() {
            missing.push("the file has no last line: the run was cut short".to_owned());
        }
        let mut sales: Vec<Name> = self.ops.iter().map(|op| op.sale).collect();
        sales.sort_unstable();
        sales.dedup();
        for sale in sales {
            let name = self.text(sale);
            if !self.sales.contains_key(&sale) {
                missing.push(format!(
                    "sale {name}: no document, so neither stock nor limit nor window are known"
                ));
            }
            if !self.has_books(sale) {
                missing.push(format!(
                    "sale {name}: no ledger and no account at the end, so nothing was compared with them"
                ));
            }
        }
        missing
    }
}
