//! Parameters of each endpoint, from form to types. Everything that is wrong with a request by itself is found here, before any work.

mod cancel;
mod card_data;
mod confirm;
mod create;
mod fields;
mod read;

pub(crate) use self::{
    cancel::Cancel,
    card_data::{card_data_refused, holds_secret, refuse_card_data},
    confirm::Confirm,
    create::Create,
    read::{Page, Retrieve},
};
