//! Putting a backup back into places that are empty: verified before, under a new epoch, compared after.
//!
//! The restored node begins a line of its own. What was accepted after the backup is not in it: those orders are gone, their
//! buyers are told that there is no such order, and the same request buys anew. The epoch of every segment is raised in store
//! and ledger, so that nothing that was said before (a position, a call of another process) is taken for the present.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use sqlx::Row;

use super::{
    BackupError, Manifest, at, manifest,
    manifest::{LEDGER, STORE},
};
use crate::{
    clock::WallClock,
    ids::{SaleId, SegmentId, SkuId},
    ledger::{self, OrderLedger},
    reconcile::{Finding, Reconciler, Violations},
    store::{
        StockStore,
        embedded::{self, EmbeddedStore, Method, Options, Sync},
    },
};

/// What was put back.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// Every sale, and what its comparison found; nothing, unless the backup was taken of a node that was broken already.
    pub sales: Vec<(SaleId, Vec<Finding>)>,
}

/// Puts the backup in `from` back: the store into `folder`, the ledger into `ledger_file`, neither of which may hold anything yet.
pub async fn restore(
    from: &Path,
    folder: &Path,
    ledger_file: &Path,
    clock: WallClock,
) -> Result<Restored, BackupError> {
    let manifest = manifest::verify(from)?;
    let beside = |suffix: &str| {
        let mut name = OsString::from(ledger_file.as_os_str());
        name.push(suffix);
        PathBuf::from(name)
    };
    let wal = ["", "-wal", "-shm", "-journal"].map(beside);
    if let Some(there) = wal.iter().find(|path| path.exists()) {
        return Err(BackupError::Exists(there.clone()));
    }
    if embedded::holds_a_store(folder) {
        return Err(BackupError::Exists(folder.to_owned()));
    }
    let parent = ledger_file.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(at(parent))?;

    // The ledger first: a node that is started over half a restore knows of segments that its store does not have, and sells
    // nothing (see ADR 4). Under another name until its epochs are raised.
    let unfinished = beside(".restoring");
    for leftover in ["", "-wal", "-shm"].map(|suffix| {
        let mut name = OsString::from(unfinished.as_os_str());
        name.push(suffix);
        PathBuf::from(name)
    }) {
        match std::fs::remove_file(&leftover) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(at(&leftover)(error));
            }
            _ => {}
        }
    }
    std::fs::copy(from.join(LEDGER), &unfinished).map_err(at(&unfinished))?;
    let held = embedded::image_epochs(&from.join(STORE))?;
    let epochs = raise_epochs(&unfinished, &held).await?;
    File::open(&unfinished)
        .and_then(|file| file.sync_all())
        .map_err(at(&unfinished))?;
    std::fs::rename(&unfinished, ledger_file).map_err(at(ledger_file))?;
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(at(parent))?;
    embedded::install_image(&from.join(STORE), folder, &epochs)?;
    let sales = compare(folder, ledger_file, clock).await?;
    Ok(Restored { manifest, sales })
}

/// Gives every segment an epoch above all that ledger and store have seen, in the ledger, and answers them.
async fn raise_epochs(
    file: &Path,
    held: &[(SegmentId, u64)],
) -> Result<HashMap<SegmentId, u64>, BackupError> {
    let failed = |error: sqlx::Error| BackupError::Ledger(error.to_string());
    let pool = ledger::connect(&format!("sqlite:{}", file.display()))
        .await
        .map_err(|error| BackupError::Ledger(error.to_string()))?;
    let rows = sqlx::query("SELECT sale, sku, segment, epoch FROM sale_segments")
        .fetch_all(&pool)
        .await
        .map_err(failed)?;
    let mut epochs: HashMap<SegmentId, u64> = held.iter().cloned().collect();
    for row in rows {
        let (sale, sku): (String, String) = (
            row.try_get(0).map_err(failed)?,
            row.try_get(1).map_err(failed)?,
        );
        let (index, epoch): (i64, i64) = (
            row.try_get(2).map_err(failed)?,
            row.try_get(3).map_err(failed)?,
        );
        let invalid = |error: crate::ids::InvalidId| BackupError::Ledger(error.to_string());
        let id = SegmentId {
            sale: SaleId::try_new(&sale).map_err(invalid)?,
            sku: SkuId::try_new(&sku).map_err(invalid)?,
            index: u16::try_from(index).unwrap_or_default(),
        };
        let known = epochs.entry(id).or_default();
        *known = (*known).max(u64::try_from(epoch).unwrap_or_default());
    }
    for (id, epoch) in &mut epochs {
        *epoch += 1;
        let statement =
            "UPDATE sale_segments SET epoch = $1 WHERE sale = $2 AND sku = $3 AND segment = $4";
        sqlx::query(statement)
            .bind(i64::try_from(*epoch).unwrap_or(i64::MAX))
            .bind(id.sale.as_str())
            .bind(id.sku.as_str())
            .bind(i64::from(id.index))
            .execute(&pool)
            .await
            .map_err(failed)?;
    }
    // The last connection takes the write-ahead log back into the file.
    pool.close().await;
    Ok(epochs)
}

/// Opens both as a node would and compares every sale.
async fn compare(
    folder: &Path,
    ledger_file: &Path,
    clock: WallClock,
) -> Result<Vec<(SaleId, Vec<Finding>)>, BackupError> {
    let options = Options {
        folder: folder.to_owned(),
        sync: Sync::Durable,
        method: Method::Plain,
    };
    let store: Arc<dyn StockStore> = Arc::new(EmbeddedStore::open(&options, clock)?);
    let failed = |error: &dyn std::fmt::Display| BackupError::Ledger(error.to_string());
    let pool = ledger::connect(&format!("sqlite:{}", ledger_file.display()))
        .await
        .map_err(|error| failed(&error))?;
    let ledger = OrderLedger::new(pool.clone());
    let reconciler = Reconciler::new(store, ledger.clone(), Violations::new());
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
