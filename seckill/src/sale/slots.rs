//! Time slots of stores as skus of a sale: a compact description, and the slots it means.
//!
//! Each slot of each store is a sku, `STORE.YYYYMMDDtHHMM` in the stores' local time, with the capacity as its stock; so a
//! booking is an order, and nothing else in the engine knows of slots. Pure; local time is that of an IANA zone, or UTC and a fixed offset.
//! The zones' rules are built into the program, so that all nodes of a version agree on every slot.

use std::collections::HashSet;

use jiff::{
    ToSpan,
    civil::{Date, date},
    tz::{AmbiguousOffset, Offset, TimeZone},
};
use serde::{Deserialize, Serialize};
use settings::units::duration_ms;

use super::{FieldProblem, MAX_PRICE_MINOR, MAX_SKUS, Problems, SkuOnSale};
use crate::ids::SkuId;

const MINUTE_MS: u64 = 60_000;
const DAY_MIN: u32 = 24 * 60;
/// Shorter slots are turns in a queue, not appointments.
const SLOT_MIN: u32 = 5;
/// A booking that nobody came for holds its place no longer than this.
const GRACE_MAX_MS: u64 = 24 * 3_600_000;
/// Leaves room for the day and time in a sku's name.
const STORE_MAX: usize = 48;
const CAPACITY_MAX: i128 = 1_000_000;

/// The slots of a [`super::NewSale`], in place of its skus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewSlots {
    /// Ids of the stores.
    pub stores: Vec<String>,
    /// First day, as in `2026-12-01`.
    pub from: String,
    /// How many days.
    pub days: u32,
    /// When the stores open, as in `09:30`.
    pub opens: String,
    /// When they close, as in `18:00`; `24:00` is the end of the day.
    pub closes: String,
    /// Length of a slot, as in `30m`.
    pub slot: String,
    /// How far local time is ahead of UTC, as in `+08:00`; or else `time_zone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utc_offset: Option<String>,
    /// Whose local time it is, as in `Europe/Berlin`: with its changes to and from summer time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Bookings of one slot of one store.
    pub capacity: i128,
    /// Price of one; 0 if missing, and then a booking needs no payment.
    pub price_minor: i128,
    /// Until how long before its slot a booking can be cancelled; `0s` if missing.
    pub cancel_before: Option<String>,
    /// How long after the beginning of its slot a free booking is held; `15m` if missing.
    pub grace: Option<String>,
}

/// The slots of a sale, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRules {
    /// Ids of the stores.
    pub stores: Vec<String>,
    /// First day, in days since 1970-01-01.
    pub first_day: i64,
    /// How many days.
    pub days: u32,
    /// Minute of the day.
    pub opens_min: u32,
    /// Minute of the day.
    pub closes_min: u32,
    /// Minutes.
    pub slot_min: u32,
    /// Minutes ahead of UTC, where no zone is named.
    pub offset_min: i32,
    /// Name of the zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Bookings of one slot.
    pub capacity: u64,
    /// Price of one.
    pub price_minor: i64,
    /// See [`NewSlots::cancel_before`].
    pub cancel_before_ms: u64,
    /// See [`NewSlots::grace`].
    pub grace_ms: u64,
}

/// One slot of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its sku.
    pub sku: SkuId,
    /// Its store.
    pub store: String,
    /// First instant.
    pub starts_at_ms: u64,
    /// First instant after it.
    pub ends_at_ms: u64,
}

