//! The bytes of a journal file: a header, then frames.
//!
//! File header: `"PNSTKJNL", version: u32, generation: u64, first: u64, crc32: u32`; every frame numbered below `first` is in an
//! older file, on the disk. Frame: `magic: u32, length: u32, crc32: u32, sequence: u64, durable: u64, clock_ms: u64, body`; when it
//! was written, every frame numbered below `durable` was on the disk. The checksums cover everything behind them.

pub(super) const FILE_MAGIC: &[u8; 8] = b"PNSTKJNL";
/// Version 1 had one file without a header, `journal.log`.
pub(in crate::embedded) const VERSION: u32 = 2;
pub(super) const FILE_HEADER: usize = 32;
pub(super) const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"PSF2");
pub(super) const FRAME_HEADER: usize = 36;
/// Longest body of one frame; the sequencer ends a batch well before it.
pub(super) const MAX_BODY: usize = 64 << 20;

/// What stands at the beginning of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) generation: u64,
    pub(super) first: u64,
}

impl FileHeader {
    pub(super) fn encode(self) -> [u8; FILE_HEADER] {
        let mut bytes = [0; FILE_HEADER];
        bytes[..8].copy_from_slice(FILE_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.generation.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `Err` has the version of a file that is a journal, but not one of ours; `Ok(None)` is no header at all.
    pub(super) fn decode(bytes: &[u8; FILE_HEADER]) -> Result<Option<Self>, u32> {
        if bytes[..8] != *FILE_MAGIC || u32_at(bytes, 28) != crc32fast::hash(&bytes[..28]) {
            return Ok(None);
        }
        match u32_at(bytes, 8) {
            VERSION => Ok(Some(Self {
                generation: u64_at(bytes, 12),
                first: u64_at(bytes, 20),
            })),
            other => Err(other),
        }
    }
}

/// What stands before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) length: usize,
    pub(super) crc: u32,
    pub(super) sequence: u64,
    pub(super) durable: u64,
    pub(super) clock_ms: u64,
}

impl FrameHeader {
    /// Appends a whole frame.
    pub(super) fn encode(
        out: &mut Vec<u8>,
        sequence: u64,
        durable: u64,
        clock_ms: u64,
        body: &[u8],
    ) {
        out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc_at = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&durable.to_le_bytes());
        out.extend_from_slice(&clock_ms.to_le_bytes());
        out.extend_from_slice(body);
        let crc = crc32fast::hash(&out[crc_at + 4..]);
        out[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// `None`: no frame begins here.
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER]) -> Option<Self> {
        let length = u32_at(bytes, 4) as usize;
        (u32_at(bytes, 0) == FRAME_MAGIC && length <= MAX_BODY).then(|| Self {
            length,
            crc: u32_at(bytes, 8),
            sequence: u64_at(bytes, 12),
            durable: u64_at(bytes, 20),
            clock_ms: u64_at(bytes, 28),
        })
    }

    /// Whether header and body are what was written.
    pub(super) fn fits(&self, header: &[u8; FRAME_HEADER], body: &[u8]) -> bool {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header[12..]);
        hasher.update(body);
        hasher.finalize() == self.crc
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
