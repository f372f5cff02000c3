//! One generator thread: its share of the plan, its workers, its measurements. Nothing in here is shared with another thread.
//!
//! `dispatch` moves what is due from the schedule to the queue and wakes workers. The pacer calls it when its timer fires, and
//! every worker calls it between two requests, so a busy thread needs no timer at all. A job is never dispatched early.

mod follow;
mod history;
mod local;
mod worker;

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use self::history::HistoryRecorder;
use self::local::Local;
use super::target::Target;
use super::timer::Timer;
use crate::history::{ClientLog, HistorySender};
use crate::record::{INTERVAL_MS, Interval, Recorder, ThreadCpu};
use crate::scenario::{Protocol, Scenario};

/// The pacer sleeps at least this long: what falls due meanwhile is sent together, at most this late. Five thousand wake-ups
/// a second cost about 2 % of a core.
const SLOT_NS: u64 = 200_000;
/// The pacer looks at least this often whether the run was stopped.
const LONGEST_NAP_NS: u64 = 50_000_000;

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
    pub log: ClientLog,
    pub cpu: Option<ThreadCpu>,
}

/// The start of the run.
#[derive(Clone)]
pub(super) struct Start {
    pub at: Instant,
    /// Where every request and answer is written down, if anywhere.
    pub sender: Option<HistorySender>,
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

/// The whole life of a generator thread.
pub(super) async fn live(assignment: Assignment) -> anyhow::Result<()> {
    let Assignment {
        scenario,
        target,
        thread,
        mut start,
        mut stop,
        tell,
    } = assignment;
    let local = Rc::new(Local::new(&scenario, &target, thread)?);
    let connections = open_all(&local, target.protocol()).await;
    let error = connections.iter().find_map(|(_, error)| error.clone());
    let opened = connections.iter().filter(|(_, e)| e.is_none()).count();
    // Without a listener the whole run was dropped.
    let _ = tell.send(Message::Ready { opened, error });
    let started = start.wait_for(Option::is_some).await;
    let Ok(started) = started.map(|start| start.clone()) else {
        return Ok(());
    };
    if let Some(Start { at, sender }) = started {
        local.start.set(Some(at));
        if let Some(sender) = sender {
            let recorder = HistoryRecorder::new(sender, &scenario, thread);
            local.history.get_or_init(|| recorder);
        }
    }
    for (connection, _) in connections {
        worker::spawn(&local, connection);
    }
    let reporter = tokio::task::spawn_local(report_intervals(Rc::clone(&local), tell.clone()));
    pace(&local, &mut stop).await?;
    reporter.abort();
    report_interval(&local, local.now_ns() / (INTERVAL_MS * 1_000_000), &tell);

    let measured = Measured {
        recorder: local.recorder.take(),
        log: local.log.take(),
        cpu: ThreadCpu::of_this_thread(),
    };
    let _ = tell.send(Message::Done(Box::new(measured)));
    Ok(())
}

/// Opens every connection before the first request, side by side. One that fails is opened again by its worker.
async fn open_all(local: &Rc<Local>, protocol: Protocol) -> Vec<worker::Opened> {
    let wanted = match protocol {
        Protocol::H1 => local.max_workers,
        Protocol::H2 => local.h2.len(),
    };
    let tasks: Vec<_> = (0..wanted)
        .map(|id| tokio::task::spawn_local(worker::open(Rc::clone(local), id)))
        .collect();
    let mut opened = Vec::with_capacity(wanted);
    for task in tasks {
        if let Ok(one) = task.await {
            opened.push(one);
        }
    }
    opened
}

/// Dispatches jobs when they are due, until none is left and every answer is in.
async fn pace(local: &Rc<Local>, stop: &mut watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut timer = Timer::new()?;
    loop {
        if !local.stopping.get() && (*stop.borrow() || stop.has_changed().is_err()) {
            local.stop();
        }
        let now = local.now_ns();
        if local.has_started() {
            worker::dispatch(local, now);
        }
        if local.in_flight.get() == 0 && local.next_due.get() == u64::MAX {
            return Ok(());
        }
        let wake_at = (local.next_due.get().saturating_add(local.ns_before_start()))
            .max(now + SLOT_NS)
            .min(now + LONGEST_NAP_NS);
        local.pacer_wakes_at.set(wake_at);
        tokio::select! {
            slept = timer.sleep(Duration::from_nanos(wake_at - now)) => slept?,
            () = local.pacer.notified() => {}
        }
    }
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
        report_interval(&local, index.saturating_sub(1), &tell);
    }
}

fn report_interval(local: &Local, index: u64, tell: &mpsc::UnboundedSender<Message>) {
    let interval = std::mem::take(&mut local.recorder.borrow_mut().interval);
    let _ = tell.send(Message::Interval {
        index,
        interval: Box::new(interval),
    });
}
