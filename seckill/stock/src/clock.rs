//! Wall time as an argument: the crate never asks the system itself, so tests decide what time it is.

use std::sync::Arc;

/// Reads unix milliseconds.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;
