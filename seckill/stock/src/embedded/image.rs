//! The store at one instant, for a backup; and putting one back into an empty folder.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
};

use super::{
    faults::{FaultPoint, MaybeFaults, check},
    folder::{Folder, LOCK},
    journal::{self, Progress, RecoverError, WriteMode},
    record::Event,
    segment::Segment,
    snapshot::{self, Capture},
    snapshot_writer::put,
};
use crate::ids::SegmentId;

/// The store at one instant. Shares the running store's data: taking it stops nothing.
pub struct Image {
    pub(super) capture: Capture,
    pub(super) accepted: u64,
    pub(super) unsettled: u64,
}

impl Image {
    /// Segments in it.
    pub fn segments(&self) -> usize {
        self.capture.segments.len()
    }

    /// Orders ever accepted, and those of them that were not acknowledged.
    pub fn orders(&self) -> (u64, u64) {
        (self.accepted, self.unsettled)
    }

    /// Writes it in the form of a snapshot. `step` hears how many bytes there are so far, and may stop the writing.
    pub fn write(
        &self,
        out: impl Write,
        step: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        snapshot::write(&self.capture, out, step)
    }
}

/// Whether a folder holds a store, of any version, or a part of one.
pub fn holds_a_store(folder: &Path) -> bool {
    let is_ours = |entry: io::Result<std::fs::DirEntry>| entry.is_ok_and(|entry| is_ours(&entry));
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.any(is_ours))
}

/// The segments of a written image, each with its epoch.
pub fn image_epochs(image: &Path) -> Result<Vec<(SegmentId, u64)>, RecoverError> {
    let (segments, _) = snapshot::read(image)?;
    let epoch = |segment: &Segment| (segment.spec().id.clone(), segment.epoch());
    Ok(segments.iter().map(epoch).collect())
}

/// Removes the store from a folder: what a restore that did not end has left there.
pub fn remove_store(folder: &Path) -> Result<(), RecoverError> {
    let at = |source| RecoverError::Io {
        path: folder.to_owned(),
        source,
    };
    let held = Folder::new(folder);
    let _lock = held.lock(&None)?;
    for entry in std::fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        if is_ours(&entry) {
            std::fs::remove_file(entry.path()).map_err(at)?;
        }
    }
    held.sync_names().map_err(at)
}

fn is_ours(entry: &std::fs::DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    // The lock is no part of a store, and its holder must not delete it: another process would make, and hold, a new one.
    name != LOCK && (name.starts_with("journal") || name.starts_with("snapshot-"))
}

/// Makes the store of an image in a folder that holds none, each segment under its new epoch.
pub fn install_image(
    image: &Path,
    folder: &Path,
    epochs: &HashMap<SegmentId, u64>,
    faults: &MaybeFaults,
) -> Result<(), RecoverError> {
    let (mut segments, progress) = snapshot::read(image)?;
    for segment in &mut segments {
        if let Some(&epoch) = epochs.get(&segment.spec().id) {
            let raised = segment.apply(&Event::EpochRaised { epoch });
            raised.map_err(|detail| RecoverError::Corrupt {
                path: image.to_owned(),
                offset: 0,
                detail,
            })?;
        }
    }
    let folder = Folder::new(folder);
    let _lock = folder.lock(&None)?;
    let at = |source| RecoverError::Io {
        path: folder.path().to_owned(),
        source,
    };
    // The journal first: alone it is an empty store, which sells nothing that the ledger remembers; a snapshot alone is refused.
    let mut behind = Progress {
        next: progress.next,
        ..Progress::default()
    };
    drop(journal::open(
        &folder,
        &[],
        WriteMode::Plain,
        faults.clone(),
        &mut behind,
        |_| Ok(()),
    )?);
    let capture = Capture {
        next: progress.next,
        clock_ms: progress.clock_ms,
        segments: segments.iter().map(Segment::shared).collect(),
    };
    let step = || check(faults, FaultPoint::WriteSnapshot);
    put(&folder, faults, 1, &capture, step).map_err(at)?;
    Ok(())
}
