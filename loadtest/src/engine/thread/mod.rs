//! One generator thread: its share of the plan, its workers, its measurements. Nothing in here is shared with another thread.
//!
//! `pump` moves what is due from the schedule to the queue and wakes workers. The pacer calls it when its timer fires, and
//! every worker calls it between two requests, so a busy thread needs no timer at all. A job is never handed out early.

mod follow;
mod scribe;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Request;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use self::scribe::Scribe;
use super::line::{H2Shared, Wires};
use super::request::{Body, Parts};
use super::target::Target;
use super::timer::Timer;
use super::worker;
use crate::history::{History, Tape};
use crate::outcome::Outcome;
use crate::plan::{Identities, Job, Kind, Plan, Schedule};
use crate::record::{INTERVAL_MS, Interval, Recorder};
use crate::scenario::{Protocol, Scenario};

/// The pacer sleeps at least this long: what falls due meanwhile is sent together, at most this late. Five thousand wake-ups
/// a second cost about 2 % of a core.
const SLOT_NS: u64 = 200_000;
/// The pacer looks at least this often whether the run was stopped.
const LONGEST_NAP_NS: u64 = 50_000_000;
/// After the last job was due, a send still counts as in time for this long (the length of a slot, and a wake-up).
const IN_TIME_GRACE_NS: u64 = 10_000_000;

/// What a thread tells the run.
pub(super) enum Message {
    /// Connections stand (or not: then why).
    Ready {
        opened: usize,
        error: Option<String>,
    },
    /// An interval is over.
    Interval { index: u64, interval: Box<Interval> },
    /// The thread is done.
    Done(Box<Measured>),
    /// The thread could not run.
    Failed(anyhow::Error),
}

/// All that a thread measured.
pub(super) struct Measured {
    pub recorder: Recorder,
    pub history: History,
    pub cpu: Option<super::cpu::ThreadCpu>,
}

/// The start of the run.
#[derive(Clone)]
pub(super) struct Start {
    /// When.
    pub at: Instant,
    /// Where every request and answer is written down, if anywhere.
    pub tape: Option<Tape>,
}

/// What a thread is given.
pub(super) struct Assignment {
    pub scenario: Scenario,
    pub target: Target,
    pub thread: usize,
    pub start: watch::Receiver<Option<Start>>,
    pub stop: watch::Receiver<bool>,
    pub tell: mpsc::UnboundedSender<Message>,
}

/// The state of a thread, shared by its tasks.
pub(super) struct Local {
    pub wires: Wires,
    pub timeout: Duration,
    pub h2: Vec<Rc<H2Shared>>,
    parts: Parts,
    ids: Identities,
    start: Cell<Option<Instant>>,
    scribe: OnceCell<Scribe>,
    end_ns: u64,
    schedule: RefCell<Schedule>,
    next_due: Cell<u64>,
    /// Jobs handed over and not yet taken by a worker.
    queue: RefCell<VecDeque<Handed>>,
    in_flight: Cell<usize>,
    max_in_flight: usize,
    /// Idle workers, the last to become idle on top: at low rates few connections carry all.
    parked: RefCell<Vec<usize>>,
    wakers: RefCell<Vec<Option<Waker>>>,
    max_workers: usize,
    recorder: Rc<RefCell<Recorder>>,
    history: RefCell<History>,
    pacer: Notify,
    pacer_wakes_at: Cell<u64>,
    stopping: Cell<bool>,
}

/// A job on its way to a worker.
pub(super) struct Handed {
    pub job: Job,
    at_ns: u64,
    /// A worker was free for it: if it is taken late, the generator is late, not the server.
    worker_was_free: bool,
}

