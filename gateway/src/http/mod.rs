//! Values of HTTP without any state: what the rest of the gateway reads requests and writes answers with.

pub mod client_ip;
pub mod headers;
pub mod malformed;
pub mod network;
pub mod target;

pub mod body_error;
pub mod min_rate;
pub mod problem;
pub mod protocol;
pub mod request_body;
pub mod upload;

pub use self::{
    body_error::BodyError,
    min_rate::{GRACE, MinRate},
    network::Cidr,
    problem::Problem,
    protocol::Protocol,
    request_body::{RequestBody, Unread},
};
