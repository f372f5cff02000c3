//! A sale as the admin API takes it, and the check that makes a [`Sale`] of it or names every problem at once.

use serde::{Deserialize, Serialize};
use settings::units::duration_ms;
use stock::Gate;

use super::{NewSlots, Sale, SkuOnSale, Stage, checks::Problems};
use crate::ids::SaleId;

/// See [`MAX_PRICE_MINOR`].
pub(super) const MAX_BUYER_LIMIT: i128 = 1_000_000;
/// Last instant a sale may name: the time part of an order id has 48 bits.
pub(super) const MAX_TIME_MS: i128 = (1 << 48) - 1;
/// Shorter than this no payment page can answer.
const MIN_PAY_WITHIN_MS: u64 = 1_000;
/// Most parts of one sku's stock: more than any cluster has primaries to spread them over.
const MAX_SEGMENTS: i128 = 64;
/// Most segments of a whole sale: each has a settlement worker, and a short tag that no other may have.
const MAX_SEGMENTS_OF_SALE: u64 = 4_096;
/// 30 days.
const MAX_PAY_WITHIN_MS: u64 = 30 * 24 * 3_600_000;

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
    /// Whether it stays a draft until it is published; no if missing.
    pub draft: Option<bool>,
    /// Most units of one order; only the buyer limit bounds it if missing.
    pub order_limit: Option<i128>,
    /// Who may buy: `open` (if missing), `allow_list`, `token` or `lottery`.
    pub admission: Option<String>,
    /// With `admission = lottery`: how it is drawn.
    pub lottery: Option<NewLottery>,
    /// Time slots of stores, in place of `skus`.
    pub slots: Option<NewSlots>,
}

/// The lottery of a [`NewSale`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewLottery {
    /// Unix milliseconds; not later than the sale's start.
    pub closes_at_ms: Option<i128>,
    /// Winners of the first round.
    pub winners: Option<i128>,
    /// SHA-256 of the seed.
    pub commitment: Option<String>,
    /// Where the beacon will come from; none if missing.
    pub beacon_source: Option<String>,
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
            let allowed = format!("later than starts_at_ms ({starts})");
            problems.add("ends_at_ms", ends, allowed);
        }
        let given = self.pay_within.as_deref().unwrap_or_default();
        let is_payable = |ms: &u64| (MIN_PAY_WITHIN_MS..=MAX_PAY_WITHIN_MS).contains(ms);
        let pay_within_ms = duration_ms(given).filter(is_payable);
        let allowed = "a duration from 1s to 30d, as in 90s, 15m, 2h";
        let pay_within_ms = problems.some("pay_within", given, pay_within_ms, allowed);
        let buyer_limit = problems.number("buyer_limit", self.buyer_limit, 1, MAX_BUYER_LIMIT);
        let currency = self.currency.clone().unwrap_or_default();
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
            let allowed = "an ISO 4217 code in lower case, as in usd";
            problems.add("currency", &currency, allowed);
        }
        let slots = problems.slots(self);
        let skus = match &slots {
            Some(slots) => slots.skus(),
            // What is wrong with the slots was told.
            None if self.slots.is_some() => Vec::new(),
            None => problems.skus(&self.skus),
        };
        let segments = problems.number("segments", self.segments.or(Some(1)), 1, MAX_SEGMENTS);
        if let Some(segments) = segments
            && segments as u64 * skus.len() as u64 > MAX_SEGMENTS_OF_SALE
        {
            let most = MAX_SEGMENTS_OF_SALE / skus.len() as u64;
            let allowed = format!("at most {most} for so many skus");
            problems.add("segments", segments, allowed);
        }
        let carts = self.carts.unwrap_or(false);
        if carts && segments.is_some_and(|segments| segments > 1) {
            let allowed = "false in a sale whose stock is cut into segments";
            problems.add("carts", carts, allowed);
        }
        let durability = problems.durability(self.durability.as_deref());
        let mut rules = problems.rules(self);
        rules.slots = slots;
        let window = starts_at_ms.zip(ends_at_ms);
        let limits = pay_within_ms.zip(buyer_limit).zip(segments);
        let (true, Some(id), Some((starts, ends)), Some(((pay_within_ms, limit), segments))) =
            (problems.0.is_empty(), id, window, limits)
        else {
            return Err(problems.0);
        };
        Ok(Sale {
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
            rules,
        })
    }
}

impl From<&Sale> for NewSale {
    /// The document that makes this sale: what an edit starts from.
    fn from(sale: &Sale) -> Self {
        let sku = |sku: &SkuOnSale| NewSku {
            sku: Some(sku.sku.to_string()),
            stock: Some(sku.stock.into()),
            price_minor: Some(sku.price_minor.into()),
        };
        Self {
            id: Some(sale.id.to_string()),
            starts_at_ms: Some(sale.starts_at_ms.into()),
            ends_at_ms: Some(sale.ends_at_ms.into()),
            pay_within: Some(format!("{}ms", sale.pay_within_ms)),
            buyer_limit: Some(sale.buyer_limit.into()),
            currency: Some(sale.currency.clone()),
            skus: match &sale.rules.slots {
                Some(_) => Vec::new(),
                None => sale.skus.iter().map(sku).collect(),
            },
            slots: sale.rules.slots.as_ref().map(NewSlots::from),
            segments: Some(sale.segments.into()),
            carts: Some(sale.carts),
            durability: sale.durability.map(|level| level.to_string()),
            draft: Some(sale.rules.stage == Stage::Draft),
            order_limit: sale.rules.order_limit.map(i128::from),
            admission: Some(sale.rules.admission.as_str().to_owned()),
            lottery: sale.rules.lottery.as_ref().map(|lottery| NewLottery {
                closes_at_ms: Some(lottery.closes_at_ms.into()),
                winners: Some(lottery.winners.into()),
                commitment: Some(lottery.commitment.clone()),
                beacon_source: Some(lottery.beacon_source.clone()),
            }),
        }
    }
}
