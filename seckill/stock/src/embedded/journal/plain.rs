//! Appending with `pwrite` and `fdatasync`: works everywhere.

use std::{fs::File, io, os::unix::fs::FileExt};

pub(super) fn write(file: &File, offset: u64, frame: &[u8]) -> io::Result<()> {
    file.write_all_at(frame, offset)
}

pub(super) fn sync(file: &File) -> io::Result<()> {
    file.sync_data()
}
