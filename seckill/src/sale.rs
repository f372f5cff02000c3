//! A sale: a window of time in which skus are sold under a buyer limit.
//!
//! [`NewSale`] is what the admin API takes; [`NewSale::check`] turns it into a [`Sale`] or names every problem at once.
//! The order ledger keeps sales ([`crate::ledger`]); the stock store only learns the [`SegmentSpec`]s made from them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{SaleId, SegmentId, SkuId},
    store::{Durability, Gate, SegmentSpec},
};

/// Most units of one sku, restocks included. Redis counts with 64-bit floats inside Lua; above 2^53 they lose units.
pub const MAX_UNITS: u64 = 1 << 53;
/// With [`MAX_BUYER_LIMIT`] it keeps `quantity * price` inside 63 bits.
const MAX_PRICE_MINOR: i128 = 1_000_000_000_000;
/// See [`MAX_PRICE_MINOR`].
const MAX_BUYER_LIMIT: i128 = 1_000_000;
/// A sale is one document and its skus are opened one by one; more belong into several sales.
const MAX_SKUS: usize = 1_000;
/// Last instant a sale may name: the time part of an order id has 48 bits.
const MAX_TIME_MS: i128 = (1 << 48) - 1;
/// Shorter than this no payment page can answer.
const MIN_PAY_WITHIN_MS: u64 = 1_000;
/// Most parts of one sku's stock: more than any cluster has primaries to spread them over.
const MAX_SEGMENTS: i128 = 64;
/// Most segments of a whole sale: each has a lane and a settlement worker, and a short tag that no other may have.
const MAX_SEGMENTS_OF_SALE: u64 = 4_096;
/// 30 days.
const MAX_PAY_WITHIN_MS: u64 = 30 * 24 * 3_600_000;

/// A sale as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// Its id.
    pub id: SaleId,
    /// First instant of the window.
    pub starts_at_ms: u64,
    /// First instant after the window.
    pub ends_at_ms: u64,
    /// How long an order may stay unpaid.
    pub pay_within_ms: u64,
    /// Most live units of one sku that one buyer may hold.
    pub buyer_limit: u32,
    /// ISO 4217, lower case.
    pub currency: String,
    /// What is sold.
    pub skus: Vec<SkuOnSale>,
    /// The operator's gate.
    pub gate: Gate,
    /// Into how many segments each sku's stock is cut.
    pub segments: u16,
    /// Whether several skus can be bought in one step; then each sku is one segment, and all of them live together.
    pub carts: bool,
    /// What an acceptance waits for; `None`: what the store was configured with.
    pub durability: Option<Durability>,
}

/// One sku of a sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkuOnSale {
    /// Its id.
    pub sku: SkuId,
    /// Units on sale at the start; restocks are kept apart.
    pub stock: u64,
    /// Price of one unit.
    pub price_minor: i64,
}

impl Sale {
    /// The segments of one sku, in the order of their indexes; none if the sale does not sell it.
    pub fn segments_of(&self, sku: &SkuId) -> Vec<SegmentId> {
        let Some(sku) = self.sku(sku).map(|found| found.sku.clone()) else {
            return Vec::new();
        };
        if self.carts {
            return vec![SegmentId::of_cart(self.id.clone(), sku)];
        }
        let part = |index| SegmentId {
            sale: self.id.clone(),
            sku: sku.clone(),
            index,
        };
        (0..self.segments).map(part).collect()
    }

    /// One sku of the sale.
    pub fn sku(&self, sku: &SkuId) -> Option<&SkuOnSale> {
        self.skus.iter().find(|candidate| candidate.sku == *sku)
    }

    /// What the stock store has to open, sku by sku.
    pub fn segment_specs(&self) -> Vec<SegmentSpec> {
        let specs = self.skus.iter().flat_map(|sku| {
            let ids = self.segments_of(&sku.sku);
            let shares = shares(sku.stock, ids.len());
            ids.into_iter().zip(shares)
        });
        let spec = |(id, stock)| SegmentSpec {
            id,
            stock,
            starts_at_ms: self.starts_at_ms,
            ends_at_ms: self.ends_at_ms,
            buyer_limit: self.buyer_limit,
            pay_within_ms: self.pay_within_ms,
            durability: self.durability,
        };
        specs.map(spec).collect()
    }
}

