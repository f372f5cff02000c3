//! Reading a journal back: every good frame to the caller, a torn tail cut, corruption refused.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{HEADER_LEN, MAGIC, MAX_BODY, Sync, checksum};

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The operating system said no: check the folder, its owner and the disk.
    #[error("journal {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open: two writers would sell the same stock twice.
    #[error("journal {}: another process is using it", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A frame in the middle is damaged, or says what cannot be. Orders behind it exist: restore a backup, never delete the file.
    #[error("journal {} is corrupt at byte {offset}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Good frames.
    pub(super) frames: u64,
    /// Where the last good frame ends.
    pub(super) end: u64,
    /// Bytes behind it that belong to an unfinished write.
    pub(super) torn_bytes: u64,
}

/// Reads all frames in order.
pub(super) fn recover(
    file: &File,
    path: &Path,
    sync: Sync,
    mut replay: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<Recovered, RecoverError> {
    let at = |source: io::Error| RecoverError::Io {
        path: path.to_owned(),
        source,
    };
    let length = file.metadata().map_err(at)?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.seek(SeekFrom::Start(0)).map_err(at)?;
    let (mut end, mut frames, mut body) = (0u64, 0u64, Vec::new());
    while end < length {
        let Some(body_len) =
            read_frame(&mut reader, length - end, frames, &mut body).map_err(at)?
        else {
            return finish(file, path, sync, length, end, frames);
        };
        replay(&body).map_err(|detail| RecoverError::Corrupt {
            path: path.to_owned(),
            offset: end,
            detail,
        })?;
        end += (HEADER_LEN + body_len) as u64;
        frames += 1;
    }
    Ok(Recovered {
        frames,
        end,
        torn_bytes: 0,
    })
}

/// Reads the next frame into `body`; `None` if there is no good one here.
fn read_frame(
    reader: &mut impl Read,
    left: u64,
    sequence: u64,
    body: &mut Vec<u8>,
) -> io::Result<Option<usize>> {
    if left < HEADER_LEN as u64 {
        return Ok(None);
    }
    let mut header = [0u8; HEADER_LEN];
    reader.read_exact(&mut header)?;
    let Some((length, crc, found)) = parse_header(&header) else {
        return Ok(None);
    };
    if found != sequence || (length + HEADER_LEN) as u64 > left {
        return Ok(None);
    }
    body.resize(length, 0);
    reader.read_exact(body)?;
    Ok((checksum(sequence, body) == crc).then_some(length))
}

fn parse_header(header: &[u8; HEADER_LEN]) -> Option<(usize, u32, u64)> {
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let length = word(4) as usize;
    let sequence = u64::from(word(12)) | u64::from(word(16)) << 32;
    (word(0) == MAGIC && length <= MAX_BODY).then_some((length, word(8), sequence))
}

/// The frame at `end` is bad. If any good frame of a later sequence lies behind it, an answered batch was damaged. Unless the
/// journal is fast: then frames reach the disk in any order, and after a power cut what lies behind a gap is lost with it.
fn finish(
    file: &File,
    path: &Path,
    sync: Sync,
    length: u64,
    end: u64,
    frames: u64,
) -> Result<Recovered, RecoverError> {
    let at = |source: io::Error| RecoverError::Io {
        path: path.to_owned(),
        source,
    };
    if sync == Sync::Fast {
        return Ok(Recovered {
            frames,
            end,
            torn_bytes: length - end,
        });
    }
    let mut rest = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(end)).map_err(at)?;
    reader.read_to_end(&mut rest).map_err(at)?;
    let magic = MAGIC.to_le_bytes();
    let later = (1..rest.len().saturating_sub(HEADER_LEN)).find(|&start| {
        rest[start..].starts_with(&magic) && {
            let (header, body) = rest[start..]
                .split_first_chunk::<HEADER_LEN>()
                .expect("bounded by the range");
            parse_header(header).is_some_and(|(len, crc, sequence)| {
                sequence > frames
                    && body
                        .get(..len)
                        .is_some_and(|body| checksum(sequence, body) == crc)
            })
        }
    });
    match later {
        Some(start) => Err(RecoverError::Corrupt {
            path: path.to_owned(),
            offset: end,
            detail: format!(
                "frame {frames} is damaged, but a good frame follows at byte {}",
                end + start as u64
            ),
        }),
        None => Ok(Recovered {
            frames,
            end,
            torn_bytes: length - end,
        }),
    }
}
