//! A small language for histories written by hand: who did what from when to when, and what the books say at the end.

use loadtest::history::event::Fault;
use loadtest::history::event::{CartOrder, Done, End, Header, Invoke, Phase, SaleFacts, SkuFacts};
use loadtest::history::{Action, Event, Level};
use loadtest::ledger::{LedgerRow, OrderStatus, SaleReport, SkuReport};
use loadtest::oracle::case::Builder;
use loadtest::oracle::{Allow, Case, Rule, Verdict, judge_except};

/// Unix milliseconds at the start of every tale.
pub const T0_MS: u64 = 1_000_000_000;
pub const SALE: &str = "drop";

/// A history in the making: two units each of `a` and `b`, at most two units of one for a buyer.
pub struct Tale {
    pub events: Vec<Event>,
    pub facts: SaleFacts,
    pub rows: Vec<LedgerRow>,
    pub restocked: u64,
    /// Changes the account before it is told.
    pub tamper: fn(&mut SaleReport),
    pub drained: bool,
    pub has_books: bool,
    pub end_us: u64,
    ops: u64,
    faults: u64,
}

impl Tale {
    pub fn new() -> Tale {
        let sku = |sku: &str| SkuFacts {
            sku: sku.into(),
            stock: 2,
        };
        Tale {
            events: Vec::new(),
            facts: SaleFacts {
                id: SALE.into(),
                starts_at_ms: T0_MS,
                ends_at_ms: T0_MS + 10_000,
                buyer_limit: 2,
                skus: vec![sku("a"), sku("b")],
            },
            rows: Vec::new(),
            restocked: 0,
            tamper: |_| {},
            drained: false,
            has_books: true,
            end_us: 9_000_000,
            ops: 0,
            faults: 0,
        }
    }

    /// An operation from `start` to `end` (milliseconds); without an end it never got an answer.
    pub fn op(
        &mut self,
        (start, end): (u64, Option<u64>),
        invoke: Invoke,
        wrap: fn(Done) -> Event,
        done: Done,
    ) {
        self.ops += 1;
        self.events.push(Event::Invoke(Invoke {
            t_us: start * 1000,
            wall_ms: T0_MS + start,
            op: self.ops,
            ..invoke
        }));
        if let Some(end) = end {
            self.events.push(wrap(Done {
                t_us: end * 1000,
                wall_ms: T0_MS + end,
                op: self.ops,
                ..done
            }));
        }
    }

    /// `buyer` asks for units of `a` under `request`.
    pub fn wish(buyer: &str, request: &str, units: u64) -> Invoke {
        Invoke {
            buyer: buyer.into(),
            request: request.into(),
            lines: vec![("a".into(), units)],
            ..Invoke::new(Action::Buy, SALE)
        }
    }

    /// `buyer` asks for one unit each of `a` and `b`.
    pub fn cart(buyer: &str, request: &str) -> Invoke {
        Invoke {
            f: Action::CartBuy,
            lines: vec![("a".into(), 1), ("b".into(), 1)],
            ..Self::wish(buyer, request, 1)
        }
    }

    /// What is asked of a cart succeeds; the answer names these orders, of `a`, `b` and so on.
    pub fn cart_told(&mut self, from: u64, to: u64, cart: Invoke, told: &[(&str, OrderStatus)]) {
        let orders = told.iter().zip(["a", "b", "c"]);
        let done = Done {
            status: if cart.f == Action::CartBuy { 201 } else { 200 },
            orders: orders
                .map(|((order, state), sku)| CartOrder {
                    sku: sku.into(),
                    order: (*order).into(),
                    state: Some(*state),
                    pay_by_ms: None,
                })
                .collect(),
            ..Done::default()
        };
        self.op((from, Some(to)), cart, Event::Ok, done);
    }

    /// One cart from first to last: bought and in the ledger.
    pub fn cart_order(&mut self, buyer: &str, request: &str, orders: [&str; 2]) {
        let told = orders.map(|order| (order, OrderStatus::Reserved));
        self.cart_told(0, 10, Self::cart(buyer, request), &told);
        for (order, sku) in orders.into_iter().zip(["a", "b"]) {
            self.row(order, buyer, request, 1, OrderStatus::Reserved);
            self.rows.last_mut().unwrap().sku = sku.into();
        }
    }

    /// Bought: 201 with that order.
    pub fn bought(&mut self, from: u64, to: u64, wish: Invoke, order: &str) {
        let done = Done {
            status: 201,
            order: order.into(),
            state: Some(OrderStatus::Reserved),
            ..Done::default()
        };
        self.op((from, Some(to)), wish, Event::Ok, done);
    }

    /// Bought before: 200 with that order.
    pub fn replayed(&mut self, from: u64, to: u64, wish: Invoke, order: &str) {
        let done = Done {
            status: 200,
            order: order.into(),
            ..Done::default()
        };
        self.op((from, Some(to)), wish, Event::Ok, done);
    }

    /// Refused with that code.
    pub fn refused(&mut self, from: u64, to: u64, wish: Invoke, code: &str) {
        let done = Done {
            status: 409,
            code: code.into(),
            ..Done::default()
        };
        self.op((from, Some(to)), wish, Event::Fail, done);
    }

    /// No answer at all.
    pub fn unknown(&mut self, from: u64, wish: Invoke) {
        self.op((from, None), wish, Event::Info, Done::default());
    }

