//! What the tests of `stock` and `seckill` share.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "the helpers of tests are tests too"
)]

pub mod conformance;
pub mod disk;
pub mod embedded;
pub mod faulty_store;
pub mod rebuild;
pub mod redis;