/// The whole life of a generator thread.
pub(super) async fn live(mut assignment: Assignment) -> anyhow::Result<()> {
    let tell = assignment.tell.clone();
    let local = Rc::new(Local::new(&assignment)?);
    let connections = local.open_all(&assignment).await;
    let error = connections.iter().find_map(|(_, error)| error.clone());
    let opened = connections.iter().filter(|(_, e)| e.is_none()).count();
    // Whoever does not listen any more has dropped the whole run.
    let _ = tell.send(Message::Ready { opened, error });
    let Ok(start) = assignment
        .start
        .wait_for(Option::is_some)
        .await
        .map(|s| s.clone())
    else {
        return Ok(());
    };
    if let Some(Start { at, tape }) = start {
        local.start.set(Some(at));
        if let Some(tape) = tape {
            local.scribe.get_or_init(|| Scribe::new(tape, &assignment));
        }
    }
    for (line, _) in connections {
        local.spawn_worker(line);
    }
    let reporter = tokio::task::spawn_local(report_intervals(Rc::clone(&local), tell.clone()));
    local.pace(&mut assignment.stop).await?;
    reporter.abort();
    local.tell_interval(local.now_ns() / (INTERVAL_MS * 1_000_000), &tell);

    let measured = Measured {
        recorder: local.recorder.take(),
        history: local.history.take(),
        cpu: super::cpu::of_this_thread(),
    };
    let _ = tell.send(Message::Done(Box::new(measured)));
    Ok(())
}

async fn report_intervals(local: Rc<Local>, tell: mpsc::UnboundedSender<Message>) {
    let Some(start) = local.start.get() else {
        return;
    };
    let length = Duration::from_millis(INTERVAL_MS);
    let mut ticks = tokio::time::interval_at(start + length, length);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let index = local.now_ns() / (INTERVAL_MS * 1_000_000);
        local.tell_interval(index.saturating_sub(1), &tell);
    }
}

