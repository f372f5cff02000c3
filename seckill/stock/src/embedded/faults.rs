//! Where tests make the disk fail. In production there is no [`Faults`], and each point costs one comparison.

use std::{io, sync::Arc};

/// A step of the store's work on the disk, named by what is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultPoint {
    /// A new folder's own name is synced.
    SyncFolderName,
    /// A journal file is read at a start; what was cached of it is forgotten.
    Replay,
    /// Room for the next frames is reserved.
    Reserve,
    /// The journal is synced.
    Sync,
    /// A frame and its sync are handed to the kernel through io_uring.
    SubmitRing,
    /// A failed journal file is read back.
    Verify,
    /// A new journal file is made.
    CreateJournal,
    /// A new journal file has its header, but its name is not synced yet.
    SyncJournalName,
    /// A block of a snapshot is written.
    WriteSnapshot,
    /// A whole snapshot is synced, still under its temporary name.
    SyncSnapshot,
    /// A synced snapshot gets its name.
    RenameSnapshot,
    /// A named snapshot's folder is synced.
    SyncSnapshotName,
    /// An old file is deleted.
    Delete,
    /// A restore says that it has begun.
    MarkRestore,
    /// A restore copies the ledger, still under a temporary name.
    CopyLedger,
    /// The copied ledger has its new epochs and gets its name.
    RenameLedger,
    /// A restore opens what it has put in place.
    OpenRestored,
    /// A restore says that it has ended.
    UnmarkRestore,
}

/// A disk that fails on command. Failing a step of the snapshot leaves the folder as a crash at that point would.
pub trait Faults: Send + Sync + 'static {
    /// Fails the step, or lets it happen.
    fn at(&self, point: FaultPoint) -> io::Result<()>;

    /// Fails the writing of a frame of `length` bytes after some of them have reached the file.
    fn cut_write(&self, length: usize) -> Option<(usize, io::Error)>;
}

/// The faults of a store, usually none.
pub type MaybeFaults = Option<Arc<dyn Faults>>;

/// Fails the step where a test wants it to.
pub fn check(faults: &MaybeFaults, point: FaultPoint) -> io::Result<()> {
    match faults {
        None => Ok(()),
        Some(faults) => faults.at(point),
    }
}
