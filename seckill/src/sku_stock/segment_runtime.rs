//! One segment of a sku as this node runs it: its epoch, its memory of "sold out", and the purchases that are under way.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::InFlight;
use crate::{
    ids::SegmentId,
    pace::Pace,
    sold_out::{SkuSoldOut, SoldOut},
};

/// One segment as requests see it.
pub struct SegmentRuntime {
    /// Which segment.
    pub id: SegmentId,
    /// Its tag in order ids.
    pub tag: u32,
    /// The epoch that calls carry; raised when the store says that it has moved on.
    pub epoch: AtomicU64,
    /// The memory of "sold out", of this segment alone.
    pub sold_out: SoldOut,
    /// The memory of all segments of the sku together.
    pub sku_sold_out: Arc<SkuSoldOut>,
    /// Purchases that the store is deciding.
    pub in_flight: InFlight,
    /// Rung when an order was accepted, for the settlement.
    pub accepted: Arc<Notify>,
    /// How often it is read. A `std` lock, held for one look.
    pub(crate) pace: Mutex<Pace>,
}

impl SegmentRuntime {
    /// A segment with an empty memory, of which nothing is known but that it was opened.
    pub fn new(id: SegmentId, sku_sold_out: Arc<SkuSoldOut>, accepted: Arc<Notify>) -> Self {
        Self {
            tag: id.tag(),
            id,
            // The store's answer to the first call corrects it.
            epoch: AtomicU64::new(1),
            sold_out: SoldOut::default(),
            sku_sold_out,
            in_flight: InFlight::default(),
            accepted,
            pace: Mutex::default(),
        }
    }

    /// The epoch in force as far as this node knows.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// There are units at this version of this epoch.
    pub fn observe_stocked(&self, epoch: u64, version: u64) {
        if self.sold_out.observe_stocked(epoch, version) {
            self.sku_sold_out.news();
        }
    }
}
