//! Putting a backup back into places that are empty: verified before, under a new epoch, compared after.
//!
//! The restored node begins a line of its own. What was accepted after the backup is not in it: those orders are gone, their
//! buyers are told that there is no such order, and the same request buys anew. The epoch of every segment is raised in store
//! and ledger, so that nothing that was said before (a position, a call of another process) is taken for the present.
//!
//! The two cannot be put in place at one instant, so a mark beside the ledger says from before the first file until after the last
//! check that the restore has not ended. While it is there nobody opens the ledger ([`crate::ledger::connect`]), and the same restore
//! begins anew.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use stock::{
    StockStore,
    embedded::{
        self, EmbeddedStore, Options, SyncPolicy, WriteMode,
        faults::{self, FaultPoint, Faults},
    },
};

use super::{
    BackupError, Manifest, at, manifest,
    manifest::{LEDGER, STORE},
};
use crate::{
    clock::WallClock,
    ids::{SaleId, SegmentId},
    ledger::{self, LedgerError, OrderLedger},
    reconcile::{Finding, Reconciler, Violations},
};

/// A SQLite database and what it keeps beside itself.
const FILES_OF_SQLITE: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// The ledger's name until its epochs are raised.
const UNFINISHED: &str = ".restoring";

/// What was put back.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// Every sale, and what its comparison found; nothing, unless the backup was taken of a node that was broken already.
    pub sales: Vec<(SaleId, Vec<Finding>)>,
}

/// Puts the backup in `from` back: the store into `folder`, the ledger into `ledger_file`, neither of which may hold anything yet,
/// except what an earlier restore into the same places has left unfinished.
pub async fn restore(
    from: &Path,
    folder: &Path,
    ledger_file: &Path,
    clock: WallClock,
) -> Result<Restored, BackupError> {
    restore_on(from, folder, ledger_file, clock, None).await
}

/// The same on a disk whose faults are a test's.
pub async fn restore_on(
    from: &Path,
    folder: &Path,
    ledger_file: &Path,
    clock: WallClock,
    faults: Option<Arc<dyn Faults>>,
) -> Result<Restored, BackupError> {
    let manifest = manifest::verify(from)?;
    let at_point = |point, path: &Path| faults::check(&faults, point).map_err(at(path));
    let parent = ledger_file.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let sync_names = || File::open(parent).and_then(|parent| parent.sync_all());

    let mark = ledger::restore_mark(ledger_file);
    match std::fs::read_to_string(&mark) {
        Ok(text) => clear(&text, &mark, folder, ledger_file)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            is_empty(folder, ledger_file)?;
            std::fs::create_dir_all(parent).map_err(at(parent))?;
            at_point(FaultPoint::MarkRestore, &mark)?;
            std::fs::write(&mark, mark_text(folder)?).map_err(at(&mark))?;
        }
        Err(error) => return Err(at(&mark)(error)),
    }
    // From here on no node opens this ledger until the mark is gone: neither half is of use without the other.
    let marked = File::open(&mark).and_then(|mark| mark.sync_all());
    marked.and_then(|()| sync_names()).map_err(at(&mark))?;

    let unfinished = beside(ledger_file, UNFINISHED);
    at_point(FaultPoint::CopyLedger, &unfinished)?;
    std::fs::copy(from.join(LEDGER), &unfinished).map_err(at(&unfinished))?;
    let held = embedded::image_epochs(&from.join(STORE))?;
    let epochs = raise_epochs(&unfinished, &held).await?;
    File::open(&unfinished)
        .and_then(|file| file.sync_all())
        .map_err(at(&unfinished))?;
    at_point(FaultPoint::RenameLedger, ledger_file)?;
    std::fs::rename(&unfinished, ledger_file).map_err(at(ledger_file))?;
    sync_names().map_err(at(parent))?;
    embedded::install_image(&from.join(STORE), folder, &epochs, &faults)?;
    at_point(FaultPoint::OpenRestored, folder)?;
    let sales = compare(folder, ledger_file, clock).await?;
    at_point(FaultPoint::UnmarkRestore, &mark)?;
    std::fs::remove_file(&mark).map_err(at(&mark))?;
    sync_names().map_err(at(&mark))?;
    Ok(Restored { manifest, sales })
}

