//! The checks of a sale's document, field by field; each notes its problem and goes on.

use std::collections::HashSet;

use super::{
    Admission, FieldProblem, MAX_PRICE_MINOR, MAX_SKUS, NewSale, NewSku, Rules, SkuOnSale,
    SlotRules, Stage,
    document::{MAX_BUYER_LIMIT, MAX_TIME_MS},
};
use stock::Durability;

use crate::{
    ids::SkuId,
    lottery::{BEACON_MAX, LotteryRules, MAX_WINNERS, is_hash},
    units::MAX_UNITS,
};

/// Collects instead of stopping at the first.
#[derive(Default)]
pub(crate) struct Problems(pub(crate) Vec<FieldProblem>);

impl Problems {
    pub(crate) fn add(&mut self, field: &str, value: impl ToString, allowed: impl Into<String>) {
        self.0.push(FieldProblem {
            field: field.to_owned(),
            value: value.to_string(),
            allowed: allowed.into(),
        });
    }

    /// Notes a value that nothing was read from; gives back what was.
    pub(crate) fn some<T>(
        &mut self,
        field: &str,
        value: impl ToString,
        read: Option<T>,
        allowed: impl Into<String>,
    ) -> Option<T> {
        if read.is_none() {
            self.add(field, value, allowed);
        }
        read
    }

    pub(crate) fn id<T>(
        &mut self,
        field: &str,
        text: Option<&str>,
        read: fn(&str) -> Result<T, crate::ids::InvalidId>,
    ) -> Option<T> {
        let text = text.unwrap_or_default();
        let invalid = match read(text) {
            Ok(id) => return Some(id),
            Err(invalid) => invalid,
        };
        let (min, max) = (invalid.min, invalid.max);
        let allowed = format!("{min}..={max} characters of {}", invalid.allowed);
        self.add(field, text, allowed);
        None
    }

    pub(crate) fn number(
        &mut self,
        field: &str,
        value: Option<i128>,
        min: i128,
        max: i128,
    ) -> Option<i128> {
        let valid = value.filter(|number| (min..=max).contains(number));
        let given = value.map(|number| number.to_string()).unwrap_or_default();
        self.some(
            field,
            given,
            valid,
            format!("a whole number from {min} to {max}"),
        )
    }

    pub(super) fn durability(&mut self, given: Option<&str>) -> Option<Durability> {
        let given = given?;
        self.some(
            "durability",
            given,
            given.parse().ok(),
            "fast, replicated or durable",
        )
    }

    pub(super) fn admission(&mut self, given: Option<&str>) -> Admission {
        let given = given.unwrap_or_else(|| Admission::default().as_str());
        given.parse().unwrap_or_else(|_| {
            let known = Admission::ALL.map(Admission::as_str);
            self.add("admission", given, format!("one of {}", known.join(", ")));
            Admission::default()
        })
    }

    pub(super) fn lottery(&mut self, new: &NewSale, admission: Admission) -> Option<LotteryRules> {
        let lottery = match (&new.lottery, admission) {
            (None, Admission::Open | Admission::AllowList | Admission::Token) => return None,
            (Some(lottery), Admission::Lottery) => lottery,
            (None, Admission::Lottery) | (Some(_), _) => {
                let given = admission.as_str();
                let allowed = "given with admission = lottery, and only then";
                self.add("lottery", given, allowed);
                return None;
            }
        };
        if new.skus.len() != 1 {
            self.add("skus", new.skus.len(), "one sku, in a sale with a lottery");
        }
        let latest = new.starts_at_ms.unwrap_or(MAX_TIME_MS);
        let closes = self.number("lottery.closes_at_ms", lottery.closes_at_ms, 0, latest);
        // Every winner finds their units.
        let stock = new.skus.first().and_then(|sku| sku.stock).unwrap_or(0);
        let most = stock / new.buyer_limit.unwrap_or(1).max(1);
        let most = most.clamp(1, i128::from(MAX_WINNERS));
        let winners = self.number("lottery.winners", lottery.winners, 1, most);
        let commitment = lottery.commitment.clone().unwrap_or_default();
        if !is_hash(&commitment) {
            let allowed = "the SHA-256 of the seed, 64 lower-case hexadecimal digits";
            self.add("lottery.commitment", &commitment, allowed);
        }
        let beacon_source = lottery.beacon_source.clone().unwrap_or_default();
        let is_text = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if beacon_source.len() > BEACON_MAX || !beacon_source.bytes().all(is_text) {
            let allowed = format!("at most {BEACON_MAX} ASCII characters");
            self.add("lottery.beacon_source", &beacon_source, allowed);
        }
        Some(LotteryRules {
            closes_at_ms: closes? as u64,
            winners: winners? as u64,
            commitment,
            beacon_source,
        })
    }

