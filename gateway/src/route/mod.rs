//! Where a request goes: found by host, path and method, with all that holds for it.

mod entry;
mod late;
mod routes;
pub(crate) mod table;

pub use self::late::Late;
pub(crate) use self::{
    entry::{Route, RunOn, Target},
    routes::Routes,
    table::{Found, RouteTable},
};
