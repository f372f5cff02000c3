//! Writes a thread's requests and answers down in the history file: what the outcome of a request proves, and what it leaves open.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::answer::Answer;
use crate::history::event::{Done, Invoke};
use crate::history::{Action, Event, HistorySender};
use crate::outcome::Outcome;
use crate::plan::{Identities, Job, Kind};
use crate::scenario::Scenario;

/// Writes what one thread sends and receives to the history file.
pub(super) struct HistoryRecorder {
    sender: HistorySender,
    sale: String,
    skus: Vec<String>,
    quantity: u64,
    thread: u64,
    threads: u64,
    next: Cell<u64>,
}

impl HistoryRecorder {
    pub(super) fn new(
        sender: HistorySender,
        scenario: &Scenario,
        thread: usize,
    ) -> HistoryRecorder {
        let sale = scenario.sale.clone();
        let (sale, skus, quantity) =
            sale.map_or_else(Default::default, |s| (s.id, s.skus, s.quantity.into()));
        HistoryRecorder {
            sender,
            sale,
            skus,
            quantity,
            thread: thread as u64,
            threads: scenario.generator.threads as u64,
            next: Cell::new(0),
        }
    }

    /// A request goes out; answers its number.
    pub(super) fn invoke(
        &self,
        ids: &Identities,
        job: &Job,
        worker: usize,
        order: Option<&str>,
        now_ns: u64,
    ) -> u64 {
        let number = self.next.replace(self.next.get() + 1);
        // Threads take turns, so no two give the same number.
        let op = number * self.threads + self.thread;
        let f = match (job.kind, ids.is_cart(job.number)) {
            (Kind::Poll, false) => Action::Poll,
            (Kind::Poll, true) => Action::CartPoll,
            (Kind::Pay, _) => Action::Pay,
            (Kind::Buy | Kind::BuyAgain, true) => Action::CartBuy,
            (Kind::Buy | Kind::BuyAgain | Kind::Page, _) => Action::Buy,
        };
        let mut invoke = Invoke {
            t_us: now_ns / 1000,
            wall_ms: wall_ms(),
            op,
            client: (worker as u64 * self.threads + self.thread) as u32,
            buyer: ids.buyer_id(job.number),
            order: order.unwrap_or_default().to_owned(),
            ..Invoke::new(f, self.sale.clone())
        };
        if f != Action::Pay {
            invoke.request = ids.request_id(job.number);
            let line = |sku: usize| (self.skus[sku].clone(), self.quantity);
            invoke.lines = ids.skus_of(job.number).map(line).collect();
        }
        self.sender.record(Event::Invoke(invoke));
        op
    }

    /// It was answered, or will never be.
    pub(super) fn done(&self, op: u64, kind: Kind, now_ns: u64, answer: &Answer) {
        let code = match &*answer.code {
            "" if !answer.names_an_order() && answer.intent.is_none() => answer.outcome.name(),
            code => code,
        };
        let done = Done {
            t_us: now_ns.div_ceil(1000),
            wall_ms: wall_ms(),
            op,
            status: answer.status,
            code: code.to_owned(),
            order: answer.order.as_deref().unwrap_or_default().to_owned(),
            state: answer.state,
            pay_by_ms: answer.pay_by_ms,
            intent: answer.intent.as_deref().unwrap_or_default().to_owned(),
            orders: answer.orders.clone(),
        };
        self.sender.record(match proves(kind, answer) {
            Proof::Done => Event::Ok(done),
            Proof::NotDone => Event::Fail(done),
            Proof::Nothing => Event::Info(done),
        });
    }
}

enum Proof {
    Done,
    NotDone,
    Nothing,
}

fn proves(kind: Kind, answer: &Answer) -> Proof {
    match answer.outcome {
        Outcome::Accepted | Outcome::Replayed | Outcome::Paid => Proof::Done,
        Outcome::Unknown
        | Outcome::InFlight
        | Outcome::ServerError
        | Outcome::Timeout
        | Outcome::ConnectError
        | Outcome::Shed
        | Outcome::PageOk => Proof::Nothing,
        // The copy before it may have done what this one was refused.
        _ if answer.is_second_copy && kind != Kind::Poll => Proof::Nothing,
        Outcome::SoldOut
        | Outcome::BuyerLimit
        | Outcome::NotStarted
        | Outcome::Ended
        | Outcome::Limited
        | Outcome::Frozen
        | Outcome::ClientError
        | Outcome::Declined => Proof::NotDone,
    }
}

fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
