//! A snapshot comes back whole, or is refused with the place of the damage.

use super::*;
use crate::{
    Lookup, Metadata, OrderState, SegmentSpec, StoredOrder,
    embedded::{
        journal::{Progress, RecoverError},
        record::Event,
        segment::Segment,
    },
    ids::{OrderId, SaleId, SegmentId, SkuId},
};

fn segment(name: &str, orders: u32) -> Segment {
    let id = SegmentId::first(SaleId::try_new(name).unwrap(), SkuId::try_new("k").unwrap());
    let mut segment = Segment::new(SegmentSpec {
        id,
        stock: 100_000,
        starts_at_ms: 0,
        ends_at_ms: 1_000,
        buyer_limit: 9,
        pay_within_ms: 100,
        durability: None,
    });
    for n in 0..orders {
        let order = StoredOrder {
            order: OrderId::from_u128(u128::from(n) << 70 | 1),
            buyer: format!("buyer-{n}").parse().unwrap(),
            request: format!("request-{n}").parse().unwrap(),
            quantity: 2,
            fingerprint: u64::from(n),
            state: OrderState::Reserved,
            created_at_ms: 5,
            pay_by_ms: 6,
            metadata: (n % 5 == 4).then(|| metadata(n)),
        };
        segment.apply(&Event::Bought { order }).unwrap();
    }
    segment
}

fn metadata(n: u32) -> Metadata {
    let entries = [("n".to_owned(), n.to_string().repeat(50))];
    Metadata::try_new(entries).unwrap().unwrap()
}

fn capture() -> Capture {
    let segments = [segment("a", 9_000), segment("b", 0), segment("c", 3)];
    Capture {
        next: 42,
        clock_ms: 77,
        segments: segments.iter().map(Segment::shared).collect(),
    }
}

fn bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write(&capture(), &mut bytes, |_| Ok(())).unwrap();
    assert_eq!(written, bytes.len() as u64);
    bytes
}

fn read_bytes(bytes: &[u8]) -> Result<(Vec<Segment>, Progress), RecoverError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    std::fs::write(&path, bytes).unwrap();
    read(&path)
}

#[test]
fn everything_comes_back() {
    let (segments, progress) = read_bytes(&bytes()).unwrap();
    assert_eq!((progress.next, progress.clock_ms), (42, 77));
    let counts: Vec<_> = segments.iter().map(Segment::snapshot).collect();
    let expected: Vec<_> = capture()
        .segments
        .into_iter()
        .map(|(head, data)| Segment::load(head, data).unwrap().snapshot())
        .collect();
    assert_eq!(counts, expected);
    for n in [0, 4, 8_998, 8_999] {
        let lookup = Lookup::Order(OrderId::from_u128(u128::from(n) << 70 | 1));
        let found = segments[0].find(&lookup).unwrap();
        assert_eq!(found.metadata, (n % 5 == 4).then(|| metadata(n)));
    }
    let again = Capture {
        next: 42,
        clock_ms: 77,
        segments: segments.iter().map(Segment::shared).collect(),
    };
    let mut second = Vec::new();
    write(&again, &mut second, |_| Ok(())).unwrap();
    assert_eq!(second, bytes(), "byte for byte");
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    let whole = bytes();
    // Every byte of the heads, a sample of the rest: a flip costs a read of the whole file.
    let sample = (0..400).chain((400..whole.len()).step_by(9_973));
    for at in sample.chain(whole.len() - 9..whole.len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert!(
            matches!(read_bytes(&damaged), Err(RecoverError::Corrupt { .. })),
            "flipped byte {at}"
        );
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = bytes();
    for length in (0..whole.len()).step_by(4_999).chain([whole.len() - 1]) {
        assert!(
            matches!(
                read_bytes(&whole[..length]),
                Err(RecoverError::Corrupt { .. })
            ),
            "cut at {length}"
        );
    }
}

#[test]
fn another_version_is_named() {
    let mut other = bytes();
    other[8] = 9;
    let crc = crc32fast::hash(&other[..HEADER - 4]);
    other[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
    let refused = read_bytes(&other).err().unwrap();
    assert!(
        matches!(refused, RecoverError::Version { found: 9, .. }),
        "{refused}"
    );
}
