//! Lines → operations. What cannot be a history is refused here, with the reason.

use std::collections::HashMap;

use super::order::{self, Row};
use super::{Answer, Case, Lines, Name, Op, Sku, SkuAt};
use crate::history::event::{Action, Done, End, Event, Fault, Header, Invoke, Phase, SaleFacts};
use crate::ledger::{LedgerRow, SaleReport};
use crate::oracle::steps::Faults;

#[derive(Debug)]
struct Names {
    texts: Vec<Box<str>>,
    numbers: HashMap<Box<str>, Name>,
}

impl Default for Names {
    fn default() -> Self {
        Names {
            texts: vec!["".into()],
            numbers: HashMap::from([("".into(), 0)]),
        }
    }
}

impl Names {
    fn number(&mut self, text: &str) -> Name {
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        let number = self.texts.len() as Name;
        self.texts.push(text.into());
        self.numbers.insert(text.into(), number);
        number
    }
}

/// Takes the events of a history one by one.
#[derive(Debug, Default)]
pub struct Builder {
    names: Names,
    ops: Vec<Op>,
    /// Of each operation its first part, and how many there are, one behind the other.
    by_number: HashMap<u64, (usize, usize)>,
    skus: Vec<Sku>,
    sku_at: HashMap<(Name, Name), SkuAt>,
    faults: HashMap<u64, (u64, Option<u64>)>,
    rows: Vec<Row>,
    sales: HashMap<Name, SaleFacts>,
    reports: HashMap<Name, (u32, SaleReport)>,
    quiet: Option<u64>,
    end: Option<End>,
}

impl Builder {
    /// Takes one event, or says why it cannot follow what came before.
    pub fn take(&mut self, line: u32, event: Event) -> Result<(), String> {
        if self.end.is_some() {
            return Err("comes after the end".into());
        }
        match event {
            Event::Invoke(invoke) => self.invoke(line, invoke),
            Event::Ok(done) => self.done(line, &done, Answer::Ok),
            Event::Fail(done) => self.done(line, &done, Answer::Fail),
            Event::Info(done) => self.done(line, &done, Answer::Unknown),
            Event::Fault(fault) => self.fault(&fault),
            Event::Quiet { t_us } => {
                self.quiet = Some(t_us);
                Ok(())
            }
            Event::Sale(facts) => self.sale(facts),
            Event::Row { sale, row } => {
                self.row(line, &sale, row);
                Ok(())
            }
            Event::Report { sale, report } => {
                let sale = self.names.number(&sale);
                match self.reports.insert(sale, (line, report)) {
                    None => Ok(()),
                    Some((first, _)) => Err(format!(
                        "the second account of one sale, after line {first}"
                    )),
                }
            }
            Event::End(end) if end.dropped > 0 => Err(format!(
                "{} events were dropped while the history was written: it is not whole and cannot be judged",
                end.dropped
            )),
            Event::End(end) => {
                self.end = Some(end);
                Ok(())
            }
        }
    }

    pub fn finish(self, header: Header) -> Result<Case, String> {
        let faults: Vec<(u64, u64)> = self
            .faults
            .values()
            .map(|(start, end)| (*start, end.unwrap_or(u64::MAX)))
            .collect();
        // What is no sku of the sale has no units.
        let mut skus = self.skus;
        for sku in skus
            .iter_mut()
            .filter(|sku| self.sales.contains_key(&sku.sale))
        {
            sku.stock.get_or_insert(0);
        }
        let mut case = Case {
            header,
            names: self.names.texts,
            ops: self.ops,
            skus,
            keys: Vec::new(),
            orders: Vec::new(),
            rows: self.rows,
            sales: self.sales,
            reports: self.reports,
            fault_count: faults.len() as u64,
            faults: Faults::new(faults),
            quiet: self.quiet,
            end: self.end,
        };
        (case.keys, case.orders) = order::gather(&mut case);
        Ok(case)
    }

    fn invoke(&mut self, line: u32, invoke: Invoke) -> Result<(), String> {
        let sale = self.names.number(&invoke.sale);
        let lines = self.lines(sale, &invoke.lines)?;
        let by_request = !invoke.request.is_empty() && invoke.order.is_empty();
        let is_cart = match invoke.f {
            Action::CartBuy | Action::CartPoll => lines.len() > 1,
            Action::Cancel => by_request && lines.len() > 1,
            _ => false,
        };
        let parts = if is_cart { lines.len() } else { 1 };
        let first = self.ops.len();
        if let Some((known, _)) = self.by_number.insert(invoke.op, (first, parts)) {
            return Err(format!(
                "op = {}: invoked before, at line {}",
                invoke.op, self.ops[known].line
            ));
        }
        for part in 0..parts {
            self.ops.push(Op {
                line,
                done_line: 0,
                f: invoke.f,
                sale,
                buyer: self.names.number(&invoke.buyer),
                request: self.names.number(&invoke.request),
                token: self.names.number(&invoke.token),
                lines: match is_cart {
                    true => [lines[part]].into(),
                    false => lines.clone(),
                },
                cart: match is_cart {
                    true => lines.clone(),
                    false => Lines::default(),
                },
                is_first: part == 0,
                order: self.names.number(&invoke.order),
                start: invoke.t_us,
                end: u64::MAX,
                start_ms: invoke.wall_ms,
                end_ms: u64::MAX,
                answer: Answer::Unknown,
                status: 0,
                code: 0,
                state: None,
                pay_by_ms: None,
                intent: 0,
            });
        }
        Ok(())
    }

