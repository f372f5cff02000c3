//! The double-entry ledger: where money is, and every move it made.
//!
//! Money moves by [`pend`] and then [`post`] or [`void`], each an immutable transfer with two legs, run inside the caller's SQL
//! transaction. Pending money counts against what a guarded account can give, so the second step can never break a limit.
//! [`check`] proves the books afterwards.
//!
//! ```text
//!                 debit                  credit
//! charge          channel:simulator:usd  merchant:07:usd     money the channel owes us, money we owe the shop
//! late refund     merchant:07:usd        channel:simulator:usd
//! ```

mod account;
mod outcome;
mod transfer;
mod transfer_id;

mod check;

mod error;

pub(crate) use self::check::check_transfers;
pub use self::{
    account::AccountId,
    check::{Finding, check},
    error::LedgerError,
    outcome::{Recorded, Resolved},
    transfer::{Transfer, pend, post, void},
    transfer_id::TransferId,
};
