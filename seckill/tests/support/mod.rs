//! What the tests need around the crate.

pub mod redis;
