//! The sale itself: every rule, in the order in which the real thing asks them, and every flaw at its place.

use loadtest::history::event::{Done, Fault, Invoke, Phase};
use loadtest::history::{Action, Event};
use loadtest::reconcile::OrderStatus::{Paid, Released, Reserved};

use super::{Answer, Flaw, LIMIT, Model, Order, PAY_WITHIN_MS, STARTS_MS};
use crate::oracle::tale::T0_MS;

impl Model {
    pub(super) fn decide(&mut self, invoke: &Invoke) -> (Answer, Done) {
        match invoke.f {
            Action::Buy | Action::CartBuy => self.buy(invoke),
            Action::Poll if invoke.order.is_empty() => self.poll(invoke),
            Action::Poll | Action::Cancel | Action::Pay => self.about(invoke),
            Action::Restock => self.restock(invoke),
            Action::Pause | Action::Resume => {
                self.is_paused = invoke.f == Action::Pause;
                ok(200)
            }
            Action::Close | Action::Freeze | Action::Thaw => fail("not_done_here"),
        }
    }

    pub(super) fn buy(&mut self, invoke: &Invoke) -> (Answer, Done) {
        let mut lines: Vec<(usize, u64)> = invoke
            .lines
            .iter()
            .map(|(sku, units)| (usize::from(sku == "b"), *units))
            .collect();
        lines.sort_unstable();
        let key = (
            invoke.buyer.clone(),
            invoke.request.clone(),
            lines.iter().map(|(sku, _)| *sku).collect::<Vec<_>>(),
        );
        let known = self.requests.get(&key).copied();
        if self.has(Flaw::StockBeforeReplay)
            && lines
                .iter()
                .any(|(sku, units)| self.free[*sku] < *units as i64)
        {
            return fail("sold_out");
        }
        if let Some(at) = known {
            let order = &self.orders[at];
            let is_same = order.lines == lines;
            let buys_again = match is_same {
                true => {
                    self.has(Flaw::NoReplayCheck)
                        || (self.has(Flaw::NoTombstone) && order.status == Released)
                }
                false => self.has(Flaw::ConflictBuys),
            };
            if !buys_again {
                return match is_same || self.has(Flaw::NoFingerprint) {
                    true => self.replay(at),
                    false => fail("key_reused"),
                };
            }
        }
        if let Some(refusal) = self.refusal(invoke, &lines) {
            return self.refuse(invoke, &lines, refusal);
        }
        let order = self.take(invoke, lines.clone());
        self.requests.insert(key, order);
        self.told(order, 201)
    }

