//! Requests and orders, gathered from operations and rows; and of each order, when it may and when it must have held its units.

use std::collections::HashMap;

use super::{Case, Lines, Name, Op, SkuAt};
use crate::history::event::Action;
use crate::ledger::OrderStatus;

/// A request: what one idempotency key of one buyer was used for, of one sku. A cart is a request for each of its skus.
#[derive(Debug, Default)]
pub struct Key {
    /// Purchases sent under it.
    pub purchases: Vec<u32>,
    /// Questions asked about it.
    pub polls: Vec<u32>,
    /// Attempts to give its whole cart back that named no order.
    pub cancels: Vec<u32>,
    /// Orders it was answered with or that the ledger has under it.
    pub orders: Vec<u32>,
}

/// A row of the ledger.
#[derive(Clone, Debug)]
pub struct Row {
    pub line: u32,
    pub sale: Name,
    pub sku: SkuAt,
    pub order: Name,
    pub buyer: Name,
    /// Under which request id.
    pub request: Name,
    pub quantity: u64,
    pub status: OrderStatus,
    /// When the store accepted it.
    pub created_at_ms: Option<u64>,
    pub pay_by_ms: Option<u64>,
}

/// An order that a client was told of, or that the ledger has.
#[derive(Debug)]
pub struct Order {
    pub name: Name,
    pub sale: Name,
    pub buyer: Name,
    /// The request it was first answered to, or that its row names; `None` for orders of other clients.
    pub key: Option<u32>,
    pub lines: Lines,
    /// The purchase it came of; `None` if several with different content may have made it.
    pub origin: Option<u32>,
    /// Answers to purchases, and to questions about a request, that named it; earliest first.
    pub acks: Vec<u32>,
    /// Attempts to cancel it.
    pub cancels: Vec<u32>,
    /// Attempts to pay it.
    pub pays: Vec<u32>,
    /// Other questions about it.
    pub polls: Vec<u32>,
    pub rows: Vec<u32>,
    pub pay_by_ms: Option<u64>,
    /// No instant before this one can have taken its units.
    pub takes_from: u64,
    /// The same in unix milliseconds.
    pub takes_from_ms: u64,
    /// From here on they are surely taken; the end of time if nobody was told.
    pub takes_by: u64,
    /// The same in unix milliseconds.
    pub takes_by_ms: u64,
    /// No instant before this one can have given them back; the end of time if they never were.
    pub returns_from: u64,
    /// That instant is the order's deadline, told by the server's clock.
    pub returns_at_deadline: bool,
    /// From here on they surely are.
    pub returns_by: u64,
}

impl Order {
    /// A client was told of it.
    pub fn is_acknowledged(&self) -> bool {
        !self.acks.is_empty()
    }

    /// Where the ledger says it stands.
    pub fn ledger_status(&self, case: &Case) -> Option<OrderStatus> {
        self.rows.first().map(|row| case.rows[*row as usize].status)
    }

    /// The line of the first answer that named it, or of its row.
    pub fn line(&self, case: &Case) -> u32 {
        let ack = self.acks.first().map(|op| case.ops[*op as usize].done_line);
        let row = self.rows.first().map(|row| case.rows[*row as usize].line);
        ack.or(row).unwrap_or(0)
    }

    /// A question about a cart is about an order only if a cart made it; what was bought alone under the same key is none of it.
    pub fn is_asked_for_by(&self, case: &Case, op: &Op) -> bool {
        let is_about_cart = op.f == Action::CartPoll || (op.f == Action::Cancel && op.order == 0);
        let origin = self.origin.map(|at| case.ops[at as usize].f);
        !is_about_cart || origin == Some(Action::CartBuy)
    }

    /// Units of one sku.
    pub fn units_of(&self, sku: SkuAt) -> u64 {
        let line = self.lines.iter().find(|(of, _)| *of == sku);
        line.map_or(0, |(_, units)| *units)
    }
}

/// What names a request: sale, buyer, id and sku.
type KeyName = (Name, Name, Name, SkuAt);

#[derive(Default)]
struct Gather {
    keys: Vec<Key>,
    key_at: HashMap<KeyName, u32>,
    orders: Vec<Order>,
    order_at: HashMap<Name, u32>,
}

