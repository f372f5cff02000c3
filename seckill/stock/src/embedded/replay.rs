//! What a start makes of the folder: the newest good snapshot, and every frame of the journal behind it.

use std::fs::File;

use super::{
    Options, SyncPolicy,
    engine::Engine,
    faults::MaybeFaults,
    folder::{Content, Folder},
    journal::{self, Journal, Progress, RecoverError},
    snapshot,
};
use crate::Durability;

/// A store that is ready to go on.
pub(super) struct Recovered {
    pub(super) engine: Engine,
    pub(super) journal: Journal,
    /// The newest time that the files know.
    pub(super) clock_ms: u64,
    /// Bytes of the snapshot that was read.
    pub(super) snapshot_bytes: u64,
    /// Held while the store is open.
    pub(super) lock: File,
}

/// Reads a store's folder, or makes it.
pub(super) fn recover(options: &Options, faults: MaybeFaults) -> Result<Recovered, RecoverError> {
    let folder = Folder::new(&options.folder);
    let lock = folder.lock(&faults)?;
    let content = folder.clean()?;
    let newest = content.snapshots.iter().rev().copied();
    let (mut refusal, mut damaged) = (None, Vec::new());
    // Without any snapshot the journal is whole from its first generation on; that is the last resort too.
    for snapshot in newest.map(Some).chain([None]) {
        match attempt(options, &folder, &content, snapshot, &faults) {
            Ok((engine, journal, progress, snapshot_bytes)) => {
                if let Some(error) = refusal {
                    folder.put_aside(&damaged)?;
                    metrics::counter!("penstock_snapshot_fallbacks_total").increment(1);
                    tracing::error!(%error, used = ?snapshot, "a snapshot is damaged; an older one and the journal behind it hold the same: nothing is lost, look at the disk");
                }
                return Ok(Recovered {
                    engine,
                    journal,
                    clock_ms: progress.clock_ms,
                    snapshot_bytes,
                    lock,
                });
            }
            // Only a snapshot that is damaged, or that the disk does not give back, is a reason to look for an older one; the newest
            // one's error is the one to tell.
            Err((error @ (RecoverError::Corrupt { .. } | RecoverError::Io { .. }), true)) => {
                damaged.extend(snapshot);
                refusal.get_or_insert(error);
            }
            Err((error, _)) => return Err(refusal.unwrap_or(error)),
        }
    }
    Err(refusal.expect("the last attempt returns, or a snapshot was refused"))
}

type Attempt = (Engine, Journal, Progress, u64);

/// Recovers from this snapshot (or from nothing). The error says whether it was the snapshot's.
fn attempt(
    options: &Options,
    folder: &Folder,
    content: &Content,
    snapshot: Option<u64>,
    faults: &MaybeFaults,
) -> Result<Attempt, (RecoverError, bool)> {
    let default = match options.sync {
        SyncPolicy::Durable => Durability::Durable,
        SyncPolicy::Fast => Durability::Fast,
    };
    let mut engine = Engine::new(default);
    let mut progress = Progress::default();
    let mut bytes = 0;
    if let Some(generation) = snapshot {
        let path = folder.snapshot(generation);
        let (segments, found) = snapshot::read(&path).map_err(|error| (error, true))?;
        bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        progress = found;
        for segment in segments {
            engine.insert(segment);
        }
    }
    let first = snapshot.unwrap_or(1);
    let behind = content.journals.iter().copied();
    let generations: Vec<u64> = behind.filter(|&generation| generation >= first).collect();
    let is_new = content.journals.is_empty() && content.snapshots.is_empty();
    // A new folder has none; otherwise each one must be there, from the first on.
    let missing = (first..)
        .zip(&generations)
        .find(|(wanted, found)| wanted != *found)
        .map(|(wanted, _)| wanted)
        .or((generations.is_empty() && !is_new).then_some(first));
    if let Some(wanted) = missing {
        let error = RecoverError::Corrupt {
            path: folder.journal(wanted),
            offset: 0,
            detail: "the file is missing".to_owned(),
        };
        return Err((error, false));
    }
    let journal = journal::open(
        folder,
        &generations,
        options.write_mode,
        faults.clone(),
        &mut progress,
        |body| engine.replay(body),
    );
    let journal = journal.map_err(|error| (error, false))?;
    engine.has_been_read();
    Ok((engine, journal, progress, bytes))
}