/// Cuts `units` into `parts` that differ by one at most, the larger ones first.
pub fn shares(units: u64, parts: usize) -> impl Iterator<Item = u64> {
    let parts = parts as u64;
    (0..parts).map(move |part| units / parts + u64::from(part < units % parts))
}

/// One thing wrong with a document: which field, what it held, what it may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldProblem {
    /// Path of the field, as in `skus[2].stock`.
    pub field: String,
    /// The value as it was given; empty when it was missing.
    pub value: String,
    /// What would be accepted.
    pub allowed: String,
}

/// A sale as the admin API takes it. Every field is optional here, so that all that is missing is told at once; numbers are
/// wide, so that −1 and 2^63 are told as values out of range.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewSale {
    /// Id of the sale.
    pub id: Option<String>,
    /// Unix milliseconds.
    pub starts_at_ms: Option<i128>,
    /// Unix milliseconds.
    pub ends_at_ms: Option<i128>,
    /// As in `15m`.
    pub pay_within: Option<String>,
    /// Live units of one sku per buyer.
    pub buyer_limit: Option<i128>,
    /// ISO 4217, lower case.
    pub currency: Option<String>,
    /// What is sold.
    pub skus: Vec<NewSku>,
    /// Parts of each sku's stock, for a cluster; 1 if missing.
    pub segments: Option<i128>,
    /// Whether several skus can be bought in one step; no if missing.
    pub carts: Option<bool>,
    /// `fast`, `replicated` or `durable`; what the store was configured with if missing.
    pub durability: Option<String>,
}

/// One sku of a [`NewSale`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewSku {
    /// Its id.
    pub sku: Option<String>,
    /// Units on sale.
    pub stock: Option<i128>,
    /// Price of one unit.
    pub price_minor: Option<i128>,
}

impl NewSale {
    /// Checks every field and gives the sale, its gate open, or all problems.
    pub fn check(&self) -> Result<Sale, Vec<FieldProblem>> {
        let mut problems = Problems::default();
        let id = problems.id("id", self.id.as_deref(), SaleId::try_new);
        let starts_at_ms = problems.number("starts_at_ms", self.starts_at_ms, 0, MAX_TIME_MS);
        let ends_at_ms = problems.number("ends_at_ms", self.ends_at_ms, 1, MAX_TIME_MS);
        if let (Some(starts), Some(ends)) = (starts_at_ms, ends_at_ms)
            && starts >= ends
        {
            problems.add(
                "ends_at_ms",
                ends,
                format!("later than starts_at_ms ({starts})"),
            );
        }
        let pay_within_ms = self.pay_within.as_deref().and_then(parse_duration_ms);
        let pay_within_ms =
            pay_within_ms.filter(|ms| (MIN_PAY_WITHIN_MS..=MAX_PAY_WITHIN_MS).contains(ms));
        if pay_within_ms.is_none() {
            let given = self.pay_within.clone().unwrap_or_default();
            problems.add(
                "pay_within",
                given,
                "a duration from 1s to 30d, as in 90s, 15m, 2h",
            );
        }
        let buyer_limit = problems.number("buyer_limit", self.buyer_limit, 1, MAX_BUYER_LIMIT);
        let currency = self.currency.clone().unwrap_or_default();
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
            problems.add(
                "currency",
                &currency,
                "an ISO 4217 code in lower case, as in usd",
            );
        }
        let skus = problems.skus(&self.skus);
        let segments = problems.number("segments", self.segments.or(Some(1)), 1, MAX_SEGMENTS);
        if let Some(segments) = segments
            && segments as u64 * skus.len() as u64 > MAX_SEGMENTS_OF_SALE
        {
            let most = MAX_SEGMENTS_OF_SALE / skus.len() as u64;
            problems.add(
                "segments",
                segments,
                format!("at most {most} for so many skus"),
            );
        }
        let carts = self.carts.unwrap_or(false);
        if carts && segments.is_some_and(|segments| segments > 1) {
            problems.add(
                "carts",
                carts,
                "false in a sale whose stock is cut into segments",
            );
        }
        let durability = problems.durability(self.durability.as_deref());

