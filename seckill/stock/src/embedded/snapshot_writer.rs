//! Writes snapshots beside the sequencer, on a thread of its own, and deletes what they replace.
//!
//! The sequencer hands over a [`Capture`], which shares the running store's data, and goes on. A snapshot counts when it has its
//! name; until then, and whatever happens to it, the journal holds everything. The snapshot before the newest one and the journal
//! behind it are kept: a snapshot that turns out to be damaged costs a longer start, not orders.

use std::{
    fs::File,
    io::{self, BufWriter},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use tokio::time::Instant;

use super::{
    faults::{FaultPoint, MaybeFaults, check},
    folder::Folder,
    snapshot::{self, Capture},
};

/// A snapshot to be written: the state before the first frame of this generation.
pub(super) struct SnapshotJob {
    pub(super) capture: Capture,
    pub(super) generation: u64,
}

/// The sequencer's end.
pub(super) struct SnapshotWriter {
    work: Option<mpsc::Sender<SnapshotJob>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_busy: AtomicBool,
    is_stopping: AtomicBool,
    /// Size of the newest snapshot.
    bytes: AtomicU64,
}

impl SnapshotWriter {
    /// Starts the thread. `bytes` is the size of the snapshot that the store was started from.
    pub(super) fn start(folder: Folder, faults: MaybeFaults, bytes: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bytes: AtomicU64::new(bytes),
            ..Shared::default()
        });
        // There from the start, so that a first failure is a step from 0 and not a series that appears.
        metrics::counter!("penstock_snapshot_failures_total").increment(0);
        metrics::counter!("penstock_snapshot_fallbacks_total").increment(0);
        metrics::gauge!("penstock_snapshot_bytes").set(bytes as f64);
        let _ = metrics::histogram!("penstock_snapshot_seconds");
        let (work, waiting) = mpsc::channel::<SnapshotJob>();
        let told = shared.clone();
        let thread = std::thread::Builder::new()
            .name("snapshots".into())
            .spawn(move || {
                for work in waiting {
                    write_one(&folder, &faults, &told, &work);
                    // The capture's chunks are given back before the next one may be asked for.
                    drop(work);
                    told.is_busy.store(false, Ordering::Release);
                }
            })?;
        Ok(Self {
            work: Some(work),
            shared,
            thread: Some(thread),
        })
    }

    /// Whether a snapshot is being written.
    pub(super) fn is_busy(&self) -> bool {
        self.shared.is_busy.load(Ordering::Acquire)
    }

    /// Size of the newest snapshot.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Hands a capture over. Ask [`SnapshotWriter::is_busy`] first.
    pub(super) fn begin(&self, work: SnapshotJob) {
        self.shared.is_busy.store(true, Ordering::Release);
        if let Some(queue) = &self.work {
            // The thread ends only when this end is dropped.
            let _ = queue.send(work);
        }
    }
}

impl Drop for SnapshotWriter {
    /// Stops a snapshot that is being written: the journal holds what it would have.
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            // It has panicked or ended; either way it writes no more.
            let _ = thread.join();
        }
    }
}

fn write_one(folder: &Folder, faults: &MaybeFaults, shared: &Shared, work: &SnapshotJob) {
    let started = Instant::now();
    match keep(folder, faults, shared, work) {
        Ok(bytes) => {
            shared.bytes.store(bytes, Ordering::Relaxed);
            metrics::gauge!("penstock_snapshot_bytes").set(bytes as f64);
            metrics::histogram!("penstock_snapshot_seconds")
                .record(started.elapsed().as_secs_f64());
            tracing::info!(
                generation = work.generation,
                bytes,
                "snapshot written, older journals deleted"
            );
        }
        Err(_) if shared.is_stopping.load(Ordering::Relaxed) => {}
        Err(error) => {
            metrics::counter!("penstock_snapshot_failures_total").increment(1);
            tracing::error!(%error, generation = work.generation, "no snapshot was written; the journal grows until one is");
            // A full disk needs the room; a name that was given keeps its file.
            let _ = std::fs::remove_file(folder.unfinished(work.generation));
        }
    }
}

/// Writes a snapshot, which counts when it has its name. `step` may end the writing.
pub(super) fn put(
    folder: &Folder,
    faults: &MaybeFaults,
    generation: u64,
    capture: &Capture,
    mut step: impl FnMut() -> io::Result<()>,
) -> io::Result<u64> {
    let unfinished = folder.unfinished(generation);
    let file = File::create(&unfinished)?;
    let out = BufWriter::with_capacity(1 << 20, &file);
    let bytes = snapshot::write(capture, out, |_| step())?;
    check(faults, FaultPoint::SyncSnapshot)?;
    file.sync_all()?;
    check(faults, FaultPoint::RenameSnapshot)?;
    std::fs::rename(&unfinished, folder.snapshot(generation))?;
    check(faults, FaultPoint::SyncSnapshotName)?;
    folder.sync_names()?;
    Ok(bytes)
}

fn keep(
    folder: &Folder,
    faults: &MaybeFaults,
    shared: &Shared,
    work: &SnapshotJob,
) -> io::Result<u64> {
    let step = || match shared.is_stopping.load(Ordering::Relaxed) {
        true => Err(io::ErrorKind::Interrupted.into()),
        false => check(faults, FaultPoint::WriteSnapshot),
    };
    let bytes = put(folder, faults, work.generation, &work.capture, step)?;
    delete_older(folder, faults, work.generation)?;
    Ok(bytes)
}

/// Deletes what neither this snapshot nor the one before it needs.
fn delete_older(folder: &Folder, faults: &MaybeFaults, newest: u64) -> io::Result<()> {
    let content = folder.clean().map_err(io::Error::other)?;
    let before = content
        .snapshots
        .iter()
        .rev()
        .find(|&&found| found < newest);
    let Some(&before) = before else { return Ok(()) };
    let is_old = |generation: &&u64| **generation < before;
    let snapshots = content.snapshots.iter().filter(is_old);
    let journals = content.journals.iter().filter(is_old);
    let paths = snapshots
        .map(|&generation| folder.snapshot(generation))
        .chain(journals.map(|&generation| folder.journal(generation)));
    for path in paths {
        check(faults, FaultPoint::Delete)?;
        std::fs::remove_file(path)?;
    }
    folder.sync_names()
}
