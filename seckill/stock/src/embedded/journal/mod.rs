//! The journal: append-only files of frames, one frame a batch. See `format.rs` for the bytes.
//!
//! Frames go to the disk in order, and a sync covers all before it: an answer after one can rely on everything that was
//! written earlier, `fast` acceptances included. What is lost with a machine is a tail in which nothing was answered as durable.
//!
//! A failed write or sync does not lose a frame and does not apply half of one: frames stay in memory until a sync has covered
//! them, and [`Journal::mend`] writes them once more, into a new file. The failed file is never written again: after a failed
//! `fsync` the kernel may call pages clean that never reached the disk.

mod format;
mod plain;
mod recover;
mod uring;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    num::NonZeroU64,
    os::unix::fs::FileExt,
};

use rustix::{
    fs::{Advice, FallocateFlags, fadvise, fallocate},
    io::Errno,
};
use tokio::time::Instant;

use self::format::{FILE_HEADER, FileHeader, FrameHeader, MAX_BODY};
pub use self::recover::RecoverError;
pub(super) use self::{format::VERSION, recover::Progress};
use super::{
    faults::{FaultPoint, MaybeFaults, check},
    folder::Folder,
};

/// Room that is reserved at once, so that reserving costs one call in thousands of batches.
const RESERVE_STEP: u64 = 8 << 20;
/// Room that must be there before a batch is decided: its frame and then some.
const RESERVE_LEAST: u64 = 2 << 20;

/// What an acceptance waits for, where the sale does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// `fdatasync` before the answer: an answered order survives a power cut.
    Durable,
    /// The answer comes when the order is in the page cache, a sync follows a moment later: an answered order survives a crash of
    /// the process, not of the machine.
    Fast,
}

/// How frames reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// io_uring if the kernel and the container allow it, else `pwrite` + `fdatasync`.
    Auto,
    /// `pwrite` + `fdatasync`.
    Plain,
}

enum Writer {
    Uring(Box<uring::UringWriter>),
    Plain,
}

/// The open journal.
pub(super) struct Journal {
    folder: Folder,
    faults: MaybeFaults,
    file: File,
    generation: u64,
    writer: Writer,
    /// Where the next frame goes in the file.
    end: u64,
    /// Up to where the file system has promised room.
    reserved: u64,
    can_reserve: bool,
    /// Number of the next frame.
    sequence: u64,
    /// Every frame numbered below is on the disk, and where they end in this file.
    durable: u64,
    durable_end: u64,
    /// The frames from `durable` on, as they were written.
    unsynced: Vec<u8>,
    /// A write or a sync has failed: what the file holds behind `durable_end` is unknown.
    is_broken: bool,
    sync_seconds: metrics::Histogram,
    bytes_total: metrics::Counter,
}