        match (
            problems.0.is_empty(),
            id,
            starts_at_ms,
            ends_at_ms,
            pay_within_ms,
            buyer_limit,
            segments,
        ) {
            (
                true,
                Some(id),
                Some(starts),
                Some(ends),
                Some(pay_within_ms),
                Some(limit),
                Some(segments),
            ) => Ok(Sale {
                id,
                starts_at_ms: starts as u64,
                ends_at_ms: ends as u64,
                pay_within_ms,
                buyer_limit: limit as u32,
                currency,
                skus,
                gate: Gate::Open,
                segments: segments as u16,
                carts,
                durability,
            }),
            _ => Err(problems.0),
        }
    }
}

/// Collects instead of stopping at the first.
#[derive(Default)]
struct Problems(Vec<FieldProblem>);

impl Problems {
    fn add(&mut self, field: &str, value: impl ToString, allowed: impl Into<String>) {
        self.0.push(FieldProblem {
            field: field.to_owned(),
            value: value.to_string(),
            allowed: allowed.into(),
        });
    }

    fn id<T>(
        &mut self,
        field: &str,
        text: Option<&str>,
        read: fn(&str) -> Result<T, crate::ids::InvalidId>,
    ) -> Option<T> {
        let text = text.unwrap_or_default();
        match read(text) {
            Ok(id) => Some(id),
            Err(invalid) => {
                self.add(
                    field,
                    text,
                    format!(
                        "{}..={} characters of {}",
                        invalid.min, invalid.max, invalid.allowed
                    ),
                );
                None
            }
        }
    }

    fn number(&mut self, field: &str, value: Option<i128>, min: i128, max: i128) -> Option<i128> {
        let valid = value.filter(|number| (min..=max).contains(number));
        if valid.is_none() {
            let given = value.map(|number| number.to_string()).unwrap_or_default();
            self.add(field, given, format!("a whole number from {min} to {max}"));
        }
        valid
    }

    fn durability(&mut self, given: Option<&str>) -> Option<Durability> {
        let given = given?;
        let known = Durability::from_name(given);
        if known.is_none() {
            self.add("durability", given, "fast, replicated or durable");
        }
        known
    }

