//! The event as the shop reads it. The same bytes for every delivery of an event.

use serde::Serialize;

use crate::ledger::{EventKind, LedgerOrder, OrderStatus, OutboxEvent};

/// An event document.
#[derive(Debug, Serialize)]
pub struct Event {
    id: String,
    object: &'static str,
    r#type: String,
    created_at_ms: u64,
    data: Data,
}

#[derive(Debug, Serialize)]
struct Data {
    order: LedgerOrder,
}

impl Event {
    /// The document of an outbox event.
    pub fn new(source: &OutboxEvent) -> Self {
        // The row may have moved on since; the event tells what it was then.
        let status = match source.kind {
            EventKind::Settled => OrderStatus::Reserved,
            EventKind::Refused => OrderStatus::Refused,
            EventKind::Paid => OrderStatus::Paid,
            EventKind::Released => OrderStatus::Released,
        };
        Self {
            id: source.id(),
            object: "event",
            r#type: format!("order.{}", source.kind.as_str()),
            created_at_ms: source.created_at_ms,
            data: Data {
                order: LedgerOrder {
                    status,
                    ..source.order.clone()
                },
            },
        }
    }

    /// The body of the POST.
    pub fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are valid JSON")
    }
}