    pub(super) fn slots(&mut self, new: &NewSale) -> Option<SlotRules> {
        let slots = new.slots.as_ref()?;
        let rules = match slots.check() {
            Ok(rules) => rules,
            Err(problems) => {
                self.0.extend(problems);
                return None;
            }
        };
        if !new.skus.is_empty() {
            let allowed = "left out of a sale of slots, whose skus are the slots";
            self.add("skus", new.skus.len(), allowed);
        }
        let is_cut = new.carts.unwrap_or(false) || new.segments.is_some_and(|parts| parts > 1);
        if is_cut {
            let allowed = "one segment and no carts, in a sale of slots";
            self.add("segments", "…", allowed);
        }
        let first = rules.slots().first().map(|slot| slot.starts_at_ms);
        if let (Some(first), Some(starts)) = (first, new.starts_at_ms)
            && i128::from(first) <= starts
        {
            let allowed =
                format!("after the sale has begun ({starts}); the first slot is at {first}");
            self.add("slots.from", &slots.from, allowed);
        }
        Some(rules)
    }

    pub(super) fn rules(&mut self, new: &NewSale) -> Rules {
        let most = new.buyer_limit.unwrap_or(MAX_BUYER_LIMIT).max(1);
        let order_limit = new
            .order_limit
            .and_then(|limit| self.number("order_limit", Some(limit), 1, most));
        let admission = self.admission(new.admission.as_deref());
        Rules {
            stage: match new.draft.unwrap_or(false) {
                true => Stage::Draft,
                false => Stage::Published,
            },
            order_limit: order_limit.map(|limit| limit as u32),
            lottery: self.lottery(new, admission),
            admission,
            ..Rules::default()
        }
    }

    pub(super) fn skus(&mut self, given: &[NewSku]) -> Vec<SkuOnSale> {
        if given.is_empty() || given.len() > MAX_SKUS {
            self.add("skus", given.len(), format!("1 to {MAX_SKUS} skus"));
        }
        let mut seen = HashSet::new();
        let mut skus = Vec::with_capacity(given.len().min(MAX_SKUS));
        for (index, new) in given.iter().enumerate().take(MAX_SKUS) {
            let field = |name: &str| format!("skus[{index}].{name}");
            let sku = self.id(&field("sku"), new.sku.as_deref(), SkuId::try_new);
            let stock = self.number(&field("stock"), new.stock, 0, i128::from(MAX_UNITS));
            let price = self.number(&field("price_minor"), new.price_minor, 0, MAX_PRICE_MINOR);
            if let Some(sku) = &sku
                && !seen.insert(sku.clone())
            {
                let allowed = "a sku that the sale does not list twice";
                self.add(&field("sku"), sku, allowed);
            }
            if let (Some(sku), Some(stock), Some(price)) = (sku, stock, price) {
                skus.push(SkuOnSale {
                    sku,
                    stock: stock as u64,
                    price_minor: price as i64,
                });
            }
        }
        skus
    }
}