/// A file beside another one, its name longer by a suffix.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(file.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a restore may write: nothing is ever overwritten.
fn is_empty(folder: &Path, ledger_file: &Path) -> Result<(), BackupError> {
    let files = FILES_OF_SQLITE.map(|suffix| beside(ledger_file, suffix));
    if let Some(there) = files.into_iter().find(|path| path.exists()) {
        return Err(BackupError::Exists(there));
    }
    if embedded::holds_a_store(folder) {
        return Err(BackupError::Exists(folder.to_owned()));
    }
    Ok(())
}

/// The store's folder, whole, so that it is known from anywhere.
fn mark_text(folder: &Path) -> Result<String, BackupError> {
    let whole = std::path::absolute(folder).map_err(at(folder))?;
    Ok(whole.display().to_string())
}

/// Removes what a restore into the same places has left; no node has seen any of it.
fn clear(text: &str, mark: &Path, folder: &Path, ledger_file: &Path) -> Result<(), BackupError> {
    // Empty where the disk was full, or the machine died before it was written: then nothing else was either.
    if text.is_empty() {
        is_empty(folder, ledger_file)?;
        return std::fs::write(mark, mark_text(folder)?).map_err(at(mark));
    }
    if text != mark_text(folder)? {
        return Err(BackupError::Unfinished {
            mark: mark.to_owned(),
            folder: text.to_owned(),
        });
    }
    for file in [ledger_file.to_owned(), beside(ledger_file, UNFINISHED)] {
        for part in FILES_OF_SQLITE.map(|suffix| beside(&file, suffix)) {
            match std::fs::remove_file(&part) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&part)(error)),
                _ => {}
            }
        }
    }
    if embedded::holds_a_store(folder) {
        embedded::remove_store(folder)?;
    }
    Ok(())
}

/// Raises the epoch of every segment in a copy of the ledger.
async fn raise_epochs(
    file: &Path,
    held: &[(SegmentId, u64)],
) -> Result<HashMap<SegmentId, u64>, BackupError> {
    let failed = |error: LedgerError| BackupError::Ledger(error.to_string());
    let pool = ledger::connect(&format!("sqlite:{}", file.display()))
        .await
        .map_err(failed)?;
    let raised = OrderLedger::new(pool.clone()).raise_all(held).await;
    // The last connection takes the write-ahead log back into the file.
    pool.close().await;
    raised.map_err(failed)
}

/// Opens both as a node would and compares every sale.
async fn compare(
    folder: &Path,
    ledger_file: &Path,
    clock: WallClock,
) -> Result<Vec<(SaleId, Vec<Finding>)>, BackupError> {
    let options = Options {
        folder: folder.to_owned(),
        sync: SyncPolicy::Durable,
        write_mode: WriteMode::Plain,
    };
    let store: Arc<dyn StockStore> = Arc::new(EmbeddedStore::open(&options, clock)?);
    let failed = |error: &dyn std::fmt::Display| BackupError::Ledger(error.to_string());
    let options = ledger::ConnectOptions {
        is_restoring: true,
        ..ledger::ConnectOptions::default()
    };
    let pool = ledger::connect_with(&format!("sqlite:{}", ledger_file.display()), &options)
        .await
        .map_err(|error| failed(&error))?;
    let ledger = OrderLedger::new(pool.clone());
    let reconciler = Reconciler::new(store, ledger.clone(), Violations::default());
    let mut found = Vec::new();
    for sale in ledger.sales().await.map_err(|error| failed(&error))? {
        let findings = reconciler
            .run(&sale)
            .await
            .map_err(|error| failed(&error))?;
        found.push((sale.id, findings));
    }
    pool.close().await;
    Ok(found)
}
