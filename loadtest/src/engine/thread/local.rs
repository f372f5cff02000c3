//! The state of one generator thread, shared by its tasks: its share of the plan, the queue of due jobs, and what it measures.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Request;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::history::HistoryRecorder;
use crate::engine::connection::{Connector, H2Connection};
use crate::engine::request::{Body, Parts};
use crate::engine::target::Target;
use crate::history::ClientLog;
use crate::outcome::Outcome;
use crate::plan::{Identities, Job, Kind, Plan, Schedule};
use crate::record::Recorder;
use crate::scenario::{Protocol, Scenario};

/// After the last job was due, a send still counts as in time for this long (the length of a slot, and a wake-up).
const IN_TIME_GRACE_NS: u64 = 10_000_000;

/// The state of a thread, shared by its tasks.
pub(super) struct Local {
    pub(super) connector: Connector,
    pub(super) timeout: Duration,
    pub(super) h2: Vec<Rc<H2Connection>>,
    pub(super) parts: Parts,
    pub(super) ids: Identities,
    pub(super) start: Cell<Option<Instant>>,
    pub(super) history: OnceCell<HistoryRecorder>,
    pub(super) end_ns: u64,
    pub(super) schedule: RefCell<Schedule>,
    pub(super) next_due: Cell<u64>,
    /// Jobs dispatched and not yet taken by a worker.
    pub(super) queue: RefCell<VecDeque<Dispatched>>,
    pub(super) in_flight: Cell<usize>,
    pub(super) max_in_flight: usize,
    /// Idle workers, the last to become idle on top: at low rates few connections carry all.
    pub(super) parked: RefCell<Vec<usize>>,
    pub(super) wakers: RefCell<Vec<Option<Waker>>>,
    pub(super) max_workers: usize,
    pub(super) recorder: Rc<RefCell<Recorder>>,
    pub(super) log: RefCell<ClientLog>,
    pub(super) pacer: Notify,
    pub(super) pacer_wakes_at: Cell<u64>,
    pub(super) stopping: Cell<bool>,
}

/// A job on its way to a worker.
pub(super) struct Dispatched {
    pub(super) job: Job,
    pub(super) at_ns: u64,
    /// A worker was free for it: if it is taken late, the generator is late, not the server.
    pub(super) worker_was_free: bool,
}

impl Local {
    pub(super) fn new(s: &Scenario, target: &Target, thread: usize) -> anyhow::Result<Local> {
        let threads = s.generator.threads;
        let plan = Plan::new(s);
        let schedule = plan.schedule(thread, threads);
        let connections = s.generator.connections.div_ceil(threads);
        let (h2, max_workers) = match s.target.protocol {
            Protocol::H1 => (Vec::new(), connections),
            Protocol::H2 => (
                (0..connections).map(|_| Rc::default()).collect(),
                connections * s.generator.streams_per_connection,
            ),
        };
        let recorder = Rc::new(RefCell::new(Recorder::new()));
        Ok(Local {
            connector: Connector {
                target: target.clone(),
                recorder: Rc::clone(&recorder),
            },
            timeout: s.generator.request_timeout,
            h2,
            parts: Parts::new(s)?,
            ids: Identities::new(s),
            start: Cell::new(None),
            history: OnceCell::new(),
            end_ns: plan.t0_ns + plan.length_ns,
            next_due: Cell::new(schedule.next_due_ns().unwrap_or(u64::MAX)),
            schedule: RefCell::new(schedule),
            queue: RefCell::default(),
            in_flight: Cell::new(0),
            max_in_flight: s.generator.max_in_flight.div_ceil(threads),
            parked: RefCell::default(),
            wakers: RefCell::default(),
            max_workers,
            recorder,
            log: RefCell::new(ClientLog::new(plan.purchases())),
            pacer: Notify::new(),
            pacer_wakes_at: Cell::new(0),
            stopping: Cell::new(false),
        })
    }

    /// Nanoseconds since the start of the run; 0 before it.
    pub(super) fn now_ns(&self) -> u64 {
        self.start.get().map_or(0, |start| {
            Instant::now().saturating_duration_since(start).as_nanos() as u64
        })
    }

    /// Moves every job that is due to the queue and wakes workers for them. Returns how many more workers it takes.
    pub(super) fn dispatch(&self, now_ns: u64) -> usize {
        if now_ns < self.next_due.get() {
            return 0;
        }
        let mut schedule = self.schedule.borrow_mut();
        let mut recorder = self.recorder.borrow_mut();
        let mut queue = self.queue.borrow_mut();
        let mut parked = self.parked.borrow_mut();
        let mut wakers = self.wakers.borrow_mut();
        // Jobs still in the queue belong to workers that are busy or already woken: only fresh ones need another.
        let mut fresh = 0;
        let free_workers = parked.len() + self.max_workers.saturating_sub(wakers.len());
        while let Some(job) = schedule.pop_due(now_ns) {
            if matches!(job.kind, Kind::Pay | Kind::Poll) {
                recorder.counts.follow_ups += 1;
            } else {
                recorder.counts.planned += 1;
                recorder.interval.planned += 1;
            }
            if self.in_flight.get() >= self.max_in_flight {
                recorder.taken(now_ns - job.planned_ns);
                recorder.ended(Outcome::Shed, job.planned_ns, now_ns, now_ns);
            } else {
                self.in_flight.set(self.in_flight.get() + 1);
                let worker_was_free = fresh < free_workers;
                fresh += 1;
                queue.push_back(Dispatched {
                    job,
                    at_ns: now_ns,
                    worker_was_free,
                });
            }
        }
        self.next_due
            .set(schedule.next_due_ns().unwrap_or(u64::MAX));

        while fresh > 0
            && let Some(id) = parked.pop()
        {
            if let Some(waker) = wakers[id].take() {
                waker.wake();
            }
            fresh -= 1;
        }
        fresh.min(self.max_workers - wakers.len().min(self.max_workers))
    }

