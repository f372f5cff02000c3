//! Reading one journal file back: every good frame to the caller, a torn tail found, corruption refused.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::clock::WrongClock;

use super::format::{FILE_HEADER, FRAME_HEADER, FRAME_MAGIC, FileHeader, FrameHeader, VERSION};

/// Why a store's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The operating system said no: check the folder, its owner and the disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open: two writers would sell the same stock twice.
    #[error("{}: another process is using this store", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The file was written by another version of the program: let that one settle everything, then begin with an empty folder.
    #[error("{} has format {found}, this program reads format {VERSION} only", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Something in the middle is damaged, missing, or says what cannot be. Orders behind it exist: restore a backup, never delete
    /// the file.
    #[error("{} is corrupt at byte {offset}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// The clock cannot be right by what the journal knows. It may be set right meanwhile, so another try may succeed.
    #[error("{}: {source}", path.display())]
    Clock {
        /// The store's folder.
        path: PathBuf,
        /// What is wrong with it.
        source: WrongClock,
    },
}

/// How far a store was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::embedded) struct Progress {
    /// Number of the next frame.
    pub(in crate::embedded) next: u64,
    /// The time of the last frame. Earlier ones are no later, unless an operator has set the store's time back after a wrong clock.
    pub(in crate::embedded) clock_ms: u64,
}

/// What a file held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileRead {
    /// Where the last good frame ends; 0 for a file whose header was never finished.
    pub(super) end: u64,
    /// Bytes behind it that belong to unfinished writes.
    pub(super) torn: u64,
}

/// Reads the frames of a file that are not known yet, in order.
pub(super) fn read_file(
    file: &File,
    path: &Path,
    generation: u64,
    progress: &mut Progress,
    mut replay: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<FileRead, RecoverError> {
    let at = |source: io::Error| RecoverError::Io {
        path: path.to_owned(),
        source,
    };
    let corrupt = |offset, detail| RecoverError::Corrupt {
        path: path.to_owned(),
        offset,
        detail,
    };
    let length = file.metadata().map_err(at)?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.seek(SeekFrom::Start(0)).map_err(at)?;
    match read_header(&mut reader, length).map_err(at)? {
        Ok(Some(header)) if header.generation != generation => {
            let detail = format!(
                "is of generation {}, by its name {generation}",
                header.generation
            );
            return Err(corrupt(0, detail));
        }
        Ok(Some(header)) if header.first > progress.next => {
            let detail = format!(
                "frames {} to {} were on the disk and are gone",
                progress.next,
                header.first - 1
            );
            return Err(corrupt(0, detail));
        }
        Ok(Some(_)) => {}
        Ok(None) if length <= FILE_HEADER as u64 => {
            return Ok(FileRead {
                end: 0,
                torn: length,
            });
        }
        Ok(None) => return Err(corrupt(0, "the header is damaged".to_owned())),
        Err(found) => {
            return Err(RecoverError::Version {
                path: path.to_owned(),
                found,
            });
        }
    }
    let (mut end, mut body) = (FILE_HEADER as u64, Vec::new());
    while end < length {
        let frame = read_frame(&mut reader, length - end, &mut body).map_err(at)?;
        let Some(frame) = frame.filter(|frame| frame.sequence <= progress.next) else {
            return torn(file, path, length, end, progress.next);
        };
        // After a failed sync the frames that were not on the disk are written once more, into the next file.
        if frame.sequence == progress.next {
            replay(&body).map_err(|detail| corrupt(end, detail))?;
            progress.next += 1;
            progress.clock_ms = frame.clock_ms;
        }
        end += (FRAME_HEADER + frame.length) as u64;
    }
    Ok(FileRead { end, torn: 0 })
}

fn read_header(reader: &mut impl Read, length: u64) -> io::Result<Result<Option<FileHeader>, u32>> {
    let mut header = [0; FILE_HEADER];
    if length < FILE_HEADER as u64 {
        return Ok(Ok(None));
    }
    reader.read_exact(&mut header)?;
    Ok(FileHeader::decode(&header))
}

/// Reads the next frame into `body`; `None` if there is no good one here.
fn read_frame(
    reader: &mut impl Read,
    left: u64,
    body: &mut Vec<u8>,
) -> io::Result<Option<FrameHeader>> {
    let mut header = [0; FRAME_HEADER];
    if left < FRAME_HEADER as u64 {
        return Ok(None);
    }
    reader.read_exact(&mut header)?;
    let Some(frame) = FrameHeader::decode(&header) else {
        return Ok(None);
    };
    if (frame.length + FRAME_HEADER) as u64 > left {
        return Ok(None);
    }
    body.resize(frame.length, 0);
    reader.read_exact(body)?;
    Ok(frame.fits(&header, body).then_some(frame))
}

/// The frame at `end` is bad. It was answered for as durable if any later frame says so: then it is corruption, and refused. If
/// none does, it is a write that never finished, or one of a `fast` sale: those reach the disk in any order, and after a power cut
/// what lies behind a gap is lost with it.
fn torn(
    file: &File,
    path: &Path,
    length: u64,
    end: u64,
    next: u64,
) -> Result<FileRead, RecoverError> {
    let at = |source: io::Error| RecoverError::Io {
        path: path.to_owned(),
        source,
    };
    let mut rest = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(end)).map_err(at)?;
    reader.read_to_end(&mut rest).map_err(at)?;
    let magic = FRAME_MAGIC.to_le_bytes();
    let promises = |start: &usize| {
        let Some((header, body)) = rest[*start..].split_first_chunk::<FRAME_HEADER>() else {
            return false;
        };
        FrameHeader::decode(header).is_some_and(|frame| {
            frame.durable > next
                && body
                    .get(..frame.length)
                    .is_some_and(|body| frame.fits(header, body))
        })
    };
    let mut starts = (0..rest.len()).filter(|&start| rest[start..].starts_with(&magic));
    match starts.find(promises) {
        Some(start) => Err(RecoverError::Corrupt {
            path: path.to_owned(),
            offset: end,
            detail: format!(
                "frame {next} is damaged; the one at byte {} says that it was on the disk",
                end + start as u64
            ),
        }),
        None => Ok(FileRead {
            end,
            torn: length - end,
        }),
    }
}
