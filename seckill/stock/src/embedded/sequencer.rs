//! The single writer: runs jobs in order, writes one frame per batch, answers after it.
//!
//! A batch in which something must be durable is answered after its sync; acceptances of `fast` sales in it already after the
//! write. Room is reserved before a batch is decided, so a full disk refuses purchases before anything has happened. A write or a
//! sync that fails all the same is mended (see [`super::journal`]) before anything is answered, or else answered as unknown.

use std::{fs::File, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    Options, Tuning,
    clock::ClockGuard,
    engine::{AckLevel, Engine},
    folder::Folder,
    health::{Health, Reporter, Shared},
    journal::{Journal, RecoverError},
    replay,
    snapshot::Capture,
    snapshot_writer::{SnapshotJob, SnapshotWriter},
};
use crate::{StockError, clock::WallClock};

/// Runs on the sequencer, or learns why it may not; what it returns is called when the batch is durable, or with the reason why
/// it is not.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Engine, StockError>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StockError>) + Send>;

/// Jobs that share one frame at most. A job is itself a batch of purchases, so this is far beyond what waits in practice.
const JOBS_PER_FRAME: usize = 1024;
/// A frame is closed when its body passes this; the journal's registered buffer is twice as large.
const FRAME_SOFT_LIMIT: usize = 512 << 10;
/// What is answered before its sync is synced so soon: the bound of what a power cut takes from a `fast` sale.
const SYNC_WITHIN: Duration = Duration::from_millis(100);
/// Or when so much waits for a sync; it is kept in memory until then.
const UNSYNCED_MAX: usize = 4 << 20;
/// A failed disk is tried again so often.
const MEND_EVERY: Duration = Duration::from_millis(500);
/// Ended windows and forgotten sales are looked for so often.
const CARE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Sequencer {
    engine: Engine,
    journal: Journal,
    snapshot_writer: SnapshotWriter,
    clock: WallClock,
    guard: Option<ClockGuard>,
    tuning: Tuning,
    reporter: Reporter,
    /// For waiting with a deadline.
    runtime: Runtime,
    started: Instant,
    /// When what was appended must be synced.
    sync_by: Option<Instant>,
    mend_at: Instant,
    care_at: Instant,
    /// The store's time when windows were last looked at.
    cared_ms: u64,
    /// The current file is not rotated below this size: raised after a failed attempt.
    rotate_from: u64,
    pause_seconds: metrics::Histogram,
    batch_size: metrics::Histogram,
    /// Last: the next holder of the lock must find all of the above at rest.
    _lock: File,
}

