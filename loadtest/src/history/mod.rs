//! What the clients saw. Two records of it, made side by side while a run goes on:
//!
//! - the [`History`] ([`witness`]): two bytes a purchase, kept in memory, set against the ledger by [`crate::reconcile()`];
//! - the *history file* ([`event`]): every invocation and every answer with its times, and the faults in between, one JSON
//!   document a line, written by [`HistoryWriter`] and read by [`read`](read()) for [`crate::oracle`], which judges every instant of it.
//!
//! Neither concludes anything: a client writes down what it sent and what came back.

pub mod event;
mod finish;
mod reader;
pub mod witness;
mod writer;

pub use event::{Action, Event, Header, Level};
pub use finish::write_end_facts;
pub use reader::{BadHistory, Read, read, read_file};
pub use witness::{History, HistorySummary};
pub use writer::{HistoryWriter, Tape, Written};
