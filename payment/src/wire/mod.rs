//! The wire: the only module that knows HTTP and Stripe's forms, JSON and statuses.
//!
//! Order on a request: `router.rs` → `request.rs` (key → path → body → idempotency key) → `params/` → the saga or a read → `objects/` or
//! `error/` → `answer.rs` → `response.rs`.

mod router;

mod auth;
mod echo;
mod form;
mod request;
mod version;

mod params;

mod expand;
mod objects;

mod answer;
mod error;
mod response;

use crate::{idempotency, saga::Render};

pub(crate) use self::{auth::Auth, error::WireError, router::router};

/// How the saga's decisions look when they are kept and shown.
pub(crate) fn render() -> Render {
    Render {
        intent: |intent| idempotency::Answer {
            code: 200,
            body: objects::intent::json(intent).to_string(),
        },
        refusal: error::refusal,
    }
}
