//! The per-client token bucket: who may come in, decided at once.
//!
//! On the path: as soon as the route is known, before any upstream or store is touched.
//!
//! * [`RateQuota`]: so many requests per time, with a burst.
//! * [`RateKey`], [`TextKey`]: whose bucket a request draws from.
//! * [`RateLimiter`]: the decision, [`RateLimiter::check`], with the time as an argument.
//! * [`admin_guard`]: a ready-made `tower_governor` layer for small axum routers.
//!
//! **The bound.** A limiter holds at most [`RateLimiter::capacity`] buckets and allocates all of them at start. When a new client
//! finds its place taken, the fullest bucket of that place is given up: usually one that has refilled, so nothing is
//! forgotten; else the client nearest to a full bucket gets its burst back early, and [`RateCounts::evicted`] grows.
//! A client deep in debt is the last to be forgotten, so flooding the table with fresh addresses frees no abuser.

mod key;
mod quota;

mod gcra;
mod limiter;
mod table;

mod fields;
mod guard;

pub use self::{
    fields::{policy_field, remaining_field, retry_after_field},
    guard::{AdminGuard, admin_guard},
    key::{RateKey, TextKey},
    limiter::{Decision, Limited, RateCounts, RateLimiter},
    quota::{RateQuota, RateQuotaError},
};
