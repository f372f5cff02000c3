//! A client's connection: accepted, shaken hands with, served until it ends, and kept within its bounds meanwhile.

pub mod client;
pub mod drain;
pub mod registry;
pub mod sending;

pub mod accept;
mod handshake;
mod linger;
mod preface;
mod serve;

pub use self::{
    accept::{Listening, accept},
    client::{Client, Command},
    drain::Drain,
    registry::Connections,
    serve::Answer,
};
