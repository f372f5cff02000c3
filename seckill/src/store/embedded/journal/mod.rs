//! The journal: an append-only file of frames, one frame a batch, durable before any answer leaves.
//!
//! A frame is `magic: u32, length: u32, crc32: u32, sequence: u64, body`; the checksum covers sequence and body. Frame n + 1 is
//! written only after frame n is on the disk. So a damaged last frame is a write that never finished (nobody was answered) and
//! is cut off, while a damaged frame with a good one behind it can only be corruption, and is refused.

mod plain;
mod recover;
mod uring;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

pub use recover::RecoverError;

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"PSJ2");
pub(super) const HEADER_LEN: usize = 20;
/// Together one second: far longer than a killed process's ring was seen to keep the lock.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Longest body of one frame; the sequencer ends a batch well before it.
pub(super) const MAX_BODY: usize = 64 << 20;

/// Whether an append waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// `fdatasync` after every batch: an answered order survives a power cut.
    Durable,
    /// Written to the page cache only: an answered order survives a crash of the process, not of the machine.
    Fast,
}

/// How frames reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// io_uring if the kernel and the container allow it, else `pwrite` + `fdatasync`.
    Auto,
    /// `pwrite` + `fdatasync`.
    Plain,
}

enum Writer {
    Uring(Box<uring::UringWriter>),
    Plain,
}

/// An open journal, locked against a second process.
pub(super) struct Journal {
    file: File,
    writer: Writer,
    sync: Sync,
    /// Where the next frame goes.
    end: u64,
    sequence: u64,
    frame: Vec<u8>,
    sync_seconds: metrics::Histogram,
    bytes_total: metrics::Counter,
}

impl Journal {
    /// Opens (or makes) `<folder>/journal.log`, hands every record batch in it to `replay`, and cuts a torn tail off.
    pub(super) fn open(
        folder: &Path,
        sync: Sync,
        method: Method,
        replay: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Self, RecoverError> {
        let path: PathBuf = folder.join("journal.log");
        let at = |source: io::Error| RecoverError::Io {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(at)?;
        let is_new = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at)?;
        lock(&file, &path)?;
        if is_new {
            // The name itself must survive a power cut, not only what is written under it.
            File::open(folder)
                .and_then(|dir| dir.sync_all())
                .map_err(at)?;
        }
        let recovered = recover::recover(&file, &path, sync, replay)?;
        if recovered.torn_bytes > 0 {
            tracing::warn!(path = %path.display(), bytes = recovered.torn_bytes, offset = recovered.end, "journal tail was torn and is cut off");
            file.set_len(recovered.end).map_err(at)?;
        }
        // What was replayed is answered from now on, so it must be as safe as an answer: a killed process may have written frames
        // that were never synced.
        file.sync_all().map_err(at)?;
        Ok(Self {
            writer: choose_writer(&file, method),
            file,
            sync,
            end: recovered.end,
            sequence: recovered.frames,
            frame: Vec::with_capacity(64 << 10),
            sync_seconds: metrics::histogram!("penstock_journal_sync_seconds"),
            bytes_total: metrics::counter!("penstock_journal_bytes_total"),
        })
    }

    /// Appends one batch and returns when it is as safe as [`Sync`] says. After an error the journal must not be used again: the
    /// file may end in a torn frame, which the next open cuts off.
    pub(super) fn append(&mut self, body: &[u8]) -> io::Result<()> {
        assert!(body.len() <= MAX_BODY, "the sequencer bounds its batches");
        self.frame.clear();
        self.frame.extend_from_slice(&MAGIC.to_le_bytes());
        self.frame
            .extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.frame
            .extend_from_slice(&checksum(self.sequence, body).to_le_bytes());
        self.frame.extend_from_slice(&self.sequence.to_le_bytes());
        self.frame.extend_from_slice(body);

        let started = Instant::now();
        match (&mut self.writer, self.sync) {
            (Writer::Uring(ring), Sync::Durable) if ring.fits(&self.frame) => {
                ring.write_and_sync(&self.file, self.end, &self.frame)?;
            }
            (_, sync) => plain::write(&self.file, self.end, &self.frame, sync)?,
        }
        self.sync_seconds.record(started.elapsed().as_secs_f64());
        self.bytes_total.increment(self.frame.len() as u64);
        self.end += self.frame.len() as u64;
        self.sequence += 1;
        Ok(())
    }

    /// Whether appends go through io_uring.
    pub(super) fn uses_io_uring(&self) -> bool {
        matches!(self.writer, Writer::Uring(_))
    }
}

impl Drop for Journal {
    /// The kernel lets go of a ring's registered file some time after the ring is dropped; the lock must not wait for that.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Takes the lock. A killed process may hold it for a moment longer than it lives, while the kernel tears its ring down.
fn lock(file: &File, path: &Path) -> Result<(), RecoverError> {
    for attempt in 0..=LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => {
                std::thread::sleep(LOCK_PAUSE)
            }
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(source)) => {
                return Err(RecoverError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
    Err(RecoverError::InUse {
        path: path.to_owned(),
    })
}

fn choose_writer(file: &File, method: Method) -> Writer {
    if method == Method::Plain {
        return Writer::Plain;
    }
    match uring::UringWriter::try_new(file) {
        Ok(ring) => Writer::Uring(Box::new(ring)),
        Err(error) => {
            tracing::warn!(%error, "io_uring is not available, the journal uses pwrite and fdatasync");
            Writer::Plain
        }
    }
}

fn checksum(sequence: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
