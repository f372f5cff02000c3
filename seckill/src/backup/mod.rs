//! Backups of a single node, the embedded store and its SQLite ledger together, and how one is put back.
//!
//! A backup is a folder: `ledger.db`, `store.snapshot`, and `manifest.json`, which is written last and has the checksums. What
//! makes the two files one instant: calls that the ledger causes in the store (acknowledgements, releases, payments, restocks,
//! moves, openings) wait while first the ledger's and then the store's instant is taken; purchases go on. So
//! - every order that the ledger's copy has is in the store's, which is the later one: nothing is sold twice;
//! - every acknowledgement, release and payment that the store's copy has is in the ledger's: nothing that was settled is lost;
//! - what was accepted in between is in the store's copy only, unacknowledged, and is settled after the restore.

mod install;
mod manifest;
mod routes;
mod take;

pub use self::{
    install::{Restored, restore, restore_on},
    manifest::{FileSum, Manifest, read_manifest, verify},
    routes::{Backups, router},
    take::{Progress, take},
};

/// Why a backup was not taken or not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Only one file database has a copy at one instant here. The operator uses the database's own tools.
    #[error("{0}")]
    NotHere(String),
    /// Something is there already. Nothing is ever overwritten: name another folder.
    #[error("{0} exists already: nothing is overwritten, name another place")]
    Exists(std::path::PathBuf),
    /// An earlier restore of this ledger has not ended, and put its store elsewhere. The operator repeats that one, or deletes both and
    /// the mark.
    #[error("a restore has not ended, its store is in {folder}: restore into that folder again, or delete what is there, the ledger and {}", mark.display())]
    Unfinished {
        /// The file that says so.
        mark: std::path::PathBuf,
        /// Where its store is.
        folder: String,
    },
    /// The folder is no whole backup, or not the one that was written.
    #[error("{}: {detail}", path.display())]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The operating system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The ledger's copy failed.
    #[error("ledger: {0}")]
    Ledger(String),
    /// The store gave no answer.
    #[error("store: {0}")]
    Store(#[from] stock::StockError),
    /// The store's copy cannot be used.
    #[error(transparent)]
    Image(#[from] stock::embedded::RecoverError),
}

/// Maps an error of the operating system onto its file.
fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { path, source }
}

/// The file of a SQLite ledger.
pub fn ledger_file(url: &str) -> Result<std::path::PathBuf, BackupError> {
    let path = url.strip_prefix("sqlite:").map(|path| {
        let path = path.strip_prefix("//").unwrap_or(path);
        path.split('?').next().unwrap_or_default()
    });
    match path {
        Some(path) if !path.is_empty() && !path.contains(":memory:") => Ok(path.into()),
        _ => Err(BackupError::NotHere(
            "backups here are for a SQLite ledger in a file; use pg_dump or a base backup for PostgreSQL"
                .to_owned(),
        )),
    }
}
