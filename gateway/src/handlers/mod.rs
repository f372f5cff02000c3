//! What answers inside this process: routers of the sale and the payment API, and redirects.

mod redirect;
mod router;

pub(crate) use self::{
    redirect::redirect,
    router::{Handler, call},
};
