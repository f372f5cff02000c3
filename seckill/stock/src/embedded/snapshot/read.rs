//! Reading a snapshot back: the whole store, or exactly where it is damaged.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use super::{HEADER, Kind, MAGIC, MAX_BLOCK, SegmentHead, VERSION, block_crc};
use crate::embedded::{
    journal::{Progress, RecoverError},
    segment::{
        Head, Segment,
        orders::{RECORD_LEN, Record, SharedOrders},
    },
};

/// Reads a snapshot: its segments, and where the journal goes on behind it.
pub(in crate::embedded) fn read(path: &Path) -> Result<(Vec<Segment>, Progress), RecoverError> {
    let io_error = |source| RecoverError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io_error)?;
    let mut blocks = Blocks {
        input: BufReader::with_capacity(1 << 20, file),
        number: 0,
        offset: 0,
    };
    let fault = |blocks: &Blocks, fault| match fault {
        Fault::Io(source) => io_error(source),
        Fault::Bad(detail) => RecoverError::Corrupt {
            path: path.to_owned(),
            offset: blocks.offset,
            detail,
        },
        Fault::Version(found) => RecoverError::Version {
            path: path.to_owned(),
            found,
        },
    };
    let read = read_all(&mut blocks);
    read.map_err(|found| fault(&blocks, found))
}

enum Fault {
    Io(io::Error),
    Bad(String),
    Version(u32),
}

fn bad<T>(detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Bad(detail.into()))
}

struct Blocks {
    input: BufReader<File>,
    number: u64,
    offset: u64,
}

fn read_all(blocks: &mut Blocks) -> Result<(Vec<Segment>, Progress), Fault> {
    let (progress, count) = blocks.header()?;
    let mut segments = Vec::new();
    for _ in 0..count {
        let bytes = blocks.block(Kind::Head)?;
        let head: SegmentHead<Head> =
            serde_json::from_slice(&bytes).map_err(|error| Fault::Bad(error.to_string()))?;
        let data = blocks.segment(&head)?;
        let segment = Segment::load(head.head, data).map_err(Fault::Bad)?;
        segments.push(segment);
    }
    blocks.block(Kind::End)?;
    match blocks.input.read(&mut [0]).map_err(Fault::Io)? {
        0 => Ok((segments, progress)),
        _ => bad("something stands behind the end"),
    }
}

impl Blocks {
    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        match self.input.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bad("the file is cut short")
            }
            Err(error) => Err(Fault::Io(error)),
        }
    }

    fn header(&mut self) -> Result<(Progress, u32), Fault> {
        let mut header = [0; HEADER];
        self.exact(&mut header)?;
        let (fields, crc) = header.split_at(HEADER - 4);
        if fields[..8] != *MAGIC || crc32fast::hash(fields).to_le_bytes() != crc {
            return bad("the header is damaged");
        }
        let mut fields = &fields[8..];
        match u32::from_le_bytes(take(&mut fields)) {
            VERSION => {}
            found => return Err(Fault::Version(found)),
        }
        let progress = Progress {
            next: u64::from_le_bytes(take(&mut fields)),
            clock_ms: u64::from_le_bytes(take(&mut fields)),
        };
        self.offset = HEADER as u64;
        Ok((progress, u32::from_le_bytes(take(&mut fields))))
    }

    fn block(&mut self, kind: Kind) -> Result<Vec<u8>, Fault> {
        let mut head = [0; 9];
        self.exact(&mut head)?;
        let mut fields = &head[1..];
        let length = u32::from_le_bytes(take(&mut fields)) as usize;
        let crc = u32::from_le_bytes(take(&mut fields));
        if length > MAX_BLOCK {
            return bad("a block is damaged");
        }
        let mut bytes = vec![0; length];
        self.exact(&mut bytes)?;
        if head[0] != kind as u8 || crc != block_crc(self.number, head[0], &bytes) {
            return bad("a block is damaged");
        }
        self.number += 1;
        self.offset += (head.len() + length) as u64;
        Ok(bytes)
    }

    fn segment(&mut self, head: &SegmentHead<Head>) -> Result<SharedOrders, Fault> {
        let mut data = SharedOrders::default();
        for _ in 0..head.pages {
            data.texts.push_page(self.block(Kind::Texts)?);
        }
        while data.buyers.len() < head.buyers {
            for place in self.items::<8>(Kind::Buyers)? {
                data.buyers.push(u64::from_le_bytes(place));
            }
        }
        while data.records.len() < head.orders {
            for record in self.items::<RECORD_LEN>(Kind::Orders)? {
                data.records.push(Record::decode(&record));
            }
        }
        while data.states.len() < head.orders {
            for [state] in self.items::<1>(Kind::States)? {
                data.states.push(state);
            }
        }
        match (data.buyers.len(), data.records.len(), data.states.len())
            == (head.buyers, head.orders, head.orders)
        {
            true => Ok(data),
            false => bad("a segment has more orders than its head says"),
        }
    }

    fn items<const N: usize>(&mut self, kind: Kind) -> Result<Vec<[u8; N]>, Fault> {
        let bytes = self.block(kind)?;
        let (items, rest) = bytes.as_chunks::<N>();
        match rest.is_empty() && !items.is_empty() {
            true => Ok(items.to_vec()),
            false => bad("a block has no whole number of items"),
        }
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let (head, rest) = input
        .split_first_chunk::<N>()
        .expect("the callers' arrays are long enough");
    *input = rest;
    *head
}
