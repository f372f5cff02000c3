//! The store's folder: which files there are, what they are called, and the lock that keeps a second process out.
//!
//! `journal-N.log` holds the frames of generation N, `snapshot-N.bin` the state before the first of them. A file ending in `.tmp`
//! was never finished.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    faults::{FaultPoint, MaybeFaults, check},
    journal::RecoverError,
};

/// The journal of the first version, one file that only grew.
const OLD_JOURNAL: &str = "journal.log";
pub(super) const LOCK: &str = "journal.lock";
/// Together one second: far longer than a killed process was seen to keep the lock.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The folder of a store.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

/// What is in it, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) journals: Vec<u64>,
    pub(super) snapshots: Vec<u64>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn journal(&self, generation: u64) -> PathBuf {
        self.0.join(format!("journal-{generation:010}.log"))
    }

    pub(super) fn snapshot(&self, generation: u64) -> PathBuf {
        self.0.join(format!("snapshot-{generation:010}.bin"))
    }

    /// A snapshot that is being written.
    pub(super) fn unfinished(&self, generation: u64) -> PathBuf {
        self.0.join(format!("snapshot-{generation:010}.tmp"))
    }

    /// Makes the names in it survive a power cut, not only what is written under them.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    /// Takes the names of snapshots that cannot be read away from them: counted as the ones before the next, they would have the good
    /// one behind them deleted. They stay for an operator to look at.
    pub(super) fn put_aside(&self, generations: &[u64]) -> Result<(), RecoverError> {
        for &generation in generations {
            let path = self.snapshot(generation);
            let aside = path.with_extension("bin.damaged");
            std::fs::rename(&path, &aside).map_err(|source| RecoverError::Io { path, source })?;
        }
        let path = self.0.clone();
        self.sync_names()
            .map_err(|source| RecoverError::Io { path, source })
    }

    /// Makes the folder if it is missing and takes its lock. A killed process may hold it for a moment longer than it lives.
    pub(super) fn lock(&self, faults: &MaybeFaults) -> Result<File, RecoverError> {
        let path = self.0.join(LOCK);
        let at = |source| RecoverError::Io {
            path: path.clone(),
            source,
        };
        if !self.0.exists() {
            std::fs::create_dir_all(&self.0).map_err(at)?;
            // A power cut must not take the folder's own name, with all that is in it.
            let whole = std::path::absolute(&self.0).map_err(at)?;
            if let Some(parent) = whole.parent() {
                check(faults, FaultPoint::SyncFolderName).map_err(at)?;
                File::open(parent)
                    .and_then(|parent| parent.sync_all())
                    .map_err(at)?;
            }
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at)?;
        for attempt in 0..=LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => {
                    std::thread::sleep(LOCK_PAUSE)
                }
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(source)) => return Err(at(source)),
            }
        }
        Err(RecoverError::InUse { path })
    }

    /// Lists the store's files and deletes what was never finished. Refuses a folder of the first version.
    pub(super) fn clean(&self) -> Result<Content, RecoverError> {
        let at = |source| RecoverError::Io {
            path: self.0.clone(),
            source,
        };
        let old = self.0.join(OLD_JOURNAL);
        if old.exists() {
            return Err(RecoverError::Version {
                path: old,
                found: 1,
            });
        }
        let mut content = Content::default();
        for entry in std::fs::read_dir(&self.0).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with("snapshot-") && name.ends_with(".tmp") {
                std::fs::remove_file(entry.path()).map_err(at)?;
            } else if let Some(generation) = number(name, "journal-", ".log") {
                content.journals.push(generation);
            } else if let Some(generation) = number(name, "snapshot-", ".bin") {
                content.snapshots.push(generation);
            }
        }
        content.journals.sort_unstable();
        content.snapshots.sort_unstable();
        Ok(content)
    }
}

fn number(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    name.strip_prefix(prefix)?
        .strip_suffix(suffix)?
        .parse()
        .ok()
}
