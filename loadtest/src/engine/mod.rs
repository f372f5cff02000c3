//! Sends the plan: generator threads with a runtime each, and the coordinator that starts them together, gathers what they
//! measured and tells the progress.

mod answer;
mod connection;
mod recording;
mod request;
mod stream;
mod target;
mod thread;
mod timer;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

pub(crate) use recording::Recording;

use self::target::Target;
use self::thread::{Assignment, Measured, Message, Start};
use crate::history::ClientLog;
use crate::plan::Plan;
use crate::record::{INTERVAL_MS, Interval, Progress, Recorder, ThreadCpu, Timeline};
use crate::report::{Material, Report};
use crate::scenario::{Problems, Scenario};

/// Between the last connection and the start, so that every thread is waiting when it comes.
const START_AHEAD: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct RunOutput {
    pub report: Report,
    /// What was answered, for [`crate::reconcile()`].
    pub log: ClientLog,
    /// The history file, if the scenario asks for one; it wants its end.
    pub recording: Option<Recording>,
}

/// Runs a scenario. `progress` is called about twice a second; when `stop` completes, nothing new is sent, what is on the
/// wire may end, and the report says it was interrupted. Fails if the scenario has problems or nothing can be connected.
///
/// The generator threads are its own; the calling runtime only coordinates.
pub async fn run(
    scenario: &Scenario,
    mut progress: impl FnMut(&Progress) + Send,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<RunOutput> {
    let problems = scenario.check();
    if !problems.is_empty() {
        return Err(Problems(problems).into());
    }
    let target = Target::resolve(scenario).await?;
    let plan = Plan::new(scenario);
    let (tell, mut messages) = mpsc::unbounded_channel();
    // Dropping these two ends the threads, so a cancelled run leaves none behind.
    let (start_all, start) = watch::channel(None);
    let (stop_all, stopped) = watch::channel(false);
    for thread in 0..scenario.generator.threads {
        spawn_thread(Assignment {
            scenario: scenario.clone(),
            target: target.clone(),
            thread,
            start: start.clone(),
            stop: stopped.clone(),
            tell: tell.clone(),
        })?;
    }
    drop(tell);

    let mut stop = std::pin::pin!(stop);
    let mut interrupted = false;
    let mut gathered = Gathered::new(scenario, &plan);
    tokio::select! {
        connected = gathered.connected(&mut messages, scenario.generator.threads) => connected?,
        () = &mut stop => {
            interrupted = true;
            let _ = stop_all.send(true);
        }
    }
    let (started_unix_ms, start_at) = gathered.start_instant(scenario, &plan);
    gathered.start = Some(start_at);
    let recording = Recording::begin(scenario, started_unix_ms, start_at)?;
    let _ = start_all.send(Some(Start {
        at: start_at,
        sender: recording.as_ref().map(Recording::sender),
    }));

    let tick = Duration::from_millis(INTERVAL_MS);
    // A little after the threads tell their intervals, so that these are in.
    let first = start_at + tick + Duration::from_millis(20);
    let mut ticks = tokio::time::interval_at(first, tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => gathered.take(message)?,
                None => break,
            },
            _ = ticks.tick() => progress(&gathered.progress()),
            () = &mut stop, if !interrupted => {
                interrupted = true;
                let _ = stop_all.send(true);
            }
        }
    }
    progress(&gathered.progress());
    let (report, log) = gathered.finish(started_unix_ms, interrupted)?;
    Ok(RunOutput {
        report,
        log,
        recording,
    })
}

fn spawn_thread(assignment: Assignment) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name(format!("loadtest-{}", assignment.thread))
        .spawn(move || {
            let tell = assignment.tell.clone();
            let lived = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(anyhow::Error::from)
                .and_then(|runtime| {
                    let tasks = tokio::task::LocalSet::new();
                    tasks.block_on(&runtime, thread::live(assignment))
                });
            if let Err(error) = lived {
                let _ = tell.send(Message::Failed(error));
            }
        })
        .context("cannot start a generator thread")?;
    Ok(())
}

/// What the threads told so far.
struct Gathered<'a> {
    scenario: &'a Scenario,
    plan: &'a Plan,
    start: Option<Instant>,
    recorder: Recorder,
    log: ClientLog,
    cpu: Option<ThreadCpu>,
    timeline: Timeline,
    total: Interval,
    recent: Interval,
    recent_since: Option<Instant>,
    finished_threads: usize,
    ended: Option<Instant>,
    notes: Vec<String>,
}

