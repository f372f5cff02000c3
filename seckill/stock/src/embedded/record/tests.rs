//! Every record survives its binary form; nothing makes the reader panic.

use proptest::prelude::*;

use super::*;
use crate::ids::{SaleId, SegmentId, SkuId};

fn order(raw: u128, quantity: u32, fingerprint: u64, state: OrderState) -> StoredOrder {
    StoredOrder {
        order: OrderId::from_u128(raw),
        buyer: BuyerId::try_new("b-1").unwrap(),
        request: RequestId::try_new("r/1").unwrap(),
        quantity,
        fingerprint,
        state,
        created_at_ms: 7,
        pay_by_ms: 9,
        metadata: None,
    }
}

fn metadata(value: &str) -> Metadata {
    let entries = [("k".to_owned(), value.to_owned())];
    Metadata::try_new(entries).unwrap().unwrap()
}

fn spec() -> SegmentSpec {
    SegmentSpec {
        id: SegmentId::first(SaleId::try_new("s").unwrap(), SkuId::try_new("k").unwrap()),
        stock: 5,
        starts_at_ms: 1,
        ends_at_ms: u64::MAX,
        buyer_limit: 3,
        pay_within_ms: 4,
        durability: Some(crate::Durability::Fast),
    }
}

fn begun() -> Beginning {
    let moves = |name: &str| BTreeMap::from([(name.to_owned(), u64::MAX)]);
    Beginning {
        spec: spec(),
        epoch: 9,
        restocks: moves("in"),
        withdrawals: moves("out"),
    }
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop_oneof![
        Just(OrderState::Reserved),
        Just(OrderState::Sold),
        Just(OrderState::Released)
    ];
    prop_oneof![
        (any::<u128>(), any::<u32>(), any::<u64>()).prop_map(|(raw, quantity, fingerprint)| {
            Event::Bought {
                order: order(raw, quantity, fingerprint, OrderState::Reserved),
            }
        }),
        (any::<u128>(), state, any::<bool>()).prop_map(|(raw, state, has_metadata)| {
            Event::Loaded {
                order: StoredOrder {
                    metadata: has_metadata.then(|| metadata("b 2")),
                    ..order(raw, 1, 2, state)
                },
            }
        }),
        any::<u128>().prop_map(|raw| Event::Bought {
            order: StoredOrder {
                metadata: Some(metadata("\"ä\"")),
                ..order(raw, 1, 2, OrderState::Reserved)
            }
        }),
        any::<u32>().prop_map(|index| Event::Released { index }),
        any::<u32>().prop_map(|index| Event::Confirmed { index }),
        ("[a-z0-9]{1,40}", any::<u64>()).prop_map(|(id, units)| Event::Restocked { id, units }),
        ("[a-z0-9]{1,40}", any::<u64>()).prop_map(|(id, units)| Event::Withdrawn { id, units }),
        Just(Event::GateSet { gate: Gate::Paused }),
        Just(Event::RulesSet { spec: spec() }),
        prop::collection::vec(any::<u32>(), 0..50).prop_map(|indexes| Event::Acked { indexes }),
        any::<u64>().prop_map(|epoch| Event::Fenced { epoch }),
        Just(Event::RebuildBegan(begun())),
        Just(Event::RebuildFinished { gate: Gate::Open }),
        any::<u64>().prop_map(|epoch| Event::EpochRaised { epoch }),
        Just(Event::Retired),
    ]
}

proptest! {
    #[test]
    fn every_event_survives_its_binary_form(events in prop::collection::vec(event(), 0..20)) {
        let mut bytes = Vec::new();
        for event in &events {
            encode_event(&mut bytes, 3, event);
        }
        let mut rest = bytes.as_slice();
        for event in events {
            prop_assert_eq!(decode(&mut rest), Ok(Record::Event(3, event)));
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && decode(&mut rest).is_ok() {}
    }
}

/// Journals on disks hold these bytes: an order without metadata is read as ever, and has not a byte more.
#[test]
fn the_bytes_of_orders_without_metadata_stay() {
    let without = order(1, 2, 3, OrderState::Reserved);
    let mut tail = [
        1_u128.to_le_bytes().as_slice(),
        &3_u64.to_le_bytes(),
        &2_u32.to_le_bytes(),
    ]
    .concat();
    tail.extend([7_u64.to_le_bytes(), 9_u64.to_le_bytes()].concat());
    tail.extend(b"\x03\0\0\0b-1\x03\0\0\0r/1");
    let known = |kind: &[u8]| [kind, tail.as_slice()].concat();
    let bought = (
        known(&[1, 5, 0, 0, 0]),
        Event::Bought {
            order: without.clone(),
        },
    );
    let loaded = (
        known(&[11, 5, 0, 0, 0, 0]),
        Event::Loaded { order: without },
    );
    for (bytes, event) in [bought, loaded] {
        let mut written = Vec::new();
        encode_event(&mut written, 5, &event);
        assert_eq!(written, bytes);
        assert_eq!(decode(&mut bytes.as_slice()), Ok(Record::Event(5, event)));
    }
}

#[test]
fn records_without_a_segment_survive_their_binary_form() {
    let mut bytes = Vec::new();
    encode_opened(&mut bytes, &spec());
    encode_begun(&mut bytes, &begun());
    encode_tick(&mut bytes);
    let mut rest = bytes.as_slice();
    for record in [Record::Opened(spec()), Record::Begun(begun()), Record::Tick] {
        assert_eq!(decode(&mut rest), Ok(record));
    }
    assert!(rest.is_empty());
}
