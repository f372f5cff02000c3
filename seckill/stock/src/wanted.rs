//! Whether somebody still waits for what a purchase gets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Shared by the caller of a purchase and the store that decides it. A purchase that nobody waits for when its turn comes is not
/// decided: it would hold units that nobody knows of.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// The caller has gone away.
    pub fn give_up(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the caller has gone away.
    pub fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
