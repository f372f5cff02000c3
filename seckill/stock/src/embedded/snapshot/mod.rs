//! A snapshot: the whole store at one instant, in one file. A start reads the newest one and replays only the journal behind it.
//!
//! The file is `"PNSTKSNP", version: u32, next: u64, clock_ms: u64, segments: u32, crc32: u32`, then blocks
//! `kind: u8, length: u32, crc32: u32, bytes`. Each segment is a head (JSON), its text pages, buyers, orders and states; an end
//! block closes the file. A block's checksum covers its number too, so blocks cannot change places.

mod read;
mod write;

pub(super) use self::{
    read::read,
    write::{Capture, write},
};

const MAGIC: &[u8; 8] = b"PNSTKSNP";
const VERSION: u32 = super::journal::VERSION;
const HEADER: usize = 36;
/// A head with a hundred thousand moves of units has a few MiB; everything else is smaller.
const MAX_BLOCK: usize = 64 << 20;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Head = 1,
    Texts = 2,
    Buyers = 3,
    Orders = 4,
    States = 5,
    End = 6,
}

/// How much of a segment follows its head.
#[derive(serde::Serialize, serde::Deserialize)]
struct SegmentHead<H> {
    head: H,
    pages: usize,
    buyers: u32,
    orders: u32,
}

fn block_crc(number: u64, kind: u8, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