    /// Something about an order succeeds.
    pub fn about(
        &mut self,
        from: u64,
        to: u64,
        f: Action,
        buyer: &str,
        order: &str,
        state: OrderStatus,
    ) {
        let invoke = Invoke {
            buyer: buyer.into(),
            order: order.into(),
            ..Invoke::new(f, SALE)
        };
        let done = Done {
            status: 200,
            state: Some(state),
            intent: match f {
                Action::Pay => format!("pi_{from}"),
                _ => String::new(),
            },
            ..Done::default()
        };
        self.op((from, Some(to)), invoke, Event::Ok, done);
    }

    pub fn cancelled(&mut self, from: u64, to: u64, buyer: &str, order: &str) {
        self.about(
            from,
            to,
            Action::Cancel,
            buyer,
            order,
            OrderStatus::Released,
        );
    }

    pub fn paid(&mut self, from: u64, to: u64, buyer: &str, order: &str) {
        self.about(from, to, Action::Pay, buyer, order, OrderStatus::Paid);
    }

    /// An operator does something to the sale.
    pub fn operator(&mut self, from: u64, to: u64, f: Action) {
        let done = Done {
            status: 200,
            ..Done::default()
        };
        self.op((from, Some(to)), Invoke::new(f, SALE), Event::Ok, done);
    }

    pub fn fault(&mut self, from: u64, to: u64) {
        self.faults += 1;
        for (at, phase) in [(from, Phase::Start), (to, Phase::End)] {
            self.events.push(Event::Fault(Fault {
                t_us: at * 1000,
                fault: self.faults,
                phase,
                kind: "kill".into(),
                what: "server".into(),
            }));
        }
    }

    /// A row of the ledger, made by that request, of `units` of `a`.
    pub fn row(
        &mut self,
        order: &str,
        buyer: &str,
        request: &str,
        units: u64,
        status: OrderStatus,
    ) {
        self.rows.push(LedgerRow {
            id: order.into(),
            sku: "a".into(),
            buyer: buyer.into(),
            quantity: units,
            status,
            request_id: Some(request.into()),
            created_at_ms: None,
            pay_by_ms: None,
        });
    }

    /// One order from first to last: bought and in the ledger.
    pub fn order(
        &mut self,
        from: u64,
        to: u64,
        buyer: &str,
        request: &str,
        units: u64,
        order: &str,
    ) {
        self.bought(from, to, Self::wish(buyer, request, units), order);
        self.row(order, buyer, request, units, OrderStatus::Reserved);
    }

    /// The account that goes with the rows.
    fn report(&self) -> SaleReport {
        let count = |status| self.rows.iter().filter(|row| row.status == status).count() as u64;
        let units = |sku: &str, wanted: fn(OrderStatus) -> bool| -> u64 {
            let rows = self
                .rows
                .iter()
                .filter(|row| row.sku == sku && wanted(row.status));
            rows.map(|row| row.quantity).sum()
        };
        let skus = self.facts.skus.iter().map(|sku| {
            let live = units(&sku.sku, OrderStatus::is_live);
            let sold = units(&sku.sku, |status| status == OrderStatus::Paid);
            let restocked = if sku.sku == "a" { self.restocked } else { 0 };
            SkuReport {
                sku: sku.sku.clone(),
                stock: sku.stock,
                restocked,
                available: (sku.stock + restocked).saturating_sub(live),
                reserved: live - sold,
                sold,
                ledger_sold: Some(live),
            }
        });
        SaleReport {
            skus: skus.collect(),
            accepted: self.rows.len() as u64,
            settled: self.rows.len() as u64,
            paid: count(OrderStatus::Paid),
            returned: count(OrderStatus::Released),
            refused: count(OrderStatus::Refused),
            dead_letters: 0,
            queue_depth: 0,
        }
    }

    /// Every line after the header.
    pub fn lines(&self) -> Vec<Event> {
        let mut events = self.events.clone();
        events.push(Event::Sale(self.facts.clone()));
        if self.has_books {
            let sale = || SALE.to_owned();
            let rows = self.rows.iter().cloned();
            events.extend(rows.map(|row| Event::Row { sale: sale(), row }));
            let mut report = self.report();
            (self.tamper)(&mut report);
            events.push(Event::Report {
                sale: sale(),
                report,
            });
        }
        events.push(Event::End(End {
            t_us: self.end_us,
            wall_ms: T0_MS + self.end_us / 1000,
            dropped: 0,
            drained: self.drained,
        }));
        events
    }

    pub fn case(&self) -> Case {
        case(&self.lines(), Level::Durable)
    }

    /// The verdict where nothing may be late.
    pub fn judged(&self) -> Verdict {
        self.judged_except(&[])
    }

    pub fn judged_except(&self, skipped: &[Rule]) -> Verdict {
        judge_except(&self.case(), &Allow::nothing(Level::Durable), skipped)
    }
}

/// These lines as a case.
pub fn case(events: &[Event], level: Level) -> Case {
    let mut builder = Builder::default();
    for (at, event) in events.iter().enumerate() {
        builder.take(at as u32 + 2, event.clone()).unwrap();
    }
    builder
        .finish(Header::new(7, "by hand", T0_MS, level))
        .unwrap()
}
