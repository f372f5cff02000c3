//! Descriptions of slots, and the calendar under them.

use proptest::prelude::*;

use super::*;

fn new() -> NewSlots {
    NewSlots {
        stores: vec!["berlin".into(), "st.gallen".into()],
        from: "2026-12-30".into(),
        days: 3,
        opens: "09:30".into(),
        closes: "12:00".into(),
        slot: "45m".into(),
        utc_offset: "+01:00".into(),
        capacity: 4,
        ..NewSlots::default()
    }
}

#[test]
fn a_description_becomes_its_slots() {
    let rules = new().check().unwrap();
    let slots = rules.slots();
    // From 09:30 to 12:00 three slots of 45 minutes fit.
    assert_eq!(slots.len(), 2 * 3 * 3);
    assert_eq!(slots[0].sku.as_str(), "berlin.20261230t0930");
    assert_eq!(slots[17].sku.as_str(), "st.gallen.20270101t1100");
    // 2026-12-30 08:30 UTC, from `date -u -d '2026-12-30 08:30' +%s`.
    assert_eq!(slots[0].starts_at_ms, 1_798_619_400_000);
    assert_eq!(slots[0].ends_at_ms - slots[0].starts_at_ms, 45 * 60_000);
    for slot in &slots {
        assert_eq!(rules.slot(&slot.sku).as_ref(), Some(slot));
    }
    for sku in [
        "paris.20261230t0930",
        "berlin.20261230t9930",
        "berlin",
        "berlin.2026123ét093",
    ] {
        if let Ok(sku) = SkuId::try_new(sku) {
            assert_eq!(rules.slot(&sku), None, "{sku}");
        }
    }
    assert_eq!(NewSlots::from(&rules).check().unwrap(), rules);
}

#[test]
fn every_wrong_field_is_named() {
    type Change = fn(&mut NewSlots);
    let cases: [(&str, Change); 12] = [
        ("slots.stores", |new| new.stores.clear()),
        ("slots.stores", |new| new.stores.push("berlin".into())),
        ("slots.from", |new| new.from = "2026-02-29".into()),
        ("slots.from", |new| new.from = "26-02-01".into()),
        ("slots.days", |new| new.days = 0),
        ("slots.days", |new| new.days = 200),
        ("slots.opens", |new| new.opens = "11:30".into()),
        ("slots.opens", |new| new.closes = "24:01".into()),
        ("slots.slot", |new| new.slot = "90s".into()),
        ("slots.utc_offset", |new| new.utc_offset = "01:00".into()),
        ("slots.capacity", |new| new.capacity = 0),
        ("slots.grace", |new| new.grace = Some("2d".into())),
    ];
    for (field, change) in cases {
        let mut changed = new();
        change(&mut changed);
        let problems = changed.check().unwrap_err();
        assert_eq!(problems[0].field, field, "{problems:?}");
    }
    assert_eq!(NewSlots::default().check().unwrap_err().len(), 7);
}

proptest! {
    #[test]
    fn days_and_dates_are_one_calendar(days in 0i64..2_900_000) {
        let (year, month, day) = date_of(days);
        prop_assert_eq!(days_of(year, month, day), days);
        let next = date_of(days + 1);
        prop_assert!(next == (year, month, day + 1) || next.2 == 1);
    }
}