    fn skus(&mut self, given: &[NewSku]) -> Vec<SkuOnSale> {
        if given.is_empty() || given.len() > MAX_SKUS {
            self.add("skus", given.len(), format!("1 to {MAX_SKUS} skus"));
        }
        let mut seen = HashSet::new();
        let mut skus = Vec::with_capacity(given.len().min(MAX_SKUS));
        for (index, new) in given.iter().enumerate().take(MAX_SKUS) {
            let sku = self.id(
                &format!("skus[{index}].sku"),
                new.sku.as_deref(),
                SkuId::try_new,
            );
            let stock = self.number(
                &format!("skus[{index}].stock"),
                new.stock,
                0,
                i128::from(MAX_UNITS),
            );
            let price = self.number(
                &format!("skus[{index}].price_minor"),
                new.price_minor,
                0,
                MAX_PRICE_MINOR,
            );
            if let Some(sku) = &sku
                && !seen.insert(sku.clone())
            {
                self.add(
                    &format!("skus[{index}].sku"),
                    sku,
                    "a sku that the sale does not list twice",
                );
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

/// Reads `250ms`, `90s`, `15m`, `2h`, `1d` as milliseconds; `None` if it is none of these or does not fit.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn valid() -> serde_json::Value {
        json!({
            "id": "spring", "starts_at_ms": 1_000, "ends_at_ms": 2_000, "pay_within": "15m", "buyer_limit": 2,
            "currency": "usd", "skus": [{"sku": "shoe-42", "stock": 1000, "price_minor": 1999}]
        })
    }

    fn check(value: serde_json::Value) -> Result<Sale, Vec<FieldProblem>> {
        serde_json::from_value::<NewSale>(value)
            .expect("the form is right")
            .check()
    }

    #[test]
    fn a_valid_sale_becomes_one_segment_per_sku() {
        let sale = check(valid()).unwrap();
        assert_eq!((sale.pay_within_ms, sale.gate), (900_000, Gate::Open));
        let specs = sale.segment_specs();
        assert_eq!(specs.len(), 1);
        assert_eq!(specs[0].id.to_string(), "spring:shoe-42:0");
        assert_eq!(specs[0].stock, 1000);
        assert_eq!(sale.segments_of(&SkuId::try_new("other").unwrap()), []);
    }

    #[test]
    fn a_sale_in_segments_cuts_every_skus_stock() {
        let mut sale = valid();
        sale["segments"] = json!(3);
        sale["durability"] = json!("replicated");
        let specs = check(sale).unwrap().segment_specs();
        let stocks: Vec<_> = specs.iter().map(|spec| spec.stock).collect();
        assert_eq!(stocks, [334, 333, 333]);
        assert_eq!(specs[2].id.to_string(), "spring:shoe-42:2");
        assert_eq!(specs[0].durability, Some(Durability::Replicated));
    }

    #[test]
    fn a_sale_has_a_bounded_number_of_segments() {
        let mut sale = valid();
        sale["segments"] = json!(64);
        let skus = |count: usize| -> serde_json::Value {
            (0..count)
                .map(|n| json!({"sku": format!("s{n}"), "stock": 1, "price_minor": 1}))
                .collect()
        };
        sale["skus"] = skus(64);
        assert_eq!(check(sale.clone()).unwrap().segment_specs().len(), 4_096);
        sale["skus"] = skus(65);
        let problems = check(sale.clone()).unwrap_err();
        assert_eq!(
            (problems[0].field.as_str(), problems[0].allowed.as_str()),
            ("segments", "at most 63 for so many skus")
        );
        sale["skus"] = skus(1);
        sale["segments"] = json!(65);
        assert_eq!(check(sale).unwrap_err()[0].field, "segments");
    }

    #[test]
    fn a_sale_with_carts_is_not_cut() {
        let mut sale = valid();
        sale["carts"] = json!(true);
        assert!(
            check(sale.clone()).unwrap().segment_specs()[0]
                .id
                .is_of_cart()
        );
        sale["segments"] = json!(2);
        sale["durability"] = json!("safe");
        let fields: Vec<_> = check(sale)
            .unwrap_err()
            .into_iter()
            .map(|problem| problem.field)
            .collect();
        assert_eq!(fields, ["carts", "durability"]);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let problems = check(json!({
            "id": "a b", "starts_at_ms": 5, "ends_at_ms": 5, "pay_within": "0s", "buyer_limit": 0, "currency": "USD",
            "skus": [{"sku": "x", "stock": -1, "price_minor": -1}, {"sku": "x", "stock": 9007199254740993u64, "price_minor": 1}]
        }))
        .unwrap_err();
        let fields: Vec<_> = problems
            .iter()
            .map(|problem| problem.field.as_str())
            .collect();
        let expected = [
            "id",
            "ends_at_ms",
            "pay_within",
            "buyer_limit",
            "currency",
            "skus[0].stock",
            "skus[0].price_minor",
            "skus[1].stock",
            "skus[1].sku",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn an_empty_document_names_every_field() {
        let problems = check(json!({})).unwrap_err();
        assert_eq!(problems.len(), 7);
        assert!(problems.iter().all(|problem| !problem.allowed.is_empty()));
    }

    #[test]
    fn more_than_a_thousand_skus_are_refused() {
        let mut sale = valid();
        sale["skus"] = (0..1001)
            .map(|n| json!({"sku": format!("s{n}"), "stock": 1, "price_minor": 1}))
            .collect();
        assert_eq!(check(sale).unwrap_err()[0].value, "1001");
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration_ms("250ms"), Some(250));
        assert_eq!(parse_duration_ms("2h"), Some(7_200_000));
        for text in [
            "",
            "5",
            "m",
            "-1s",
            "1.5s",
            "5 s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration_ms(text), None, "{text:?}");
        }
    }
}
