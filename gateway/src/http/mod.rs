//! Values of HTTP without any state: what the rest of the gateway reads requests and writes answers with.

pub(crate) mod client_ip;
pub(crate) mod headers;
pub(crate) mod malformed;
pub(crate) mod network;
pub(crate) mod target;

pub(crate) mod body_error;
pub(crate) mod min_rate;
pub(crate) mod problem;
pub(crate) mod protocol;
pub(crate) mod request_body;
pub(crate) mod upload;

pub(crate) use self::{
    body_error::BodyError,
    min_rate::{GRACE, MinRate},
    network::Cidr,
    problem::Problem,
    protocol::Protocol,
    request_body::{RequestBody, Unread},
};
