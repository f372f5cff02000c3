//! Tells the settlement of this node which segments have accepted something: one bell a segment, so that a purchase wakes the one
//! worker that has work, and all others may rest.

use std::sync::{Arc, Mutex};

use ahash::AHashMap;
use tokio::sync::Notify;

use crate::{ids::SegmentId, locks::Locked};

/// The bells of all segments. Bounded by the segments that this node sells or settles.
#[derive(Debug, Default)]
pub struct Bells {
    /// A `std` lock, held for one lookup.
    bells: Mutex<AHashMap<SegmentId, Arc<Notify>>>,
}

impl Bells {
    /// The bell of one segment. Rung once, it ends one wait, also one that begins later.
    pub fn of(&self, segment: &SegmentId) -> Arc<Notify> {
        let mut bells = self.bells.locked();
        match bells.get(segment) {
            Some(bell) => bell.clone(),
            None => bells.entry(segment.clone()).or_default().clone(),
        }
    }

    /// Something was accepted in a segment.
    pub fn ring(&self, segment: &SegmentId) {
        self.of(segment).notify_one();
    }
}
