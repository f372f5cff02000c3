//! Appending with `pwrite` and `fdatasync`: works everywhere.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::Sync;

pub(super) fn write(file: &File, offset: u64, frame: &[u8], sync: Sync) -> io::Result<()> {
    file.write_all_at(frame, offset)?;
    match sync {
        Sync::Durable => file.sync_data(),
        Sync::Fast => Ok(()),
    }
}
