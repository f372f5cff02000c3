//! What a backup says about itself, and whether its files are what was written.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::{BackupError, at};

/// The only format so far.
const FORMAT: u32 = 1;
/// Written last: a folder without it is no backup.
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const LEDGER: &str = "ledger.db";
pub(super) const STORE: &str = "store.snapshot";

/// The whole manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of the folder.
    pub format: u32,
    /// Version of the program that wrote it.
    pub written_by: String,
    /// The instant, unix milliseconds.
    pub taken_at_ms: u64,
    /// The copy of the order ledger.
    pub ledger: FileSum,
    /// The copy of the stock store.
    pub store: FileSum,
    /// Segments in the store.
    pub segments: u64,
    /// Orders that the store had accepted.
    pub accepted: u64,
    /// Of these, orders that the ledger need not have yet.
    pub unsettled: u64,
}

/// Size and checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSum {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl FileSum {
    /// Reads a file to its end. `step` hears how many bytes were read each time.
    pub(super) fn of(path: &Path, mut step: impl FnMut(u64)) -> Result<Self, BackupError> {
        let mut file = File::open(path).map_err(at(path))?;
        let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; 1 << 20]);
        let mut bytes = 0;
        loop {
            let count = file.read(&mut buffer).map_err(at(path))?;
            if count == 0 {
                break;
            }
            context.update(&buffer[..count]);
            bytes += count as u64;
            step(count as u64);
        }
        Ok(Self {
            bytes,
            sha256: hex::encode(context.finish()),
        })
    }
}

impl Manifest {
    pub(super) fn format() -> u32 {
        FORMAT
    }
}

/// Reads the manifest of a backup.
pub fn read_manifest(folder: &Path) -> Result<Manifest, BackupError> {
    let path = folder.join(MANIFEST);
    let damaged = |detail: String| BackupError::Damaged {
        path: path.clone(),
        detail,
    };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged(
                "is not there: the folder is no backup, or one that was never finished".to_owned(),
            ));
        }
        Err(error) => return Err(at(&path)(error)),
    };
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    match manifest.format {
        FORMAT => Ok(manifest),
        other => Err(damaged(format!(
            "has format {other}, this program reads {FORMAT}"
        ))),
    }
}

/// Reads the manifest and compares both files with it.
pub fn verify(folder: &Path) -> Result<Manifest, BackupError> {
    let manifest = read_manifest(folder)?;
    for (name, expected) in [(LEDGER, &manifest.ledger), (STORE, &manifest.store)] {
        let path: PathBuf = folder.join(name);
        let found = FileSum::of(&path, |_| ())?;
        if found != *expected {
            return Err(BackupError::Damaged {
                path,
                detail: format!(
                    "has {} bytes and SHA-256 {}, the manifest says {} and {}",
                    found.bytes, found.sha256, expected.bytes, expected.sha256
                ),
            });
        }
    }
    Ok(manifest)
}
