//! An event, and the document that every receiver reads. It is the same bytes for every delivery.

use bytes::Bytes;
use serde::Serialize;

/// What happened to an order, as the shop is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It is sold and awaits its payment.
    Settled,
    /// It had been accepted, but there is no unit for it.
    Refused,
    /// It is paid.
    Paid,
    /// Its units went back.
    Released,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Settled, Self::Refused, Self::Paid, Self::Released];

    /// The word in the outbox; with `order.` before it, the type on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Refused => "refused",
            Self::Paid => "paid",
            Self::Released => "released",
        }
    }
}

/// One event, leased from the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same for every delivery, so that the receiver can recognise a repetition.
    pub id: String,
    /// The order that it is about.
    pub order: String,
    /// Its place among the events of the order.
    pub step: u32,
    /// What happened.
    pub kind: EventKind,
    /// When it happened.
    pub created_at_ms: u64,
    /// How often it was handed out, this time included.
    pub attempts: u32,
    /// The document.
    pub body: Bytes,
}

impl Event {
    /// Its type on the wire.
    pub fn name(&self) -> String {
        name(self.kind)
    }

    /// Writes the document of an event, around that of its order at the event.
    pub fn document(
        id: &str,
        kind: EventKind,
        created_at_ms: u64,
        order: &impl Serialize,
    ) -> Bytes {
        let document = Document {
            id,
            object: "event",
            r#type: name(kind),
            created_at_ms,
            data: Data { order },
        };
        let bytes = serde_json::to_vec(&document).expect("texts and numbers are valid JSON");
        Bytes::from(bytes)
    }
}

fn name(kind: EventKind) -> String {
    format!("order.{}", kind.as_str())
}

#[derive(Serialize)]
struct Document<'a, O> {
    id: &'a str,
    object: &'static str,
    r#type: String,
    created_at_ms: u64,
    data: Data<'a, O>,
}

#[derive(Serialize)]
struct Data<'a, O> {
    order: &'a O,
}
