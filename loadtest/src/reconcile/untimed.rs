//! Makes a history of a [`ClientLog`], for the oracle to judge.
//!
//! The log says what was answered, but not when. So every operation here takes as long as the history: what the oracle finds broken
//! is broken at whatever instants the answers came.

use crate::history::event::{CartOrder, Done, Header, Invoke};
use crate::history::{Action, ClientLog, Event, Level, NamedOrder};
use crate::oracle::{Allow, UNKNOWN_INSTANT, Verdict, case, judge};
use crate::plan::Identities;
use crate::scenario::{Sale, Scenario};

use super::EndFacts;

/// Judges what the clients of a run saw against the facts at its end.
pub(super) fn judged(
    scenario: &Scenario,
    sale: &Sale,
    log: &ClientLog,
    facts: &EndFacts,
) -> Result<Verdict, String> {
    let mut history = Untimed {
        ids: Identities::new(scenario),
        sale,
        log,
        events: Events::default(),
    };
    for purchase in log.sent() {
        history.purchase(purchase)?;
        history.payment(purchase)?;
    }
    history.never_sent(facts)?;
    history.restocks(facts)?;
    let mut events = history.events;
    for event in facts.clone().into_events() {
        events.take(event)?;
    }
    // What the level of a sale is, a black box does not see.
    let level = Level::Durable;
    let header = Header::new(scenario.seed, scenario.target.url.clone(), 0, level);
    Ok(judge(&events.case.finish(header)?, &Allow::at(level)))
}

struct Untimed<'a> {
    ids: Identities,
    sale: &'a Sale,
    log: &'a ClientLog,
    events: Events,
}

impl Untimed<'_> {
    fn purchase(&mut self, purchase: u32) -> Result<(), String> {
        let quantity = u64::from(self.sale.quantity);
        let line = |sku: usize| (self.sale.skus[sku].clone(), quantity);
        let f = match self.ids.is_cart(purchase) {
            true => Action::CartBuy,
            false => Action::Buy,
        };
        let invoke = Invoke {
            buyer: self.ids.buyer_id(purchase),
            request: self.ids.request_id(purchase),
            lines: self.ids.skus_of(purchase).map(line).collect(),
            ..Invoke::new(f, self.sale.id.clone())
        };
        for done in answers(&invoke, self.log.orders_of(purchase)) {
            self.events
                .operation(invoke.clone(), Some(Event::Ok(done)))?;
        }
        if self.log.has_refusal(purchase) {
            self.events
                .operation(invoke.clone(), refused("for a reason not kept"))?;
        }
        if self.log.has_unknown(purchase) {
            self.events.operation(invoke, None)?;
        }
        Ok(())
    }

    fn payment(&mut self, purchase: u32) -> Result<(), String> {
        let (Some(order), true) = (
            self.log.first_order(purchase),
            self.log.is_pay_sent(purchase),
        ) else {
            return Ok(());
        };
        let invoke = Invoke {
            buyer: self.ids.buyer_id(purchase),
            order: order.to_owned(),
            ..Invoke::new(Action::Pay, self.sale.id.clone())
        };
        let end = match () {
            () if self.log.is_paid(purchase) => Some(Event::Ok(Done::default())),
            () if self.log.has_unknown_payment(purchase) => None,
            () => refused("declined"),
        };
        self.events.operation(invoke, end)
    }

    /// A request of the plan that was never sent has no effect, like one that was refused.
    fn never_sent(&mut self, facts: &EndFacts) -> Result<(), String> {
        for row in &facts.rows {
            let request = row.request_id.as_deref().unwrap_or_default();
            let purchase = self.ids.purchase_of(request);
            if purchase.is_some_and(|purchase| !self.log.is_sent(purchase)) {
                let invoke = Invoke {
                    buyer: row.buyer.clone(),
                    request: request.to_owned(),
                    lines: vec![(row.sku.clone(), row.quantity)],
                    ..Invoke::new(Action::Buy, self.sale.id.clone())
                };
                self.events.operation(invoke, refused("never sent"))?;
            }
        }
        Ok(())
    }

    /// Units that somebody else added meanwhile are known from the account only.
    fn restocks(&mut self, facts: &EndFacts) -> Result<(), String> {
        for sku in facts.report.skus.iter().filter(|sku| sku.restocked > 0) {
            let invoke = Invoke {
                request: format!("restocks of {}", sku.sku),
                lines: vec![(sku.sku.clone(), sku.restocked)],
                ..Invoke::new(Action::Restock, self.sale.id.clone())
            };
            self.events
                .operation(invoke, Some(Event::Ok(Done::default())))?;
        }
        Ok(())
    }
}

/// The answers in which the orders were named. Every answer to a cart names one order for each line that was answered at all.
fn answers(invoke: &Invoke, orders: &[NamedOrder]) -> Vec<Done> {
    if invoke.f == Action::Buy {
        let done = |order: &NamedOrder| Done {
            order: order.id.to_string(),
            ..Done::default()
        };
        return orders.iter().map(done).collect();
    }
    let of_line = |line: u8| orders.iter().filter(move |order| order.line == line);
    let most = orders.iter().map(|order| of_line(order.line).count()).max();
    let named = |line: u8, nth: usize| {
        let order = of_line(line).nth(nth).or_else(|| of_line(line).next())?;
        let sku = invoke.lines.get(usize::from(line));
        Some(CartOrder {
            sku: sku.map_or("not asked for", |(sku, _)| sku).to_owned(),
            order: order.id.to_string(),
            ..CartOrder::default()
        })
    };
    let answer = |nth: usize| Done {
        orders: orders
            .iter()
            .filter_map(|order| named(order.line, nth))
            .collect(),
        ..Done::default()
    };
    (0..most.unwrap_or(0)).map(answer).collect()
}

fn refused(code: &str) -> Option<Event> {
    Some(Event::Fail(Done {
        code: code.to_owned(),
        ..Done::default()
    }))
}

/// Numbers lines and operations.
#[derive(Default)]
struct Events {
    case: case::Builder,
    line: u32,
    op: u64,
}

impl Events {
    fn take(&mut self, event: Event) -> Result<(), String> {
        self.line += 1;
        self.case.take(self.line, event)
    }

    /// An operation that began before everything else and ended after it; without an end nobody knows what became of it.
    fn operation(&mut self, invoke: Invoke, end: Option<Event>) -> Result<(), String> {
        self.op += 1;
        let op = self.op;
        self.take(Event::Invoke(Invoke { op, ..invoke }))?;
        let timed = |done: Done| Done {
            op,
            t_us: UNKNOWN_INSTANT,
            wall_ms: u64::MAX,
            ..done
        };
        match end {
            Some(Event::Ok(done)) => self.take(Event::Ok(timed(done))),
            Some(Event::Fail(done)) => self.take(Event::Fail(timed(done))),
            _ => Ok(()),
        }
    }
}
