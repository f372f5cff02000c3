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
        utc_offset: Some("+01:00".into()),
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
    let cases: [(&str, Change); 15] = [
        ("slots.stores", |new| new.stores.clear()),
        ("slots.stores", |new| new.stores.push("berlin".into())),
        ("slots.from", |new| new.from = "2026-02-29".into()),
        ("slots.from", |new| new.from = "26-02-01".into()),
        ("slots.days", |new| new.days = 0),
        ("slots.days", |new| new.days = 200),
        ("slots.opens", |new| new.opens = "11:30".into()),
        ("slots.opens", |new| new.closes = "24:01".into()),
        ("slots.slot", |new| new.slot = "90s".into()),
        ("slots.utc_offset", |new| {
            new.utc_offset = Some("01:00".into());
        }),
        ("slots.time_zone", |new| {
            new.time_zone = Some("Europe/Berlin".into());
        }),
        ("slots.time_zone", |new| new.utc_offset = None),
        ("slots.time_zone", |new| {
            (new.utc_offset, new.time_zone) = (None, Some("Europe/Atlantis".into()));
        }),
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

/// Broke: a sale over a change of the clocks had slots that were an hour off.
#[test]
fn slots_follow_the_clocks_of_their_zone() {
    let mut new = new();
    (new.utc_offset, new.time_zone) = (None, Some("Europe/Berlin".into()));
    new.stores = vec!["berlin".into()];
    new.from = "2027-03-27".into();
    (new.days, new.opens, new.closes) = (3, "01:00".into(), "04:00".into());
    new.slot = "1h".into();
    let rules = new.check().unwrap();
    let begins = |sku: &str| {
        rules
            .slot(&sku.parse().unwrap())
            .map(|slot| slot.starts_at_ms)
    };
    // `TZ=Europe/Berlin date -d '2027-03-27 01:00' +%s` and its like.
    assert_eq!(begins("berlin.20270327t0100"), Some(1_806_105_600_000));
    assert_eq!(begins("berlin.20270328t0100"), Some(1_806_192_000_000));
    // From 02:00 to 03:00 there is no time on that day.
    assert_eq!(begins("berlin.20270328t0200"), None);
    assert_eq!(begins("berlin.20270328t0300"), Some(1_806_195_600_000));
    assert_eq!(begins("berlin.20270329t0300"), Some(1_806_282_000_000));
    assert_eq!(rules.slots().len(), 3 * 3 - 1);
    assert_eq!(NewSlots::from(&rules).check().unwrap(), rules);
    let stored = serde_json::to_string(&rules).unwrap();
    assert_eq!(serde_json::from_str::<SlotRules>(&stored).unwrap(), rules);
    // In autumn one hour comes twice; its slot is the first.
    new.from = "2027-10-31".into();
    let rules = new.check().unwrap();
    let twice = rules
        .slot(&"berlin.20271031t0200".parse().unwrap())
        .unwrap();
    assert_eq!(twice.starts_at_ms, 1_824_940_800_000);
}

/// Sales that were stored before zones could be named.
#[test]
fn rules_without_a_zone_are_read_as_before() {
    let rules = new().check().unwrap();
    let stored = serde_json::to_value(&rules).unwrap();
    assert!(stored.get("time_zone").is_none());
    assert_eq!(serde_json::from_value::<SlotRules>(stored).unwrap(), rules);
}

proptest! {
    #[test]
    fn days_and_dates_are_one_calendar(days in 0i64..2_900_000) {
        let day = date_of(days).unwrap();
        prop_assert_eq!(parse_day(&day.to_string()), Some(days));
        prop_assert_eq!(date_of(days + 1), day.tomorrow().ok());
    }
}
