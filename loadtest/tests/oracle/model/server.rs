//! The sale itself: every rule, in the order in which the real thing asks them, and every flaw at its place.

use loadtest::history::event::{CartOrder, Done, Fault, Invoke, Phase};
use loadtest::history::{Action, Event};
use loadtest::ledger::OrderStatus::{Paid, Released, Reserved};

use super::{Answer, Flaw, LIMIT, Model, Order, PAY_WITHIN_MS, SKUS, STARTS_MS};
use crate::oracle::tale::T0_MS;

impl Model {
    pub(super) fn decide(&mut self, invoke: &Invoke) -> (Answer, Done) {
        match invoke.f {
            Action::Buy | Action::CartBuy => self.buy(invoke),
            Action::CartPoll => self.poll(invoke),
            Action::Poll if invoke.order.is_empty() => self.poll(invoke),
            Action::Cancel if invoke.order.is_empty() => self.give_back(invoke),
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
        let lines = lines(invoke);
        let key = |sku: usize| (invoke.buyer.clone(), invoke.request.clone(), sku);
        let known = |(sku, _): &(usize, u64)| self.requests.get(&key(*sku)).copied();
        let known: Vec<usize> = lines.iter().filter_map(known).collect();
        if self.has(Flaw::StockBeforeReplay)
            && lines
                .iter()
                .any(|(sku, units)| self.free[*sku] < *units as i64)
        {
            return fail("sold_out");
        }
        if !known.is_empty() {
            let is_same = known.iter().all(|at| self.orders[*at].content == lines);
            let is_back = |at: &usize| self.orders[*at].status == Released;
            let buys_again = match is_same {
                true => {
                    self.has(Flaw::NoReplayCheck)
                        || (self.has(Flaw::NoTombstone) && known.iter().all(is_back))
                }
                false => self.has(Flaw::ConflictBuys),
            };
            if !buys_again {
                return match is_same || self.has(Flaw::NoFingerprint) {
                    true => self.replay(invoke, known),
                    false => fail("key_reused"),
                };
            }
        }
        if let Some(refusal) = self.refusal(invoke, &lines) {
            return self.refuse(invoke, &lines, refusal);
        }
        let orders = self.take(invoke, lines);
        for at in &orders {
            self.requests.insert(key(self.orders[*at].sku), *at);
        }
        self.told(invoke.f == Action::CartBuy, &orders, 201)
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
                let orders = self.take(invoke, free);
                return self.told(true, &orders, 201);
            }
        }
        if code == "sold_out" && self.has(Flaw::RefusedButRecorded) {
            self.take(invoke, lines.to_vec());
        }
        fail(code)
    }

    /// An order for each line.
    pub(super) fn take(&mut self, invoke: &Invoke, lines: Vec<(usize, u64)>) -> Vec<usize> {
        let first = self.orders.len();
        for (sku, units) in &lines {
            self.free[*sku] -= *units as i64;
            *self.held.entry((invoke.buyer.clone(), *sku)).or_default() += *units as i64;
            let is_lost = self.has(Flaw::OrdersLostOnTheirWay) && self.random.percent(15);
            self.orders.push(Order {
                name: format!("order-{}", self.orders.len()),
                buyer: invoke.buyer.clone(),
                request: invoke.request.clone(),
                sku: *sku,
                units: *units,
                content: lines.clone(),
                status: Reserved,
                created_ms: self.now_ms(),
                is_recorded: !is_lost,
                made_us: self.now_us,
                intents: 0,
            });
        }
        if !invoke.token.is_empty() {
            self.tokens.insert(invoke.token.clone(), first);
        }
        (first..self.orders.len()).collect()
    }

    pub(super) fn told(&self, is_cart: bool, orders: &[usize], status: u16) -> (Answer, Done) {
        let one = |at: &usize| {
            let order = &self.orders[*at];
            let state = match self.has(Flaw::StatusFromAStaleCopy) {
                true => Reserved,
                false => order.status,
            };
            CartOrder {
                sku: SKUS[order.sku].into(),
                order: order.name.clone(),
                state: Some(state),
                pay_by_ms: Some(order.created_ms + PAY_WITHIN_MS),
            }
        };
        let mut orders: Vec<CartOrder> = orders.iter().map(one).collect();
        let done = Done {
            status,
            ..Done::default()
        };
        let done = match orders.pop() {
            Some(order) if !is_cart => Done {
                order: order.order,
                state: order.state,
                pay_by_ms: order.pay_by_ms,
                ..done
            },
            last => {
                orders.extend(last);
                Done { orders, ..done }
            }
        };
        (Answer::Ok, done)
    }

    pub(super) fn replay(&mut self, invoke: &Invoke, mut orders: Vec<usize>) -> (Answer, Done) {
        if self.has(Flaw::ReplaysTheWrongOrder) {
            for at in &mut orders {
                let Order { buyer, sku, .. } = &self.orders[*at];
                let is_alike = |order: &Order| order.buyer == *buyer && order.sku == *sku;
                *at = self.orders.iter().rposition(is_alike).unwrap_or(*at);
            }
        }
        self.told(invoke.f == Action::CartBuy, &orders, 200)
    }

    /// The orders under a request id, of the skus that are asked for.
    fn under(&self, invoke: &Invoke) -> Vec<usize> {
        let key = |sku: usize| (invoke.buyer.clone(), invoke.request.clone(), sku);
        let of = |(sku, _): &(usize, u64)| self.requests.get(&key(*sku)).copied();
        lines(invoke).iter().filter_map(of).collect()
    }

    pub(super) fn poll(&mut self, invoke: &Invoke) -> (Answer, Done) {
        let orders = self.under(invoke);
        match orders.is_empty() {
            false => self.told(invoke.f == Action::CartPoll, &orders, 200),
            true => fail("no_such_order"),
        }
    }

    /// A whole cart, or nothing of it.
    pub(super) fn give_back(&mut self, invoke: &Invoke) -> (Answer, Done) {
        let orders = self.under(invoke);
        let may_go = |at: &usize| matches!(self.orders[*at].status, Reserved | Released);
        if orders.is_empty() {
            return fail("no_such_order");
        } else if !orders.iter().all(may_go) {
            return fail("not_cancellable");
        }
        let most = match self.has(Flaw::CartGivenBackInPart) {
            true => 1,
            false => orders.len(),
        };
        for at in &orders[..most] {
            if self.orders[*at].status == Reserved {
                self.release(*at);
            }
        }
        self.told(true, &orders, 200)
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
                let (answer, done) = self.told(false, &[at], 200);
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
        self.told(false, &[at], 200)
    }

    pub(super) fn release(&mut self, at: usize) {
        self.orders[at].status = Released;
        let order = self.orders[at].clone();
        let times = if self.has(Flaw::ReturnedTwice) { 2 } else { 1 };
        self.free[order.sku] += times * order.units as i64;
        if !self.has(Flaw::LimitKeptAfterRelease) {
            *self.held.entry((order.buyer, order.sku)).or_default() -= order.units as i64;
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

/// Which skus of the model, and how many units; sorted.
fn lines(invoke: &Invoke) -> Vec<(usize, u64)> {
    let line = |(sku, units): &(String, u64)| (usize::from(sku == "b"), *units);
    let mut lines: Vec<(usize, u64)> = invoke.lines.iter().map(line).collect();
    lines.sort_unstable();
    lines
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