    /// A place for one more worker; its id.
    pub(super) fn enlist_worker(&self) -> usize {
        let mut wakers = self.wakers.borrow_mut();
        wakers.push(None);
        wakers.len() - 1
    }

    /// The next job for a worker; parks the worker if there is none.
    pub(super) fn poll_job(&self, id: usize, cx: &mut Context<'_>) -> Poll<Dispatched> {
        let mut wakers = self.wakers.borrow_mut();
        if let Some(job) = self.queue.borrow_mut().pop_front() {
            // Woken by its connection, not by `dispatch`: it must not be woken for a job while it is busy.
            if wakers[id].take().is_some() {
                self.parked.borrow_mut().retain(|parked| *parked != id);
            }
            return Poll::Ready(job);
        }
        if wakers[id].is_none() {
            self.parked.borrow_mut().push(id);
        }
        wakers[id] = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A worker took a job: notes it in the log. `false` if it waited so long that it is shed instead.
    pub(super) fn begin(&self, dispatched: &Dispatched, now_ns: u64) -> bool {
        let job = &dispatched.job;
        let mut recorder = self.recorder.borrow_mut();
        if dispatched.worker_was_free {
            recorder.taken(now_ns - job.planned_ns);
        } else {
            recorder.taken(dispatched.at_ns - job.planned_ns);
            recorder.waited(now_ns - dispatched.at_ns);
        }
        if now_ns - job.planned_ns > self.timeout.as_nanos() as u64 {
            return false;
        }
        let mut log = self.log.borrow_mut();
        match job.kind {
            Kind::Buy => log.note_sent(job.number, false),
            Kind::BuyAgain => log.note_sent(job.number, true),
            Kind::Pay => log.note_pay_sent(job.number),
            Kind::Poll => recorder.counts.polls += 1,
            Kind::Page => {}
        }
        if !matches!(job.kind, Kind::Pay | Kind::Poll) && now_ns <= self.end_ns + IN_TIME_GRACE_NS {
            recorder.counts.sent_in_time += 1;
        }
        true
    }

    /// Records a request in the history file, if there is one. Returns its number there.
    pub(super) fn record_invoke(&self, job: &Job, worker: usize, now_ns: u64) -> Option<u64> {
        let history = self.history.get()?;
        let log = self.log.borrow();
        let order = match job.kind {
            Kind::Page => return None,
            Kind::Pay => log.first_order(job.number),
            Kind::Buy | Kind::BuyAgain | Kind::Poll => None,
        };
        Some(history.invoke(&self.ids, job, worker, order, now_ns))
    }

    /// The request of a job, counted as sent. `again` if its connection closed under the copy before.
    pub(super) fn request(&self, job: &Job, again: bool) -> Request<Body> {
        let mut recorder = self.recorder.borrow_mut();
        recorder.counts.sent += 1;
        recorder.counts.resends += u64::from(again);
        recorder.interval.sent += 1;
        let log = self.log.borrow();
        let order = match job.kind {
            Kind::Pay => log.first_order(job.number),
            _ => None,
        };
        self.parts.request(job, order)
    }

    /// The skus of a job that is about a cart.
    pub(super) fn cart_of(&self, job: &Job) -> Option<Vec<&str>> {
        self.parts.cart_of(job)
    }

    /// No connection could be opened for the request: it never went out.
    pub(super) fn note_unsent(&self) {
        let mut recorder = self.recorder.borrow_mut();
        recorder.counts.sent -= 1;
        recorder.interval.sent = recorder.interval.sent.saturating_sub(1);
    }

    /// The connection closed under a request that the server may have seen.
    pub(super) fn note_broken(&self, job: &Job) {
        if matches!(job.kind, Kind::Buy | Kind::BuyAgain) {
            self.log.borrow_mut().note_broken(job.number);
        }
    }

    pub(super) fn has_started(&self) -> bool {
        self.start
            .get()
            .is_some_and(|start| Instant::now() >= start)
    }

    pub(super) fn ns_before_start(&self) -> u64 {
        self.start.get().map_or(0, |start| {
            start.saturating_duration_since(Instant::now()).as_nanos() as u64
        })
    }

    /// No new request; what is on the wire may end.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.schedule.borrow_mut().clear();
        self.next_due.set(u64::MAX);
        let dropped = self.queue.take().len();
        self.in_flight.set(self.in_flight.get() - dropped);
        self.recorder.borrow_mut().counts.dropped += dropped as u64;
    }
}
