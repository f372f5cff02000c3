//! Where a request goes: found by host, path and method, with all that holds for it.

mod entry;
mod late;
mod routes;
pub mod table;

pub use self::{
    entry::{Route, RunOn, Target},
    late::Late,
    routes::Routes,
    table::{Found, RouteTable},
};
