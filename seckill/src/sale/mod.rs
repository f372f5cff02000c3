//! A sale: a window of time in which skus are sold under a buyer limit.
//!
//! [`NewSale`] is what the admin API takes; [`NewSale::check`] turns it into a [`Sale`] or names every problem at once.
//! The order ledger keeps sales ([`crate::ledger`]); the stock store only learns the [`SegmentSpec`]s made from them.

mod checks;
mod document;
mod lifecycle;
mod rules;
mod slots;

use serde::{Deserialize, Serialize};
use stock::{Durability, Gate, KEPT, SegmentSpec};

use crate::ids::{SaleId, SegmentId, SkuId};

pub(crate) use self::checks::Problems;
pub use self::{
    document::{FieldProblem, NewLottery, NewSale, NewSku},
    lifecycle::{MOVE_LEAD_MS, MoveRefused, SaleEvent, SaleState, check_move},
    rules::{Admission, Rules, Stage},
    slots::{NewSlots, Slot, SlotRules},
};

/// With [`MAX_BUYER_LIMIT`] it keeps `quantity * price` inside 63 bits.
const MAX_PRICE_MINOR: i128 = 1_000_000_000_000;
/// A sale is one document and its skus are opened one by one; more belong into several sales.
const MAX_SKUS: usize = 1_000;

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
    /// What the store need not know.
    #[serde(flatten)]
    pub rules: Rules,
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
        self.sku(sku)
            .map(|found| self.parts_of(&found.sku))
            .unwrap_or_default()
    }

    /// All segments of all skus.
    pub fn segment_ids(&self) -> impl Iterator<Item = SegmentId> {
        self.skus.iter().flat_map(|sku| self.parts_of(&sku.sku))
    }

    fn parts_of(&self, sku: &SkuId) -> Vec<SegmentId> {
        if self.carts {
            return vec![SegmentId::of_cart(self.id.clone(), sku.clone())];
        }
        let part = |index| SegmentId {
            sale: self.id.clone(),
            sku: sku.clone(),
            index,
        };
        (0..self.segments).map(part).collect()
    }

    /// When the last of its orders has to be paid.
    pub fn last_payment_ms(&self) -> u64 {
        self.ends_at_ms.saturating_add(self.pay_within_ms)
    }

    /// How long a request of it may be repeated and must find its order.
    pub fn kept_until_ms(&self) -> u64 {
        let kept_ms = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        self.last_payment_ms().saturating_add(kept_ms)
    }

    /// One sku of the sale.
    pub fn sku(&self, sku: &SkuId) -> Option<&SkuOnSale> {
        self.skus.iter().find(|candidate| candidate.sku == *sku)
    }

    /// First instant at which a sku is no longer sold: a slot's own beginning, if that comes before the end of the sale.
    pub fn ends_at_ms_of(&self, sku: &SkuId) -> u64 {
        let slot = self.rules.slots.as_ref().and_then(|slots| slots.slot(sku));
        slot.map_or(self.ends_at_ms, |slot| {
            self.ends_at_ms.min(slot.starts_at_ms)
        })
    }

    /// What the stock store has to open, sku by sku.
    pub fn segment_specs(&self) -> Vec<SegmentSpec> {
        let specs = self.skus.iter().flat_map(|sku| {
            let ids = self.parts_of(&sku.sku);
            let shares = shares(sku.stock, ids.len());
            ids.into_iter().zip(shares)
        });
        let spec = |(id, stock): (SegmentId, u64)| SegmentSpec {
            ends_at_ms: self.ends_at_ms_of(&id.sku),
            id,
            stock,
            starts_at_ms: self.starts_at_ms,
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

#[cfg(test)]
mod tests;
