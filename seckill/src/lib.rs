//! Sales, stock, orders and settlement: the flash-sale engine.
//!
//! # Layout, in reading order
//! - [`ids`], [`units`], [`clock`], [`sale`]: the words everything else uses.
//! - The crate [`::stock`]: where stock is taken atomically (embedded engine, Redis).
//! - [`admission`], [`entitlement`], [`lottery`]: who may buy.
//! - [`sold_out`], [`sku_stock`], [`purchase`], [`catalogue`]: from one request to one place in a batch, and back.
//! - [`transfer`]: units move to the buyer, between the segments of a sku.
//! - [`ledger`]: the order ledger, which has the last word.
//! - [`settlement`], [`store_sync`], [`reaper`]: the workers between store and ledger.
//! - The crate `delivery` tells the shop. [`reconcile`]: store and ledger are compared. [`rebuild`]: a store that lost data is rebuilt.
//! - [`backup`]: a node's store and ledger at one instant, and back.
//! - [`engine`], [`api`]: all of it joined, and as buyers call it. [`node`] builds and runs everything.

#![warn(unreachable_pub)]

pub use stock::{clock, ids, units};

pub mod bells;
pub mod jwt;
pub mod sale;

pub mod admission;
pub mod catalogue;
pub mod entitlement;
pub mod lottery;
pub mod purchase;
pub mod sku_stock;
pub mod sold_out;
pub mod transfer;

pub mod ledger;

pub mod lease;

pub mod reaper;
pub mod rebuild;
pub mod reconcile;
pub mod settlement;
pub mod store_sync;

pub mod admin;
pub mod api;
pub mod backup;
pub mod engine;

pub mod config;
mod locks;
pub mod metrics;
pub mod node;
mod pace;
pub mod series;
mod store_calls;
mod ticks;

#[cfg(test)]
mod test_shop;
