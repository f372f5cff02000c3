//! Bounds of what is counted in units.

/// Most units of one sku, restocks included. Redis counts with 64-bit floats inside Lua; above 2^53 they lose units.
pub const MAX_UNITS: u64 = 1 << 53;
