//! The end of a job: it is measured and logged, and what follows from it is planned: a payment, a poll, a retry.

use super::local::Local;
use crate::engine::answer::Answer;
use crate::outcome::Outcome;
use crate::plan::{Job, Kind};

/// First pause before asking again about an unknown purchase; doubled up to sixteen times it.
const POLL_PAUSE_NS: u64 = 100_000_000;
/// Together about half a minute of asking.
const MAX_POLLS: u8 = 22;
/// First pause before a payment is tried again; doubled each time.
const PAY_PAUSE_NS: u64 = 200_000_000;
const MAX_PAY_TRIES: u8 = 5;

impl Local {
    /// A job ended: measures and logs it, and plans what follows from it.
    /// `op` names it in the history file, if there is one and it was sent.
    pub(in crate::engine) fn finish(
        &self,
        job: Job,
        op: Option<u64>,
        sent_ns: u64,
        done_ns: u64,
        answer: Answer,
    ) {
        if let (Some(history), Some(op)) = (self.history.get(), op) {
            history.done(op, job.kind, done_ns, &answer);
        }
        if job.kind != Kind::Poll {
            let mut recorder = self.recorder.borrow_mut();
            recorder.ended(answer.outcome, job.planned_ns, sent_ns, done_ns);
            recorder.answered(answer.status);
        }
        match job.kind {
            Kind::Page => {}
            Kind::Buy | Kind::BuyAgain => self.finish_purchase(job, done_ns, &answer),
            Kind::Poll => self.finish_poll(job, done_ns, &answer),
            Kind::Pay => self.finish_payment(job, done_ns, &answer),
        }
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 && self.next_due.get() == u64::MAX {
            self.pacer.notify_one();
        }
    }

    fn finish_purchase(&self, job: Job, done_ns: u64, answer: &Answer) {
        let cart = self.cart_of(&job).unwrap_or_default();
        let mut log = self.log.borrow_mut();
        let first = log.first_order(job.number).is_none();
        log.note_purchase(job.number, answer.outcome, answer.named(&cart));
        drop(log);
        if answer.outcome == Outcome::Unknown {
            self.follow(job, Kind::Poll, 0, done_ns + POLL_PAUSE_NS);
        }
        if answer.order.is_some() && first && self.ids.pays(job.number) {
            let delay = self.ids.pay_delay_ns(job.number);
            self.follow(job, Kind::Pay, 0, done_ns + delay);
        }
    }

    fn finish_poll(&self, job: Job, done_ns: u64, answer: &Answer) {
        if answer.names_an_order() {
            self.recorder.borrow_mut().counts.polls_settled += 1;
            self.finish_purchase(job, done_ns, answer);
            return;
        }
        let is_final = matches!(
            answer.outcome,
            Outcome::SoldOut | Outcome::BuyerLimit | Outcome::Ended | Outcome::ClientError
        );
        if is_final {
            // The purchase stays ambiguous in the log: "no such order" now is not a refusal of the request then.
            self.recorder.borrow_mut().counts.polls_settled += 1;
        } else if job.attempt < MAX_POLLS {
            let pause = POLL_PAUSE_NS << job.attempt.min(4);
            self.follow(job, Kind::Poll, job.attempt + 1, done_ns + pause);
        }
    }

    fn finish_payment(&self, job: Job, done_ns: u64, answer: &Answer) {
        self.log.borrow_mut().note_pay(job.number, answer.outcome);
        let again = answer.try_later || answer.outcome == Outcome::Timeout;
        if again && job.attempt + 1 < MAX_PAY_TRIES {
            self.recorder.borrow_mut().counts.pay_retries += 1;
            let pause = PAY_PAUSE_NS << job.attempt;
            self.follow(job, Kind::Pay, job.attempt + 1, done_ns + pause);
        }
    }

    fn follow(&self, job: Job, kind: Kind, attempt: u8, planned_ns: u64) {
        if self.stopping.get() {
            return;
        }
        self.schedule.borrow_mut().push(Job {
            planned_ns,
            kind,
            number: job.number,
            attempt,
        });
        if planned_ns < self.next_due.get() {
            self.next_due.set(planned_ns);
            if planned_ns < self.pacer_wakes_at.get() {
                self.pacer.notify_one();
            }
        }
    }
}