impl<'a> Gathered<'a> {
    fn new(scenario: &'a Scenario, plan: &'a Plan) -> Self {
        Gathered {
            scenario,
            plan,
            start: None,
            recorder: Recorder::new(),
            log: ClientLog::new(plan.purchases()),
            cpu: None,
            timeline: Timeline::default(),
            total: Interval::default(),
            recent: Interval::default(),
            recent_since: None,
            finished_threads: 0,
            ended: None,
            notes: Vec::new(),
        }
    }

    /// Waits until every thread has opened its connections.
    async fn connected(
        &mut self,
        messages: &mut mpsc::UnboundedReceiver<Message>,
        threads: usize,
    ) -> anyhow::Result<()> {
        let mut total = 0;
        let mut why = None;
        for _ in 0..threads {
            match messages.recv().await {
                Some(Message::Ready { opened, error }) => {
                    total += opened;
                    why = why.or(error);
                }
                Some(other) => self.take(other)?,
                None => bail!("a generator thread ended before it was ready"),
            }
        }
        if total == 0 {
            let why = why.unwrap_or_else(|| "no connection".into());
            bail!("no connection to {}: {why}", self.scenario.target.url);
        }
        if let Some(why) = why {
            self.notes
                .push(format!("only {total} connections could be opened: {why}"));
        }
        Ok(())
    }

    /// When to start: at once, or so that T0 falls on the wall-clock instant asked for.
    fn start_instant(&mut self, scenario: &Scenario, plan: &Plan) -> (i64, Instant) {
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        let mut ahead = START_AHEAD;
        if let Some(t0_ms) = scenario.profile.t0_unix_ms {
            let start_ms = t0_ms - (plan.t0_ns / 1_000_000) as i64;
            match u64::try_from(start_ms - now_ms) {
                Ok(wait_ms) => ahead = Duration::from_millis(wait_ms),
                Err(_) => self.notes.push(format!(
                    "t0_unix_ms asks for a start {} ms in the past; started at once",
                    now_ms - start_ms
                )),
            }
        }
        (now_ms + ahead.as_millis() as i64, Instant::now() + ahead)
    }

    fn take(&mut self, message: Message) -> anyhow::Result<()> {
        match message {
            Message::Ready { .. } => {}
            Message::Interval { index, interval } => {
                self.timeline.add(index, &interval);
                self.total.add(&interval);
                self.recent.add(&interval);
            }
            Message::Done(measured) => {
                let Measured { recorder, log, cpu } = *measured;
                self.recorder.merge(recorder);
                self.log.merge(log);
                if let Some(cpu) = cpu {
                    let sum = self.cpu.get_or_insert_default();
                    sum.used_ns += cpu.used_ns;
                    sum.waited_ns += cpu.waited_ns;
                }
                self.finished_threads += 1;
                self.ended = Some(Instant::now());
            }
            Message::Failed(error) => return Err(error.context("a generator thread failed")),
        }
        Ok(())
    }

    fn progress(&mut self) -> Progress {
        let now = self.ended.unwrap_or_else(Instant::now);
        let start = self.start.unwrap_or(now);
        let since = self.recent_since.replace(now).unwrap_or(start);
        let recent = std::mem::take(&mut self.recent);
        let width_s = now.saturating_duration_since(since).as_secs_f64().max(1e-3);
        Progress {
            elapsed: now.saturating_duration_since(start),
            length: Duration::from_nanos(self.plan.t0_ns + self.plan.length_ns),
            planned: self.total.planned,
            sent: self.total.sent,
            done: self.total.done,
            rps: recent.ended_total() as f64 / width_s,
            p99: Duration::from_micros(recent.latency.value_at_quantile(0.99)),
        }
    }

    fn finish(
        self,
        started_unix_ms: i64,
        interrupted: bool,
    ) -> anyhow::Result<(Report, ClientLog)> {
        if self.finished_threads < self.scenario.generator.threads {
            bail!("a generator thread ended without a result");
        }
        let start = self.start.context("the run never started")?;
        let wall = self
            .ended
            .unwrap_or_else(Instant::now)
            .saturating_duration_since(start);
        let report = Report::new(
            self.scenario,
            self.plan,
            Material {
                started_unix_ms,
                wall,
                recorder: &self.recorder,
                history: self.log.summary(),
                cpu: self.cpu,
                timeline: self.timeline.points(wall.as_secs_f64()),
                interrupted,
                notes: self.notes,
            },
        );
        Ok((report, self.log))
    }
}