    fn done(&mut self, line: u32, done: &Done, answer: Answer) -> Result<(), String> {
        let (first, parts) = *self
            .by_number
            .get(&done.op)
            .ok_or_else(|| format!("op = {}: ends, but was never invoked", done.op))?;
        let op = &self.ops[first];
        if op.done_line > 0 {
            return Err(format!(
                "op = {}: ended before, at line {}",
                done.op, op.done_line
            ));
        }
        if done.t_us < op.start {
            return Err(format!(
                "t_us = {}: op {} ends before it begins ({}, line {})",
                done.t_us, done.op, op.start, op.line
            ));
        }
        let named = self.names.number(&done.order);
        if named != 0 && op.order != 0 && named != op.order {
            return Err(format!(
                "order = {:?}: the request was about {:?}",
                done.order, self.names.texts[op.order as usize]
            ));
        }
        if op.f == Action::CartBuy && named != 0 {
            return Err(format!("op = {}: a cart names its `orders`", done.op));
        }
        if answer == Answer::Ok && op.is_purchase() && named == 0 && done.orders.is_empty() {
            return Err(format!(
                "op = {}: a purchase is ok but names no order",
                done.op
            ));
        }
        for at in first..first + parts {
            let op = &mut self.ops[at];
            op.done_line = line;
            op.answer = answer;
            // Without an answer the effect may come at any time later.
            if answer != Answer::Unknown {
                (op.end, op.end_ms) = (done.t_us, done.wall_ms);
            }
            op.status = done.status;
            op.code = self.names.number(&done.code);
            op.intent = self.names.number(&done.intent);
            op.state = done.state;
            op.pay_by_ms = done.pay_by_ms;
            op.order = op.order.max(named);
        }
        self.orders_of_a_cart(first, parts, done);
        Ok(())
    }

    /// Gives each part of a cart its order. An order for what was not asked for is a part of its own.
    fn orders_of_a_cart(&mut self, first: usize, parts: usize, done: &Done) {
        for named in &done.orders {
            let sku = self.sku(self.ops[first].sale, &named.sku);
            let is_for = |op: &Op| op.lines.first().is_some_and(|(of, _)| *of == sku);
            let part = (first..first + parts).find(|at| is_for(&self.ops[*at]));
            let at = part.unwrap_or_else(|| {
                self.ops.push(Op {
                    lines: [(sku, 0)].into(),
                    is_first: false,
                    ..self.ops[first].clone()
                });
                self.ops.len() - 1
            });
            let op = &mut self.ops[at];
            op.order = self.names.number(&named.order);
            op.state = named.state;
            op.pay_by_ms = named.pay_by_ms;
        }
    }

    fn fault(&mut self, fault: &Fault) -> Result<(), String> {
        match (fault.phase, self.faults.get_mut(&fault.fault)) {
            (Phase::Start, None) => {
                self.faults.insert(fault.fault, (fault.t_us, None));
                Ok(())
            }
            (Phase::End, Some((start, end @ None))) if *start <= fault.t_us => {
                *end = Some(fault.t_us);
                Ok(())
            }
            (Phase::Start, Some(_)) => Err(format!("fault = {}: began before", fault.fault)),
            (Phase::End, _) => Err(format!(
                "fault = {}: ends, but is not under way then",
                fault.fault
            )),
        }
    }

    fn sale(&mut self, facts: SaleFacts) -> Result<(), String> {
        let sale = self.names.number(&facts.id);
        for sku in &facts.skus {
            let at = self.sku(sale, &sku.sku);
            self.skus[at as usize].stock = Some(sku.stock);
        }
        match self.sales.insert(sale, facts) {
            None => Ok(()),
            Some(facts) => Err(format!("sale {:?} comes twice", facts.id)),
        }
    }

    fn row(&mut self, line: u32, sale: &str, row: LedgerRow) {
        let sale = self.names.number(sale);
        let sku = self.sku(sale, &row.sku);
        self.rows.push(Row {
            line,
            sale,
            sku,
            order: self.names.number(&row.id),
            buyer: self.names.number(&row.buyer),
            request: self
                .names
                .number(row.request_id.as_deref().unwrap_or_default()),
            quantity: row.quantity,
            status: row.status,
            created_at_ms: row.created_at_ms,
            pay_by_ms: row.pay_by_ms,
        });
    }

    fn sku(&mut self, sale: Name, sku: &str) -> SkuAt {
        let sku = self.names.number(sku);
        *self.sku_at.entry((sale, sku)).or_insert_with(|| {
            self.skus.push(Sku {
                sale,
                sku,
                stock: None,
            });
            self.skus.len() as SkuAt - 1
        })
    }

    /// Lines sorted and summed, as the server must see them.
    fn lines(&mut self, sale: Name, lines: &[(String, u64)]) -> Result<Lines, String> {
        let mut found: Vec<(SkuAt, u64)> = Vec::with_capacity(lines.len());
        for (sku, units) in lines {
            if *units > u64::from(u32::MAX) {
                return Err(format!(
                    "lines: {units} units of {sku:?}: at most 2^32 are judged"
                ));
            }
            found.push((self.sku(sale, sku), *units));
        }
        found.sort_unstable();
        found.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 += next.1;
            }
            is_same
        });
        Ok(found.into())
    }
}