/// Reads the files of these generations in order and opens the last one for appending; makes the first one if there is none.
pub(super) fn open(
    folder: &Folder,
    generations: &[u64],
    write_mode: WriteMode,
    faults: MaybeFaults,
    progress: &mut Progress,
    mut replay: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<Journal, RecoverError> {
    let mut last = None;
    for &generation in generations {
        let path = folder.journal(generation);
        let at = |source| RecoverError::Io {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(at)?;
        // A sync that failed in the process before may have left pages that look written: what is replayed is read from the disk.
        let length = file.metadata().map_err(at)?.len();
        forget_cached(&file, length).map_err(at)?;
        check(&faults, FaultPoint::Replay).map_err(at)?;
        let is_last = generations.last() == Some(&generation);
        let mut found = recover::read_file(&file, &path, generation, progress, &mut replay)?;
        if is_last {
            if found.torn > 0 {
                tracing::warn!(path = %path.display(), bytes = found.torn, offset = found.end, "journal tail was torn and is cut off");
            }
            // Also gives back the room that was reserved before a crash.
            file.set_len(found.end).map_err(at)?;
            if found.end == 0 {
                let header = FileHeader {
                    generation,
                    first: progress.next,
                };
                // At the start: what was read has moved the cursor.
                file.write_all_at(&header.encode(), 0).map_err(at)?;
                found.end = FILE_HEADER as u64;
            }
        }
        // What was replayed is answered from now on, so it must be as safe as an answer: a killed process may have written frames
        // that were never synced.
        file.sync_all().map_err(at)?;
        last = Some((file, generation, found.end));
    }
    let (file, generation, end) = match last {
        Some(last) => last,
        None => {
            let (generation, first) = (1, progress.next);
            let file = create(folder, generation, first, &[], &faults).map_err(|source| {
                RecoverError::Io {
                    path: folder.journal(generation),
                    source,
                }
            })?;
            (file, generation, FILE_HEADER as u64)
        }
    };
    // The names of files that a killed process made may not be on the disk yet.
    folder.sync_names().map_err(|source| RecoverError::Io {
        path: folder.path().to_owned(),
        source,
    })?;
    Ok(Journal {
        folder: folder.clone(),
        faults,
        writer: choose_writer(&file, write_mode),
        file,
        generation,
        end,
        reserved: 0,
        can_reserve: true,
        sequence: progress.next,
        durable: progress.next,
        durable_end: end,
        unsynced: Vec::with_capacity(64 << 10),
        is_broken: false,
        sync_seconds: metrics::histogram!("penstock_journal_sync_seconds"),
        bytes_total: metrics::counter!("penstock_journal_bytes_total"),
    })
}

/// Has the next reading of a file's first bytes come from the disk. Only a hint, but one that the kernel follows for clean pages; what
/// is dirty is not lost, and was not promised.
fn forget_cached(file: &File, length: u64) -> io::Result<()> {
    match NonZeroU64::new(length) {
        Some(length) => Ok(fadvise(file, 0, Some(length), Advice::DontNeed)?),
        None => Ok(()),
    }
}

/// Makes a journal file that begins with these frames; on the disk when this returns, name included.
fn create(
    folder: &Folder,
    generation: u64,
    first: u64,
    frames: &[u8],
    faults: &MaybeFaults,
) -> io::Result<File> {
    check(faults, FaultPoint::CreateJournal)?;
    let path = folder.journal(generation);
    // An earlier attempt may have left one behind. A new file, not the old one again: its pages may be the ones that failed.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.write_all(&FileHeader { generation, first }.encode())?;
    // The header first: a file that has frames behind a damaged header is corrupt.
    file.sync_all()?;
    if !frames.is_empty() {
        file.write_all(frames)?;
        file.sync_all()?;
    }
    check(faults, FaultPoint::SyncJournalName)?;
    folder.sync_names()?;
    Ok(file)
}

impl Journal {
    /// Makes sure that there is room for a batch. Call it before the batch is decided: an error here means that nothing was done.
    pub(super) fn reserve(&mut self) -> io::Result<()> {
        if !self.can_reserve || self.reserved >= self.end + RESERVE_LEAST {
            return Ok(());
        }
        check(&self.faults, FaultPoint::Reserve)?;
        let mut failed = None;
        for room in [RESERVE_STEP, RESERVE_LEAST] {
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end, room) {
                Ok(()) => {
                    self.reserved = self.end + room;
                    return Ok(());
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    tracing::warn!(
                        "the file system of the journal cannot reserve room: a full disk is noticed one batch late"
                    );
                    self.can_reserve = false;
                    return Ok(());
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Writes one frame. Not on the disk before [`Journal::sync`] has returned, unless `is_firm`.
    pub(super) fn append(&mut self, body: &[u8], clock_ms: u64, is_firm: bool) -> io::Result<()> {
        assert!(body.len() <= MAX_BODY, "the sequencer bounds its batches");
        let start = self.unsynced.len();
        FrameHeader::encode(
            &mut self.unsynced,
            self.sequence,
            self.durable,
            clock_ms,
            body,
        );
        self.sequence += 1;
        let written = self.write(start, is_firm);
        self.is_broken |= written.is_err();
        written
    }

    fn write(&mut self, start: usize, is_firm: bool) -> io::Result<()> {
        let frame = &self.unsynced[start..];
        if let Some(faults) = &self.faults
            && let Some((reached, error)) = faults.cut_write(frame.len())
        {
            plain::write(&self.file, self.end, &frame[..reached])?;
            return Err(error);
        }
        let started = Instant::now();
        match &mut self.writer {
            Writer::Uring(ring) if is_firm && ring.fits(frame) => {
                check(&self.faults, FaultPoint::Sync)?;
                let written = ring.write_and_sync(&self.file, self.end, frame, &self.faults);
                if !ring.is_usable() {
                    tracing::warn!(error = ?written, "io_uring failed; the journal goes on with pwrite and fdatasync");
                    self.writer = Writer::Plain;
                }
                written?;
            }
            _ => {
                plain::write(&self.file, self.end, frame)?;
                if is_firm {
                    check(&self.faults, FaultPoint::Sync)?;
                    plain::sync(&self.file)?;
                }
            }
        }
        self.end += frame.len() as u64;
        self.bytes_total.increment(frame.len() as u64);
        if is_firm {
            self.sync_seconds.record(started.elapsed().as_secs_f64());
            self.is_synced();
        }
        Ok(())
    }

    fn is_synced(&mut self) {
        self.durable = self.sequence;
        self.durable_end = self.end;
        self.unsynced.clear();
    }

    /// Brings everything that was appended to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.is_broken {
            // A sync that succeeds now proves nothing, and frames may be missing in the file.
            return Err(io::Error::other("the journal waits for being mended"));
        }
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let synced = check(&self.faults, FaultPoint::Sync).and_then(|()| plain::sync(&self.file));
        match synced {
            Ok(()) => {
                self.sync_seconds.record(started.elapsed().as_secs_f64());
                self.is_synced();
            }
            Err(_) => self.is_broken = true,
        }
        synced
    }

    /// Whether a write or a sync has failed and was not mended.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Bytes that were appended and are not known to be on the disk.
    pub(super) fn unsynced_bytes(&self) -> usize {
        self.unsynced.len()
    }

    /// After a failure: makes sure, past the page cache, that the failed file still holds what was promised, and writes the rest
    /// into a new file. When this returns, everything that was ever appended is on the disk, once.
    pub(super) fn mend(&mut self) -> Result<(), RecoverError> {
        self.verify()?;
        let generation = self.generation + 1;
        let at = |source| RecoverError::Io {
            path: self.folder.journal(generation),
            source,
        };
        let file = create(
            &self.folder,
            generation,
            self.durable,
            &self.unsynced,
            &self.faults,
        )
        .map_err(at)?;
        self.switch(file, generation, FILE_HEADER + self.unsynced.len());
        self.is_synced();
        self.is_broken = false;
        Ok(())
    }

    /// Reads the promised frames of the current file again, from the disk.
    fn verify(&self) -> Result<(), RecoverError> {
        let path = self.folder.journal(self.generation);
        let at = |source| RecoverError::Io {
            path: path.clone(),
            source,
        };
        check(&self.faults, FaultPoint::Verify).map_err(at)?;
        let file = File::open(&path).map_err(at)?;
        forget_cached(&file, self.durable_end).map_err(at)?;
        // Numbers below the first of this file are in older ones: `u64::MAX` switches the check for gaps off.
        let mut progress = Progress {
            next: u64::MAX,
            clock_ms: 0,
        };
        let found = recover::read_file(&file, &path, self.generation, &mut progress, |_| Ok(()))?;
        if found.end < self.durable_end {
            return Err(RecoverError::Corrupt {
                path,
                offset: found.end,
                detail: format!(
                    "frames up to byte {} were on the disk and cannot be read back",
                    self.durable_end
                ),
            });
        }
        Ok(())
    }

    /// Begins the next file. Everything that was appended is synced first: the new file says so.
    pub(super) fn rotate(&mut self) -> io::Result<u64> {
        self.sync()?;
        let generation = self.generation + 1;
        let file = create(&self.folder, generation, self.sequence, &[], &self.faults)?;
        self.switch(file, generation, FILE_HEADER);
        self.durable_end = self.end;
        Ok(generation)
    }

    fn switch(&mut self, file: File, generation: u64, end: usize) {
        self.give_back();
        if let Writer::Uring(ring) = &mut self.writer
            && let Err(error) = ring.switch(&file)
        {
            tracing::warn!(%error, "io_uring did not take the next journal file; the journal goes on with pwrite and fdatasync");
            self.writer = Writer::Plain;
        }
        self.file = file;
        self.generation = generation;
        self.end = end as u64;
        self.reserved = 0;
    }

    /// Gives the room back that was reserved and not used. What cannot be given back now is by the next start.
    fn give_back(&self) {
        if !self.is_broken {
            let _ = self.file.set_len(self.end);
        }
    }

    /// The generation of the current file.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes in the current file.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Number of the next frame.
    pub(super) fn next(&self) -> u64 {
        self.sequence
    }

    /// Whether appends go through io_uring.
    pub(super) fn uses_io_uring(&self) -> bool {
        matches!(self.writer, Writer::Uring(_))
    }
}

impl Drop for Journal {
    /// A clean stop leaves nothing to lose, also of `fast` sales.
    fn drop(&mut self) {
        if !self.is_broken {
            if let Err(error) = self.sync() {
                tracing::error!(%error, "the journal was not synced at the end");
            }
            self.give_back();
        }
    }
}

fn choose_writer(file: &File, write_mode: WriteMode) -> Writer {
    if write_mode == WriteMode::Plain {
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

#[cfg(test)]
mod tests;