impl NewSlots {
    /// Checks the description, or names its problems.
    pub fn check(&self) -> Result<SlotRules, Vec<FieldProblem>> {
        let mut problems = Problems::default();
        let is_store = |store: &String| store.len() <= STORE_MAX && SkuId::try_new(store).is_ok();
        let distinct: HashSet<&String> = self.stores.iter().collect();
        if self.stores.is_empty()
            || distinct.len() != self.stores.len()
            || !self.stores.iter().all(is_store)
        {
            let allowed = format!(
                "one or more distinct ids of 1..={STORE_MAX} characters of A-Z a-z 0-9 - _ ."
            );
            problems.add("slots.stores", self.stores.join(", "), allowed);
        }
        let allowed = "a day from 1970-01-01 to 9999-12-31, as in 2026-12-01";
        let first_day = problems.some("slots.from", &self.from, parse_day(&self.from), allowed);
        let slot = duration_ms(&self.slot)
            .filter(|ms| ms % MINUTE_MS == 0)
            .map(|ms| ms / MINUTE_MS)
            .filter(|minutes| (u64::from(SLOT_MIN)..=u64::from(DAY_MIN)).contains(minutes));
        let allowed = format!("whole minutes from {SLOT_MIN}m to 24h");
        let slot = problems.some("slots.slot", &self.slot, slot, allowed);
        let slot_min = slot.unwrap_or(u64::from(DAY_MIN)) as u32;
        let hours = parse_clock(&self.opens)
            .zip(parse_clock(&self.closes))
            .filter(|(opens, closes)| opens + slot_min <= *closes);
        let given = format!("{} to {}", self.opens, self.closes);
        let allowed = "times as in 09:30 and 18:00 with room for a slot between them";
        let hours = problems.some("slots.opens", given, hours, allowed);
        let (opens_min, closes_min) = hours.unwrap_or((0, DAY_MIN));
        let a_day = u128::from((closes_min - opens_min) / slot_min).max(1);
        let count = self.stores.len() as u128 * u128::from(self.days) * a_day;
        if !(1..=MAX_SKUS as u128).contains(&count) {
            let allowed = format!("such that there are 1 to {MAX_SKUS} slots; this makes {count}");
            problems.add("slots.days", self.days, allowed);
        }
        let offset_min = self.offset_min(&mut problems);
        problems.number("slots.capacity", Some(self.capacity), 1, CAPACITY_MAX);
        problems.number(
            "slots.price_minor",
            Some(self.price_minor),
            0,
            MAX_PRICE_MINOR,
        );
        let given = self.cancel_before.as_deref().unwrap_or("0s");
        let allowed = "a duration, as in 2h";
        let cancel = problems.some("slots.cancel_before", given, duration_ms(given), allowed);
        let given = self.grace.as_deref().unwrap_or("15m");
        let grace = duration_ms(given).filter(|ms| *ms <= GRACE_MAX_MS);
        let allowed = "a duration up to 24h, as in 15m";
        let grace = problems.some("slots.grace", given, grace, allowed);
        let (true, Some(first_day), Some(offset_min), Some(cancel_before_ms), Some(grace_ms)) =
            (problems.0.is_empty(), first_day, offset_min, cancel, grace)
        else {
            return Err(problems.0);
        };
        Ok(SlotRules {
            stores: self.stores.clone(),
            first_day,
            days: self.days,
            opens_min,
            closes_min,
            slot_min,
            offset_min,
            time_zone: self.time_zone.clone(),
            capacity: self.capacity as u64,
            price_minor: self.price_minor as i64,
            cancel_before_ms,
            grace_ms,
        })
    }

    /// How far local time is ahead of UTC; 0 where a zone says it.
    fn offset_min(&self, problems: &mut Problems) -> Option<i32> {
        match (&self.utc_offset, &self.time_zone) {
            (Some(text), None) => {
                let allowed = "from -14:00 to +14:00, as in +08:00";
                problems.some("slots.utc_offset", text, parse_offset(text), allowed)
            }
            (None, Some(name)) => {
                let zone = TimeZone::get(name).ok();
                let allowed = "the name of an IANA time zone, as in Europe/Berlin";
                problems.some("slots.time_zone", name, zone.map(|_| 0), allowed)
            }
            (given, _) => {
                let allowed = "one of time_zone, as in Europe/Berlin, and utc_offset, as in +08:00";
                let given = given.clone().unwrap_or_default();
                problems.add("slots.time_zone", given, allowed);
                None
            }
        }
    }
}

impl From<&SlotRules> for NewSlots {
    fn from(rules: &SlotRules) -> Self {
        let clock = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        let sign = if rules.offset_min < 0 { '-' } else { '+' };
        let offset = || format!("{sign}{}", clock(rules.offset_min.unsigned_abs()));
        Self {
            stores: rules.stores.clone(),
            from: date_of(rules.first_day).map_or_else(String::new, |day| day.to_string()),
            days: rules.days,
            opens: clock(rules.opens_min),
            closes: clock(rules.closes_min),
            slot: format!("{}m", rules.slot_min),
            utc_offset: rules.time_zone.is_none().then(offset),
            time_zone: rules.time_zone.clone(),
            capacity: rules.capacity.into(),
            price_minor: rules.price_minor.into(),
            cancel_before: Some(format!("{}ms", rules.cancel_before_ms)),
            grace: Some(format!("{}ms", rules.grace_ms)),
        }
    }
}