    /// Window and gate, entitlement, limit, stock; in that order.
    pub(super) fn refusal(
        &mut self,
        invoke: &Invoke,
        lines: &[(usize, u64)],
    ) -> Option<&'static str> {
        let now = self.now_ms();
        if now < T0_MS + STARTS_MS && !self.has(Flaw::SellsOutsideTheWindow) {
            return Some("not_started");
        }
        if self.is_paused && !self.has(Flaw::SellsWhilePaused) {
            return Some("paused");
        }
        let is_used = !invoke.token.is_empty() && self.tokens.contains_key(&invoke.token);
        if is_used && !self.has(Flaw::EntitlementUsedTwice) {
            return Some("entitlement_used");
        }
        let held = |sku: usize| self.held.get(&(invoke.buyer.clone(), sku)).copied();
        let is_over =
            |(sku, units): &(usize, u64)| held(*sku).unwrap_or(0) + *units as i64 > LIMIT as i64;
        if lines.iter().any(is_over) && !self.has(Flaw::NoLimit) {
            return Some("buyer_limit");
        }
        let keeps = i64::from(self.has(Flaw::LastUnitNeverSold));
        let is_short = |(sku, units): &(usize, u64)| {
            self.free[*sku] - keeps < *units as i64
                || (self.flag[*sku] && self.has(Flaw::SoldOutIsNeverTakenBack))
        };
        let short: Vec<usize> = lines.iter().filter(|l| is_short(l)).map(|l| l.0).collect();
        if !short.is_empty() {
            for sku in &short {
                self.flag[*sku] |= self.free[*sku] <= 0;
            }
            if !self.has(Flaw::NoStockCheck) {
                return Some("sold_out");
            }
        }
        None
    }

    pub(super) fn refuse(
        &mut self,
        invoke: &Invoke,
        lines: &[(usize, u64)],
        code: &'static str,
    ) -> (Answer, Done) {
        if code == "sold_out" && self.has(Flaw::CartTakesWhatItGets) && lines.len() > 1 {
            let free: Vec<(usize, u64)> = lines
                .iter()
                .filter(|(sku, units)| self.free[*sku] >= *units as i64)
                .copied()
                .collect();
            if !free.is_empty() {
                let order = self.take(invoke, free);
                return self.told(order, 201);
            }
        }
        if code == "sold_out" && self.has(Flaw::RefusedButRecorded) {
            self.take(invoke, lines.to_vec());
        }
        fail(code)
    }

    pub(super) fn take(&mut self, invoke: &Invoke, lines: Vec<(usize, u64)>) -> usize {
        for (sku, units) in &lines {
            self.free[*sku] -= *units as i64;
            *self.held.entry((invoke.buyer.clone(), *sku)).or_default() += *units as i64;
        }
        let at = self.orders.len();
        let is_lost = self.has(Flaw::OrdersLostOnTheirWay) && self.random.percent(15);
        self.orders.push(Order {
            name: format!("order-{at}"),
            buyer: invoke.buyer.clone(),
            request: invoke.request.clone(),
            lines,
            status: Reserved,
            created_ms: self.now_ms(),
            is_recorded: !is_lost,
            made_us: self.now_us,
            intents: 0,
        });
        if !invoke.token.is_empty() {
            self.tokens.insert(invoke.token.clone(), at);
        }
        at
    }

    pub(super) fn told(&self, at: usize, status: u16) -> (Answer, Done) {
        let order = &self.orders[at];
        let state = match self.has(Flaw::StatusFromAStaleCopy) {
            true => Reserved,
            false => order.status,
        };
        let done = Done {
            status,
            order: order.name.clone(),
            state: Some(state),
            pay_by_ms: Some(order.created_ms + PAY_WITHIN_MS),
            ..Done::default()
        };
        (Answer::Ok, done)
    }

    pub(super) fn replay(&mut self, at: usize) -> (Answer, Done) {
        let buyer = &self.orders[at].buyer;
        let latest = self.orders.iter().rposition(|order| order.buyer == *buyer);
        let at = match self.has(Flaw::ReplaysTheWrongOrder) {
            true => latest.unwrap_or(at),
            false => at,
        };
        self.told(at, 200)
    }

    pub(super) fn poll(&mut self, invoke: &Invoke) -> (Answer, Done) {
        let mut skus: Vec<usize> = invoke
            .lines
            .iter()
            .map(|(s, _)| usize::from(s == "b"))
            .collect();
        skus.sort_unstable();
        let key = (invoke.buyer.clone(), invoke.request.clone(), skus);
        match self.requests.get(&key) {
            Some(at) => self.told(*at, 200),
            None => fail("no_such_order"),
        }
    }

    pub(super) fn about(&mut self, invoke: &Invoke) -> (Answer, Done) {
        let Some(at) = self
            .orders
            .iter()
            .position(|order| order.name == invoke.order)
        else {
            return fail("no_such_order");
        };
        let status = self.orders[at].status;
        match invoke.f {
            Action::Cancel => match status {
                Reserved => self.release(at),
                Paid if self.has(Flaw::ReturnedAfterPaid) => self.release(at),
                Released => {}
                _ => return fail("not_cancellable"),
            },
            Action::Pay => {
                let is_again = status == Paid && self.has(Flaw::PaidTwice);
                if status != Reserved && !is_again {
                    return fail("not_payable");
                }
                self.orders[at].intents += 1;
                if !self.has(Flaw::PaymentNotRecorded) {
                    self.orders[at].status = Paid;
                }
                let (answer, done) = self.told(at, 200);
                let intent = format!("intent-{at}-{}", self.orders[at].intents);
                return (
                    answer,
                    Done {
                        intent,
                        state: None,
                        ..done
                    },
                );
            }
            _ => {}
        }
        self.told(at, 200)
    }

    pub(super) fn release(&mut self, at: usize) {
        self.orders[at].status = Released;
        let order = self.orders[at].clone();
        let times = if self.has(Flaw::ReturnedTwice) { 2 } else { 1 };
        for (sku, units) in order.lines {
            self.free[sku] += times * units as i64;
            if !self.has(Flaw::LimitKeptAfterRelease) {
                *self.held.entry((order.buyer.clone(), sku)).or_default() -= units as i64;
            }
        }
    }

    pub(super) fn restock(&mut self, invoke: &Invoke) -> (Answer, Done) {
        let is_known = self.restocks.contains(&invoke.request);
        if !is_known {
            self.restocks.push(invoke.request.clone());
        }
        if !is_known || self.has(Flaw::RestockedTwice) {
            let (sku, units) = &invoke.lines[0];
            let sku = usize::from(sku == "b");
            self.free[sku] += *units as i64;
            self.restocked[sku] += units;
        }
        ok(200)
    }

    pub(super) fn sweep(&mut self) {
        if self.has(Flaw::NeverReturned) {
            return;
        }
        let now = self.now_ms();
        for at in 0..self.orders.len() {
            let order = &self.orders[at];
            if order.status == Reserved && order.created_ms + PAY_WITHIN_MS <= now {
                self.release(at);
            }
        }
    }

    pub(super) fn crash(&mut self) {
        let fault = self.events.len() as u64;
        for phase in [Phase::Start, Phase::End] {
            self.events.push(Event::Fault(Fault {
                t_us: self.now_us,
                fault,
                phase,
                kind: "kill".into(),
                what: "model".into(),
            }));
        }
        for client in &mut self.clients {
            if let Some(under_way) = &mut client.under_way {
                under_way.is_cut = true;
            }
        }
        if self.has(Flaw::StockResetByACrash) {
            self.free = [0, 1].map(|sku| (self.stock[sku] + self.restocked[sku]) as i64);
        }
        if self.has(Flaw::AckBeforeCommit) {
            self.forget_the_last();
        }
    }

    /// Everything of the last moments is gone, as if it had never been.
    pub(super) fn forget_the_last(&mut self) {
        let since = self.now_us.saturating_sub(100_000);
        for at in 0..self.orders.len() {
            if self.orders[at].made_us >= since && self.orders[at].is_recorded {
                self.orders[at].is_recorded = false;
                if self.orders[at].status == Reserved {
                    self.release(at);
                }
                self.requests.retain(|_, order| *order != at);
            }
        }
    }
}

fn ok(status: u16) -> (Answer, Done) {
    let done = Done {
        status,
        ..Done::default()
    };
    (Answer::Ok, done)
}

fn fail(code: &str) -> (Answer, Done) {
    let done = Done {
        status: 409,
        code: code.into(),
        ..Done::default()
    };
    (Answer::Fail, done)
}
