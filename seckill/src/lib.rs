//! Sales, stock, orders and settlement: the flash-sale engine.
//!
//! # Layout, in reading order
//! - [`ids`], [`clock`]: the words everything else uses.
//! - [`store`]: where stock is taken atomically (embedded engine, Redis).

pub mod clock;
pub mod ids;
pub mod store;