impl Sequencer {
    pub(super) fn open(
        options: &Options,
        tuning: Tuning,
        clock: WallClock,
        shared: Shared,
    ) -> Result<Self, RecoverError> {
        let began = Instant::now();
        let recovered = replay::recover(options, tuning.faults.clone())?;
        let (engine, journal) = (recovered.engine, recovered.journal);
        let at_folder = |source| RecoverError::Io {
            path: options.folder.clone(),
            source,
        };
        let snapshot_writer = SnapshotWriter::start(
            Folder::new(&options.folder),
            tuning.faults.clone(),
            recovered.snapshot_bytes,
        );
        let snapshot_writer = snapshot_writer.map_err(at_folder)?;
        let runtime = Builder::new_current_thread().enable_time().build();
        metrics::gauge!("penstock_store_replay_seconds").set(began.elapsed().as_secs_f64());
        tracing::info!(
            segments = engine.segments().len(),
            orders = engine.accepted(),
            seconds = began.elapsed().as_secs_f64(),
            io_uring = journal.uses_io_uring(),
            "store read"
        );
        Ok(Self {
            engine,
            journal,
            snapshot_writer,
            clock,
            guard: tuning
                .guards_clock
                .then(|| ClockGuard::new(recovered.clock_ms)),
            reporter: Reporter::new(shared),
            rotate_from: tuning.snapshot_every,
            tuning,
            runtime: runtime.map_err(at_folder)?,
            started: began,
            sync_by: None,
            mend_at: began,
            care_at: began,
            cared_ms: recovered.clock_ms,
            pause_seconds: metrics::histogram!("penstock_snapshot_pause_seconds"),
            batch_size: metrics::histogram!("penstock_sale_batch_size"),
            _lock: recovered.lock,
        })
    }

    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = self.next_job(&mut jobs) {
            if self.journal.is_broken()
                && let Err(refusal) = self.mend()
            {
                first(Err(refusal))(Ok(()));
                continue;
            }
            self.batch(first, &mut jobs);
            if self.sync_by.is_some_and(|by| by <= Instant::now()) {
                self.sync_loose();
            }
            self.rotate_when_due();
        }
    }

    /// Waits for a job; syncs in time what was answered before its sync. `None`: all handles are gone.
    fn next_job(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        while let Some(by) = self.sync_by {
            match self
                .runtime
                .block_on(async { timeout_at(by, jobs.recv()).await })
            {
                Ok(job) => return job,
                Err(_) => self.sync_loose(),
            }
        }
        jobs.blocking_recv()
    }

    fn batch(&mut self, first: Job, jobs: &mut mpsc::Receiver<Job>) {
        let now_ms = self.read_clock();
        let refusing = self.journal.reserve().err().map(|error| {
            self.reporter.degraded(Health::Full, &error);
            StockError::Unavailable(format!("there is no room for the journal: {error}"))
        });
        if refusing.is_none() {
            self.reporter.healthy();
        }
        let can_write = refusing.is_none();
        self.engine.begin(now_ms, refusing);
        if can_write {
            self.care(now_ms);
        }
        let mut overall = self.engine.take_ack_level();
        let mut answers: Vec<(Answer, AckLevel)> = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let answer = job(Ok(&mut self.engine));
            let ack_level = self.engine.take_ack_level();
            overall = overall.max(ack_level);
            answers.push((answer, ack_level));
            if answers.len() < JOBS_PER_FRAME && self.engine.body().len() < FRAME_SOFT_LIMIT {
                next = jobs.try_recv().ok();
            }
        }
        if self.engine.purchases() > 0 {
            self.batch_size.record(self.engine.purchases() as f64);
        }
        let outcome = self.write(overall, now_ms, &mut answers);
        for (answer, ack_level) in answers {
            answer(match (&outcome, ack_level) {
                (Ok(()), _) => Ok(()),
                (Err(error), AckLevel::Read) => Err(StockError::Unavailable(error.clone())),
                // The frame may be on the disk, whole or in part: it is written again when that is possible, and read back by a
                // restart if it can be. Either way it happens once or not at all.
                (Err(error), _) => Err(StockError::Unknown(error.clone())),
            });
        }
    }

    /// Brings the batch's frame as far as its jobs ask for. Answers early who need not wait for the sync, and takes them out.
    fn write(
        &mut self,
        overall: AckLevel,
        now_ms: u64,
        answers: &mut Vec<(Answer, AckLevel)>,
    ) -> Result<(), String> {
        if overall == AckLevel::Read {
            return Ok(());
        }
        let is_mixed = answers
            .iter()
            .any(|(_, ack_level)| *ack_level == AckLevel::Loose);
        let is_firm = overall == AckLevel::Firm;
        let mut written = self
            .journal
            .append(self.engine.body(), now_ms, is_firm && !is_mixed);
        if written.is_ok() && is_mixed && is_firm {
            let (early, late) = std::mem::take(answers)
                .into_iter()
                .partition(|(_, ack_level)| *ack_level == AckLevel::Loose);
            *answers = late;
            let early: Vec<(Answer, AckLevel)> = early;
            for (answer, _) in early {
                answer(Ok(()));
            }
            written = self.journal.sync();
        }
        if let Err(error) = written {
            // Most failures pass: try once more at once, in a new file, before anybody is told.
            self.sync_by = None;
            self.mend_at = Instant::now();
            self.mend().map_err(|_| format!("journal: {error}"))?;
        }
        self.after_append();
        Ok(())
    }

    fn after_append(&mut self) {
        match self.journal.unsynced_bytes() {
            0 => {
                self.sync_by = None;
                self.engine.mark_synced();
            }
            bytes if bytes >= UNSYNCED_MAX => self.sync_by = Some(Instant::now()),
            _ => {
                self.sync_by.get_or_insert(Instant::now() + SYNC_WITHIN);
            }
        }
    }

    fn sync_loose(&mut self) {
        self.sync_by = None;
        if let Err(error) = self.journal.sync() {
            self.reporter.degraded(Health::Broken, &error);
            self.mend_at = Instant::now();
            if self.mend().is_err() {
                return;
            }
        }
        self.engine.mark_synced();
    }

    /// Tries to get over a failed write or sync. `Err` is what callers are told meanwhile.
    fn mend(&mut self) -> Result<(), StockError> {
        let refusal = |error: &dyn std::fmt::Display| {
            StockError::Unavailable(format!("the journal has failed: {error}"))
        };
        if Instant::now() < self.mend_at {
            return Err(refusal(&"its disk is tried again in a moment"));
        }
        self.mend_at = Instant::now() + MEND_EVERY;
        match self.journal.mend() {
            Ok(()) => {
                tracing::warn!(
                    generation = self.journal.generation(),
                    "the journal goes on in a new file after a failed write"
                );
                self.reporter.healthy();
                self.sync_by = None;
                self.engine.mark_synced();
                Ok(())
            }
            Err(error) => {
                let health = match error {
                    RecoverError::Corrupt { .. } => Health::Lost,
                    _ => Health::Broken,
                };
                self.reporter.degraded(health, &error);
                Err(refusal(&error))
            }
        }
    }

    fn read_clock(&mut self) -> u64 {
        let wall_ms = (self.clock)();
        let Some(guard) = &mut self.guard else {
            return wall_ms;
        };
        let monotonic_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now_ms = guard.read(wall_ms, monotonic_ms);
        self.reporter.clock(guard.skew());
        now_ms
    }

    /// Once a second: writes the time down when a window has ended since, so that a restart with a clock that was set back cannot
    /// open it again; and forgets sales that are long over.
    fn care(&mut self, now_ms: u64) {
        if Instant::now() < self.care_at {
            return;
        }
        self.care_at = Instant::now() + CARE_EVERY;
        self.engine.note_ended(self.cared_ms, now_ms);
        self.cared_ms = now_ms;
        self.engine.retire(self.tuning.retain_ended);
    }

    /// Begins a new journal file, and the snapshot before it, when the current file has grown enough. This is all that a snapshot
    /// costs the sequencer: two syncs of a file with a header, and one reference for each few thousand orders.
    fn rotate_when_due(&mut self) {
        let due = self.rotate_from.max(self.snapshot_writer.bytes());
        if self.journal.bytes() < due || self.journal.is_broken() || self.snapshot_writer.is_busy()
        {
            return;
        }
        let began = Instant::now();
        let generation = match self.journal.rotate() {
            Ok(generation) => generation,
            Err(error) => {
                tracing::error!(%error, "the next journal file was not made; the current one goes on");
                // Not again with every batch.
                self.rotate_from = self.journal.bytes() + self.tuning.snapshot_every / 8;
                return;
            }
        };
        self.rotate_from = self.tuning.snapshot_every;
        self.after_append();
        let capture = Capture {
            next: self.journal.next(),
            clock_ms: self.engine.now_ms(),
            segments: self.engine.freeze_all(),
        };
        self.snapshot_writer.begin(SnapshotJob {
            capture,
            generation,
        });
        self.pause_seconds.record(began.elapsed().as_secs_f64());
    }
}
