//! A client's connection: accepted, shaken hands with, served until it ends, and kept within its bounds meanwhile.

pub(crate) mod client;
pub(crate) mod drain;
pub(crate) mod registry;
pub(crate) mod sending;

pub(crate) mod accept;
mod handshake;
mod linger;
mod preface;
mod serve;

pub(crate) use self::{
    accept::{Listening, accept},
    client::{Client, Command},
    drain::Drain,
    registry::Connections,
    serve::Answer,
};
