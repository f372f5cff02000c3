//! Writing a snapshot, from data that is shared with the running store: nothing waits for it.

use std::io::{self, Write};

use super::{HEADER, Kind, MAGIC, SegmentHead, VERSION, block_crc};
use crate::embedded::segment::{Head, orders::SharedOrders};

/// The store at one instant. Taking it costs one reference for each few thousand orders.
pub(in crate::embedded) struct Capture {
    /// Number of the first frame that is not in it.
    pub(in crate::embedded) next: u64,
    /// The store's time.
    pub(in crate::embedded) clock_ms: u64,
    /// All segments in the order of their numbers.
    pub(in crate::embedded) segments: Vec<(Head, SharedOrders)>,
}

/// Writes it out. `step` hears of every block how many bytes there are so far, and may stop the writing.
pub(in crate::embedded) fn write(
    capture: &Capture,
    out: impl Write,
    step: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut blocks = Blocks {
        out,
        number: 0,
        bytes: 0,
        step,
    };
    blocks.header(capture)?;
    let mut buffer = Vec::new();
    for (head, data) in &capture.segments {
        let head = SegmentHead {
            head,
            pages: data.texts.pages().len(),
            buyers: data.buyers.len(),
            orders: data.records.len(),
        };
        blocks.block(Kind::Head, &serde_json::to_vec(&head)?)?;
        for page in data.texts.pages() {
            blocks.block(Kind::Texts, page)?;
        }
        for chunk in data.buyers.chunks() {
            buffer.clear();
            for place in chunk.iter() {
                buffer.extend_from_slice(&place.to_le_bytes());
            }
            blocks.block(Kind::Buyers, &buffer)?;
        }
        for chunk in data.records.chunks() {
            buffer.clear();
            for record in chunk.iter() {
                record.encode(&mut buffer);
            }
            blocks.block(Kind::Orders, &buffer)?;
        }
        for chunk in data.states.chunks() {
            blocks.block(Kind::States, chunk)?;
        }
    }
    blocks.block(Kind::End, &[])?;
    blocks.out.flush()?;
    Ok(blocks.bytes)
}

struct Blocks<W, S> {
    out: W,
    number: u64,
    bytes: u64,
    step: S,
}

impl<W: Write, S: FnMut(u64) -> io::Result<()>> Blocks<W, S> {
    fn header(&mut self, capture: &Capture) -> io::Result<()> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&capture.next.to_le_bytes());
        header.extend_from_slice(&capture.clock_ms.to_le_bytes());
        header.extend_from_slice(&(capture.segments.len() as u32).to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        self.put(&header)
    }

    fn block(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let kind = kind as u8;
        let mut head = [0; 9];
        head[0] = kind;
        head[1..5].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[5..].copy_from_slice(&block_crc(self.number, kind, bytes).to_le_bytes());
        self.number += 1;
        self.put(&head)?;
        self.put(bytes)?;
        (self.step)(self.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}