impl Local {
    fn new(assignment: &Assignment) -> anyhow::Result<Local> {
        let s = &assignment.scenario;
        let threads = s.generator.threads;
        let plan = Plan::new(s);
        let schedule = plan.schedule(assignment.thread, threads);
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
            wires: Wires {
                target: assignment.target.clone(),
                recorder: Rc::clone(&recorder),
            },
            timeout: s.generator.request_timeout,
            h2,
            parts: Parts::new(s)?,
            ids: Identities::new(s),
            start: Cell::new(None),
            scribe: OnceCell::new(),
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
            history: RefCell::new(History::new(plan.purchases())),
            pacer: Notify::new(),
            pacer_wakes_at: Cell::new(0),
            stopping: Cell::new(false),
        })
    }

    /// Opens every connection before the first request, side by side. A failure leaves that line to open itself later.
    async fn open_all(self: &Rc<Self>, assignment: &Assignment) -> Vec<worker::Opened> {
        let wanted = match assignment.target.protocol() {
            Protocol::H1 => self.max_workers,
            Protocol::H2 => self.h2.len(),
        };
        let tasks: Vec<_> = (0..wanted)
            .map(|id| tokio::task::spawn_local(worker::open(Rc::clone(self), id)))
            .collect();
        let mut opened = Vec::with_capacity(wanted);
        for task in tasks {
            if let Ok(one) = task.await {
                opened.push(one);
            }
        }
        opened
    }

    fn spawn_worker(self: &Rc<Self>, line: super::line::Line) {
        let id = self.wakers.borrow().len();
        self.wakers.borrow_mut().push(None);
        tokio::task::spawn_local(worker::work(Rc::clone(self), id, line));
    }

    /// Nanoseconds since the start of the run; 0 before it.
    pub(super) fn now_ns(&self) -> u64 {
        self.start.get().map_or(0, |start| {
            Instant::now().saturating_duration_since(start).as_nanos() as u64
        })
    }

    /// Hands over every job that is due.
    pub(super) fn pump(self: &Rc<Self>, now_ns: u64) {
        if now_ns < self.next_due.get() {
            return;
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
                queue.push_back(Handed {
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
        let more = fresh.min(self.max_workers - wakers.len().min(self.max_workers));
        drop((parked, wakers));
        for _ in 0..more {
            let id = self.wakers.borrow().len();
            self.spawn_worker(worker::line_of(self, id));
        }
    }

    /// The next job for a worker; parks the worker if there is none.
    pub(super) fn poll_job(&self, id: usize, cx: &mut Context<'_>) -> Poll<Handed> {
        let mut wakers = self.wakers.borrow_mut();
        if let Some(job) = self.queue.borrow_mut().pop_front() {
            // Woken by its connection, not by `pump`: it must not be woken for a job while it is busy.
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

    /// A worker took a job: notes it in the history. `false` if it waited so long that it is shed instead.
    pub(super) fn begin(&self, handed: &Handed, now_ns: u64) -> bool {
        let job = &handed.job;
        let mut recorder = self.recorder.borrow_mut();
        if handed.worker_was_free {
            recorder.taken(now_ns - job.planned_ns);
        } else {
            recorder.taken(handed.at_ns - job.planned_ns);
            recorder.waited(now_ns - handed.at_ns);
        }
        if now_ns - job.planned_ns > self.timeout.as_nanos() as u64 {
            return false;
        }
        let mut history = self.history.borrow_mut();
        match job.kind {
            Kind::Buy => history.note_sent(job.number, false),
            Kind::BuyAgain => history.note_sent(job.number, true),
            Kind::Pay => history.note_pay_sent(job.number),
            Kind::Poll => recorder.counts.polls += 1,
            Kind::Page => {}
        }
        if !matches!(job.kind, Kind::Pay | Kind::Poll) && now_ns <= self.end_ns + IN_TIME_GRACE_NS {
            recorder.counts.sent_in_time += 1;
        }
        true
    }

    /// Writes a request down in the history file, if there is one, and gives its number there.
    pub(super) fn write_down(&self, job: &Job, worker: usize, now_ns: u64) -> Option<u64> {
        let scribe = self.scribe.get()?;
        let history = self.history.borrow();
        let order = match job.kind {
            Kind::Page => return None,
            Kind::Pay => history.orders_of(job.number).first().map(|id| &**id),
            Kind::Buy | Kind::BuyAgain | Kind::Poll => None,
        };
        Some(scribe.invoke(&self.ids, job, worker, order, now_ns))
    }

    /// The request of a job, counted as sent. `again` if its connection closed under the copy before.
    pub(super) fn request(&self, job: &Job, again: bool) -> Request<Body> {
        let mut recorder = self.recorder.borrow_mut();
        recorder.counts.sent += 1;
        recorder.counts.resends += u64::from(again);
        recorder.interval.sent += 1;
        let history = self.history.borrow();
        let order = match job.kind {
            Kind::Pay => history.orders_of(job.number).first().map(|id| &**id),
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
            self.history.borrow_mut().note_broken(job.number);
        }
    }

    /// Hands over jobs when they are due, until none is left and every answer is in.
    async fn pace(self: &Rc<Self>, stop: &mut watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut timer = Timer::new()?;
        loop {
            if !self.stopping.get() && (*stop.borrow() || stop.has_changed().is_err()) {
                self.stop();
            }
            let now = self.now_ns();
            if self.has_started() {
                self.pump(now);
            }
            if self.in_flight.get() == 0 && self.next_due.get() == u64::MAX {
                return Ok(());
            }
            let wake_at = (self.next_due.get().saturating_add(self.ns_before_start()))
                .max(now + SLOT_NS)
                .min(now + LONGEST_NAP_NS);
            self.pacer_wakes_at.set(wake_at);
            tokio::select! {
                slept = timer.sleep(Duration::from_nanos(wake_at - now)) => slept?,
                () = self.pacer.notified() => {}
            }
        }
    }

    fn has_started(&self) -> bool {
        self.start
            .get()
            .is_some_and(|start| Instant::now() >= start)
    }

    fn ns_before_start(&self) -> u64 {
        self.start.get().map_or(0, |start| {
            start.saturating_duration_since(Instant::now()).as_nanos() as u64
        })
    }

    /// No new request; what is on the wire may end.
    fn stop(&self) {
        self.stopping.set(true);
        self.schedule.borrow_mut().clear();
        self.next_due.set(u64::MAX);
        let dropped = self.queue.take().len();
        self.in_flight.set(self.in_flight.get() - dropped);
        self.recorder.borrow_mut().counts.dropped += dropped as u64;
    }

    fn tell_interval(&self, index: u64, tell: &mpsc::UnboundedSender<Message>) {
        let interval = std::mem::take(&mut self.recorder.borrow_mut().interval);
        let _ = tell.send(Message::Interval {
            index,
            interval: Box::new(interval),
        });
    }
}