/// Finds the requests and orders of a case.
pub(super) fn gather(case: &mut Case) -> (Vec<Key>, Vec<Order>) {
    let mut gather = Gather::default();
    for (at, op) in case.ops.iter().enumerate() {
        gather.take_op(at as u32, op);
    }
    for (at, row) in case.rows.iter().enumerate() {
        gather.take_row(at as u32, row);
    }
    let Gather {
        keys, mut orders, ..
    } = gather;
    for order in &mut orders {
        order.acks.sort_by_key(|op| case.ops[*op as usize].end);
        let key = order.key.map(|key| &keys[key as usize]);
        let sent: &[u32] = key.map_or(&[], |key| &key.purchases);
        if order.lines.is_empty() {
            order.lines = content(order, case, sent);
        }
        order.origin = order.origin.or_else(|| origin(order, case, sent));
        // Giving a cart back leaves alone what was bought one by one under its key.
        let may_be_of_cart = order
            .origin
            .is_none_or(|at| case.ops[at as usize].f == Action::CartBuy);
        if let Some(key) = key.filter(|_| may_be_of_cart) {
            order.cancels.extend(&key.cancels);
        }
        complete(order, case, &keys);
    }
    (keys, orders)
}

impl Gather {
    fn key(&mut self, name: KeyName) -> u32 {
        *self.key_at.entry(name).or_insert_with(|| {
            self.keys.push(Key::default());
            self.keys.len() as u32 - 1
        })
    }

    fn order(&mut self, name: Name, sale: Name, buyer: Name) -> &mut Order {
        let at = *self.order_at.entry(name).or_insert_with(|| {
            self.orders.push(Order {
                name,
                sale,
                buyer,
                key: None,
                lines: Lines::default(),
                origin: None,
                acks: Vec::new(),
                cancels: Vec::new(),
                pays: Vec::new(),
                polls: Vec::new(),
                rows: Vec::new(),
                pay_by_ms: None,
                takes_from: u64::MAX,
                takes_from_ms: u64::MAX,
                takes_by: u64::MAX,
                takes_by_ms: u64::MAX,
                returns_from: u64::MAX,
                returns_at_deadline: false,
                returns_by: u64::MAX,
            });
            self.orders.len() as u32 - 1
        });
        &mut self.orders[at as usize]
    }

    fn take_op(&mut self, at: u32, op: &Op) {
        let asks_by_request = matches!(op.f, Action::Poll | Action::CartPoll) && op.request != 0;
        // A question about an empty cart has no sku.
        let sku = op.lines.first().map_or(SkuAt::MAX, |(sku, _)| *sku);
        let name = (op.sale, op.buyer, op.request, sku);
        if op.f == Action::Cancel && op.order == 0 && op.request != 0 {
            let key = self.key(name);
            self.keys[key as usize].cancels.push(at);
            return;
        }
        if !op.is_purchase() && !asks_by_request {
            if op.order != 0 {
                let order = self.order(op.order, op.sale, op.buyer);
                match op.f {
                    Action::Cancel => order.cancels.push(at),
                    Action::Pay => order.pays.push(at),
                    _ => order.polls.push(at),
                }
                order.pay_by_ms = order.pay_by_ms.or(op.pay_by_ms);
            }
            return;
        }
        let key = self.key(name);
        match op.is_purchase() {
            true => self.keys[key as usize].purchases.push(at),
            false => self.keys[key as usize].polls.push(at),
        }
        if !op.is_ok() || op.order == 0 {
            return;
        }
        let order = self.order(op.order, op.sale, op.buyer);
        if order.acks.is_empty() {
            order.buyer = op.buyer;
        }
        order.acks.push(at);
        order.key.get_or_insert(key);
        order.pay_by_ms = order.pay_by_ms.or(op.pay_by_ms);
        // A question names the skus of its request, not what was bought under it in the end.
        if op.is_purchase() && order.lines.is_empty() {
            order.lines.clone_from(&op.lines);
            order.origin = Some(at);
        }
        let order_at = self.order_at[&op.order];
        let key = &mut self.keys[key as usize];
        if !key.orders.contains(&order_at) {
            key.orders.push(order_at);
        }
    }