impl SlotRules {
    /// All slots, store by store and in the order of time.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        let zone = self.zone();
        for store in &self.stores {
            for day in 0..i64::from(self.days) {
                let a_day = (self.closes_min - self.opens_min) / self.slot_min;
                for place in 0..a_day {
                    let minute = self.opens_min + place * self.slot_min;
                    slots.extend(self.at(&zone, store, self.first_day + day, minute));
                }
            }
        }
        slots
    }

    /// The slots as what is sold.
    pub(super) fn skus(&self) -> Vec<SkuOnSale> {
        let sku = |slot: Slot| SkuOnSale {
            sku: slot.sku,
            stock: self.capacity,
            price_minor: self.price_minor,
        };
        self.slots().into_iter().map(sku).collect()
    }

    /// The slot of a sku.
    pub fn slot(&self, sku: &SkuId) -> Option<Slot> {
        let (store, time) = sku.as_str().rsplit_once('.')?;
        let (day, clock) = time.split_once('t')?;
        if day.len() != 8 || clock.len() != 4 || !time.is_ascii() {
            return None;
        }
        let day = parse_day(&format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]))?;
        let minute = parse_clock(&format!("{}:{}", &clock[..2], &clock[2..]))?;
        if minute == DAY_MIN {
            return None;
        }
        self.at(&self.zone(), store, day, minute)
            .filter(|slot| slot.sku == *sku && self.stores.iter().any(|known| known == store))
    }

    /// Until when a free booking of a slot is held; 0 if bookings are paid for, and then held by their payment.
    pub fn held_until_ms(&self, slot: &Slot) -> u64 {
        match self.price_minor {
            0 => slot.starts_at_ms + self.grace_ms,
            _ => 0,
        }
    }

    /// First instant at which a booking of a slot can no longer be cancelled.
    pub fn cancel_until_ms(&self, slot: &Slot) -> u64 {
        slot.starts_at_ms.saturating_sub(self.cancel_before_ms)
    }

    fn zone(&self) -> TimeZone {
        let fixed = || Offset::from_seconds(self.offset_min * 60).map(TimeZone::fixed);
        let zone = match &self.time_zone {
            Some(name) => TimeZone::get(name),
            None => fixed(),
        };
        // Both were checked when the sale was made. A zone that a later version has forgotten is a defect, and UTC the least surprise.
        zone.unwrap_or(TimeZone::UTC)
    }

    /// The slot that begins at a minute of a day. There is none in the hour that a change to summer time leaves out; of the two that a
    /// change from it repeats, the first counts.
    fn at(&self, zone: &TimeZone, store: &str, day: i64, minute: u32) -> Option<Slot> {
        let day = date_of(day)?;
        let (hour, rest) = (minute / 60, minute % 60);
        let begins = day.at(hour as i8, rest as i8, 0, 0);
        let begins = zone.to_ambiguous_timestamp(begins);
        if matches!(begins.offset(), AmbiguousOffset::Gap { .. }) {
            return None;
        }
        let starts_at_ms = u64::try_from(begins.earlier().ok()?.as_millisecond()).ok()?;
        let (year, month, of_month) = (day.year(), day.month(), day.day());
        let name = format!("{store}.{year:04}{month:02}{of_month:02}t{hour:02}{rest:02}");
        Some(Slot {
            sku: SkuId::try_new(&name).ok()?,
            store: store.to_owned(),
            starts_at_ms,
            ends_at_ms: starts_at_ms + u64::from(self.slot_min) * MINUTE_MS,
        })
    }
}

/// `HH:MM` as a minute of the day, `24:00` included.
fn parse_clock(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let of_day = hour * 60 + minute;
    (minute < 60 && of_day <= DAY_MIN).then_some(of_day)
}

fn parse_offset(text: &str) -> Option<i32> {
    let (sign, clock) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(clock), _) => (1, clock),
        (None, Some(clock)) => (-1, clock),
        (None, None) => return None,
    };
    let minutes = i32::try_from(parse_clock(clock)?).ok()?;
    (minutes <= 14 * 60).then_some(sign * minutes)
}

const EPOCH: Date = date(1970, 1, 1);

/// `YYYY-MM-DD` as days since 1970-01-01.
fn parse_day(text: &str) -> Option<i64> {
    // Other forms of a date are understood too, and one is enough.
    let is_plain = text.len() == 10 && text.as_bytes().get(4) == Some(&b'-');
    let day: Date = text.parse().ok().filter(|_| is_plain)?;
    let days = EPOCH.until(day).ok()?.get_days();
    (days >= 0).then(|| days.into())
}

/// The date of a day since 1970-01-01.
fn date_of(days: i64) -> Option<Date> {
    EPOCH.checked_add(i32::try_from(days).ok()?.days()).ok()
}

#[cfg(test)]
mod tests;
