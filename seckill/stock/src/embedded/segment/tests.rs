//! What conformance cannot see: what a snapshot keeps of a segment, and when one may be forgotten.

use super::*;
use crate::{
    Metadata, Purchase,
    ids::{OrderId, SaleId, SegmentId, SkuId},
};

pub(super) fn spec(stock: u64) -> SegmentSpec {
    SegmentSpec {
        id: SegmentId::first(SaleId::try_new("s").unwrap(), SkuId::try_new("k").unwrap()),
        stock,
        starts_at_ms: 0,
        ends_at_ms: 1_000,
        buyer_limit: 9,
        pay_within_ms: 100,
        durability: None,
    }
}

fn buy(segment: &mut Segment, n: u32) {
    let purchase = Purchase {
        order: OrderId::from_u128(u128::from(n) + 1),
        buyer: format!("b{}", n % 7).parse().unwrap(),
        request: format!("r{n}").parse().unwrap(),
        fingerprint: u64::from(n),
        quantity: 1,
        metadata: None,
    };
    let event = segment.decide(segment.epoch(), 10, &purchase).unwrap();
    segment.apply(&event).unwrap();
}

fn filled(orders: u32) -> Segment {
    let mut segment = Segment::new(spec(100_000));
    segment.head.spec.buyer_limit = u32::MAX;
    for n in 0..orders {
        buy(&mut segment, n);
    }
    segment
}

/// Snapshots on disks were written with these names: a name changed in the code must not make them unreadable.
#[test]
fn the_words_of_a_snapshot_stay() {
    let head = Segment::new(spec(7)).head;
    let written = serde_json::to_value(&head).unwrap();
    let known = serde_json::json!({
        "spec": {
            "id": { "sale": "s", "sku": "k", "index": 0 },
            "stock": 7,
            "starts_at_ms": 0,
            "ends_at_ms": 1_000,
            "buyer_limit": 9,
            "pay_within_ms": 100,
            "durability": null,
        },
        "gate": "open",
        "phase": "Selling",
        "epoch": 1,
        "version": 1,
        "available": 7,
        "reserved": 0,
        "sold": 0,
        "restocked": 0,
        "withdrawn": 0,
        "accepted": 0,
        "restocks": {},
        "withdrawals": {},
    });
    assert_eq!(written, known);
    let phases = [
        Phase::Selling,
        Phase::Fenced,
        Phase::Loading,
        Phase::Retired,
    ];
    let known = serde_json::json!(["Selling", "Frozen", "Loading", "Retired"]);
    assert_eq!(serde_json::to_value(phases).unwrap(), known);
}

/// Snapshots on disks hold the states and texts of orders as they are in memory: without metadata, nothing of them has changed.
#[test]
fn an_order_without_metadata_has_not_a_byte_more() {
    let mut segment = filled(1);
    let (_, orders) = segment.shared();
    assert_eq!(orders.texts.pages()[0].as_slice(), b"\x02b0\x02r0");
    assert_eq!(
        (orders.states.at(0), size_of::<orders::Record>()),
        (0, orders::RECORD_LEN)
    );
    let metadata = Metadata::try_new([("k".to_owned(), "v".to_owned())]).unwrap();
    let with = Purchase {
        order: OrderId::from_u128(9),
        buyer: "b0".parse().unwrap(),
        request: "r1".parse().unwrap(),
        fingerprint: 1,
        quantity: 1,
        metadata,
    };
    let event = segment.decide(segment.epoch(), 10, &with).unwrap();
    segment.apply(&event).unwrap();
    let (head, mut orders) = segment.shared();
    assert_eq!(
        orders.texts.pages()[0].as_slice(),
        b"\x02b0\x02r0\x02r1\x09\0{\"k\":\"v\"}"
    );
    // A state that promises metadata where there is none is damage.
    assert!(Segment::load(head.clone(), orders.clone()).is_ok());
    orders.states.set(0, 0b1000);
    assert!(Segment::load(head, orders).is_err());
}

#[test]
fn a_loaded_segment_is_the_one_that_was_frozen() {
    let mut segment = filled(5_000);
    for index in 0..2_000 {
        segment.apply(&Event::Released { index }).unwrap();
    }
    segment.apply(&Event::Confirmed { index: 2_500 }).unwrap();
    let indexes = (0..1_000).collect();
    segment.apply(&Event::Acked { indexes }).unwrap();
    let (head, orders) = segment.shared();
    // What happens afterwards is not in it.
    segment.apply(&Event::Released { index: 4_999 }).unwrap();
    buy(&mut segment, 5_000);
    let loaded = Segment::load(head, orders).unwrap();
    assert_eq!(loaded.snapshot().accepted, 5_000);
    assert_eq!(loaded.snapshot().sold, 1);
    assert_eq!(loaded.depth(10).entries, 4_000);
    for buyer in 0..7 {
        let name = format!("b{buyer}");
        let live = (2_000..5_000).filter(|n| n % 7 == buyer).count();
        assert_eq!(loaded.orders.held(&name), live as u32);
    }
    for n in [0, 1_999, 2_500, 4_999] {
        let lookup = Lookup::Order(OrderId::from_u128(n + 1));
        let found = loaded.find(&lookup).unwrap();
        let by_request = Lookup::Request(found.buyer.clone(), found.request.clone());
        assert_eq!(loaded.find(&by_request), Some(found));
    }
}

#[test]
fn counts_that_do_not_fit_the_orders_are_refused() {
    let segment = filled(10);
    let (mut head, orders) = segment.shared();
    head.available += 1;
    head.reserved -= 1;
    assert!(Segment::load(head, orders).is_err());
}

#[test]
fn a_segment_is_forgotten_only_when_nothing_can_need_its_orders() {
    let mut segment = filled(2);
    let over = 1_000 + 100 + 50;
    assert!(!segment.may_retire(over, 50), "two orders are not settled");
    segment
        .apply(&Event::Acked {
            indexes: vec![0, 1],
        })
        .unwrap();
    assert!(!segment.may_retire(over, 50), "nobody has paid or returned");
    segment.apply(&Event::Released { index: 0 }).unwrap();
    segment.apply(&Event::Confirmed { index: 1 }).unwrap();
    assert!(!segment.may_retire(over - 1, 50));
    assert!(segment.may_retire(over, 50));
    segment.apply(&Event::Retired).unwrap();
    let counts = segment.snapshot();
    assert_eq!((counts.accepted, counts.sold), (2, 1));
    let late = Purchase {
        order: OrderId::from_u128(99),
        buyer: "b1".parse().unwrap(),
        request: "r1".parse().unwrap(),
        fingerprint: 1,
        quantity: 1,
        metadata: None,
    };
    assert_eq!(segment.decide(1, 10, &late), Err(crate::Verdict::Ended));
    assert!(!segment.may_retire(u64::MAX, 0), "once is enough");
    let (head, orders) = segment.shared();
    assert_eq!(Segment::load(head, orders).unwrap().snapshot(), counts);
}