    fn take_row(&mut self, at: u32, row: &Row) {
        let order = self.order(row.order, row.sale, row.buyer);
        order.rows.push(at);
        order.pay_by_ms = order.pay_by_ms.or(row.pay_by_ms);
        if order.key.is_some() {
            let key = order.key;
            self.join(key, row.order);
            return;
        }
        order.buyer = row.buyer;
        if order.lines.is_empty() {
            order.lines = [(row.sku, row.quantity)].into();
        }
        let name = (row.sale, row.buyer, row.request, row.sku);
        if let Some(key) = self.key_at.get(&name).copied() {
            self.order(row.order, row.sale, row.buyer).key = Some(key);
            self.join(Some(key), row.order);
        }
    }

    fn join(&mut self, key: Option<u32>, order: Name) {
        let order = self.order_at[&order];
        if let Some(key) = key {
            let orders = &mut self.keys[key as usize].orders;
            if !orders.contains(&order) {
                orders.push(order);
            }
        }
    }
}

/// What an order holds that no purchase was answered with: what its rows say, or else what may have been sent.
fn content(order: &Order, case: &Case, sent: &[u32]) -> Lines {
    let rows = order.rows.iter().map(|row| &case.rows[*row as usize]);
    let mut lines: Vec<(SkuAt, u64)> = rows.map(|row| (row.sku, row.quantity)).collect();
    lines.sort_unstable();
    if !lines.is_empty() {
        return lines.into();
    }
    let mut ops = sent
        .iter()
        .chain(&order.acks)
        .map(|at| &case.ops[*at as usize]);
    ops.find(|op| op.may_have_happened())
        .map_or_else(Lines::default, |op| op.lines.clone())
}

/// The purchase that an order came of, where none was answered with it: the one kind of those that may have made it.
fn origin(order: &Order, case: &Case, sent: &[u32]) -> Option<u32> {
    let op = |at: &u32| &case.ops[*at as usize];
    let may_be = |at: &&u32| op(at).may_have_happened() && op(at).lines == order.lines;
    let mut may_be = sent.iter().filter(may_be);
    let first = may_be.next()?;
    may_be
        .all(|other| op(other).asks_the_same(op(first)))
        .then_some(*first)
}

/// Works out when the order may and must have held its units.
fn complete(order: &mut Order, case: &Case, keys: &[Key]) {
    let op = |at: &u32| &case.ops[*at as usize];
    let sent: &[u32] = order.key.map_or(&[], |key| &keys[key as usize].purchases);
    // A purchase that was refused did nothing, so it did not take them.
    let first = sent
        .iter()
        .map(op)
        .filter(|op| op.may_have_happened())
        .min_by_key(|op| op.start);
    (order.takes_from, order.takes_from_ms) = first.map_or((0, 0), |op| (op.start, op.start_ms));
    if let Some(ack) = order.acks.first().map(op) {
        (order.takes_by, order.takes_by_ms) = (ack.end, ack.end_ms);
    }

    let status = order.ledger_status(case);
    let asked = order
        .cancels
        .iter()
        .map(op)
        .filter(|op| op.may_have_happened());
    let asked = asked.map(|op| op.start).min();
    let cancelled = order.cancels.iter().map(op).filter(|op| op.is_ok());
    let cancelled = cancelled.map(|op| op.end).min();
    let told = order.acks.iter().chain(&order.polls).chain(&order.pays);
    let seen = told
        .map(op)
        .filter(|op| op.is_ok() && op.state == Some(OrderStatus::Released));
    let seen = seen.map(|op| op.end).min();
    order.returns_by = cancelled.into_iter().chain(seen).min().unwrap_or(u64::MAX);

    let expires = order.pay_by_ms.map(|ms| case.us_of(ms));
    let earliest = asked.into_iter().chain(expires).min();
    let was_paid = order.pays.iter().map(op).any(|op| op.is_ok());
    order.returns_from = match (cancelled.is_some() || seen.is_some(), status) {
        // A release that nothing explains may lie anywhere.
        (true, _) | (false, Some(OrderStatus::Released)) => earliest.unwrap_or(order.takes_from),
        // What the ledger refused never held units there; that it was promised is another rule's business.
        (false, Some(OrderStatus::Refused)) => order.takes_from,
        (false, Some(_)) => u64::MAX,
        (false, None) if was_paid || case.has_books(order.sale) => asked.unwrap_or(u64::MAX),
        (false, None) => earliest.unwrap_or(u64::MAX),
    };
    order.returns_at_deadline = Some(order.returns_from) == expires;
}
