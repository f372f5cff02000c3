//! What the clients saw, in two forms:
//!
//! - the [`ClientLog`]: two bytes a purchase, kept in memory by every run;
//! - the *history file* ([`event`]): every invocation and every answer with its times, and the faults in between. It has one JSON
//!   document a line. [`HistoryWriter`] writes it and [`read`](read()) reads it.
//!
//! Both are judged by [`crate::oracle`]. Neither concludes anything: it says what was sent and what came back.

mod client_log;
pub mod event;
mod reader;
mod writer;

pub use client_log::{ClientLog, ClientSummary, NamedOrder};
pub use event::{Action, Event, Header, Level};
pub use reader::{BadHistory, Read, read, read_file};
pub use writer::{HistorySender, HistoryWriter, Written};
