//! What the journal holds: events of segments, and their binary form.
//!
//! One record is `kind: u8, segment: u32, fields…`, all integers little-endian, texts as `length: u16, bytes`. Records have no
//! checksum of their own; the frame around a batch of them has (see [`super::journal`]).

use crate::{
    ids::{BuyerId, OrderId, RequestId},
    store::{Gate, OrderState, SegmentSpec, StoredOrder},
};

/// Something that happened to a segment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// An order was accepted.
    Bought { order: StoredOrder },
    /// An unpaid order's units went back.
    Released { order: OrderId },
    /// An order was paid.
    Confirmed { order: OrderId },
    /// Units were added.
    Restocked { id: String, units: u64 },
    /// The operator moved the gate.
    GateSet { gate: Gate },
    /// Window, limit or payment time changed.
    RulesSet { spec: SegmentSpec },
    /// Queue entries were settled.
    Acked { positions: Vec<u64> },
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// A segment was opened; segments are numbered in this order from 0.
    Opened(SegmentSpec),
    /// An event of the segment with that number.
    Event(u32, Event),
}

const OPENED: u8 = 0;
const BOUGHT: u8 = 1;
const RELEASED: u8 = 2;
const CONFIRMED: u8 = 3;
const RESTOCKED: u8 = 4;
const GATE_SET: u8 = 5;
const RULES_SET: u8 = 6;
const ACKED: u8 = 7;

/// Appends the binary form of an opening.
pub(super) fn encode_opened(out: &mut Vec<u8>, number: u32, spec: &SegmentSpec) {
    head(out, OPENED, number);
    put_json(out, spec);
}

/// Appends the binary form of an event.
pub(super) fn encode_event(out: &mut Vec<u8>, segment: u32, event: &Event) {
    match event {
        Event::Bought { order } => {
            head(out, BOUGHT, segment);
            out.extend_from_slice(&order.order.as_u128().to_le_bytes());
            out.extend_from_slice(&order.fingerprint.to_le_bytes());
            out.extend_from_slice(&order.quantity.to_le_bytes());
            out.extend_from_slice(&order.created_at_ms.to_le_bytes());
            out.extend_from_slice(&order.pay_by_ms.to_le_bytes());
            put_text(out, order.buyer.as_str());
            put_text(out, order.request.as_str());
        }
        Event::Released { order } => {
            head(out, RELEASED, segment);
            out.extend_from_slice(&order.as_u128().to_le_bytes());
        }
        Event::Confirmed { order } => {
            head(out, CONFIRMED, segment);
            out.extend_from_slice(&order.as_u128().to_le_bytes());
        }
        Event::Restocked { id, units } => {
            head(out, RESTOCKED, segment);
            out.extend_from_slice(&units.to_le_bytes());
            put_text(out, id);
        }
        Event::GateSet { gate } => {
            head(out, GATE_SET, segment);
            put_json(out, gate);
        }
        Event::RulesSet { spec } => {
            head(out, RULES_SET, segment);
            put_json(out, spec);
        }
        Event::Acked { positions } => {
            head(out, ACKED, segment);
            out.extend_from_slice(&(positions.len() as u32).to_le_bytes());
            for position in positions {
                out.extend_from_slice(&position.to_le_bytes());
            }
        }
    }
}

fn head(out: &mut Vec<u8>, kind: u8, segment: u32) {
    out.push(kind);
    out.extend_from_slice(&segment.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len())
        .expect("ids and restock ids are checked to be shorter than 64 KiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Rare records carry JSON: they can gain fields without a new journal version.
fn put_json<T: serde::Serialize>(out: &mut Vec<u8>, value: &T) {
    let text =
        serde_json::to_string(value).expect("specs and gates hold only numbers and checked ids");
    put_text(out, &text);
}

/// Reads one record from the front of `input` and moves it on. `Err` says what could not be read.
pub(super) fn decode(input: &mut &[u8]) -> Result<Record, String> {
    let kind = take::<1>(input)?[0];
    let segment = u32::from_le_bytes(take(input)?);
    let event = match kind {
        OPENED => return Ok(Record::Opened(json(input)?)),
        BOUGHT => {
            let order = OrderId::from_u128(u128::from_le_bytes(take(input)?));
            let fingerprint = u64::from_le_bytes(take(input)?);
            let quantity = u32::from_le_bytes(take(input)?);
            let created_at_ms = u64::from_le_bytes(take(input)?);
            let pay_by_ms = u64::from_le_bytes(take(input)?);
            let buyer = BuyerId::try_new(text(input)?).map_err(|e| e.to_string())?;
            let request = RequestId::try_new(text(input)?).map_err(|e| e.to_string())?;
            let state = OrderState::Reserved;
            let order = StoredOrder {
                order,
                buyer,
                request,
                quantity,
                fingerprint,
                state,
                created_at_ms,
                pay_by_ms,
            };
            Event::Bought { order }
        }
        RELEASED => Event::Released {
            order: OrderId::from_u128(u128::from_le_bytes(take(input)?)),
        },
        CONFIRMED => Event::Confirmed {
            order: OrderId::from_u128(u128::from_le_bytes(take(input)?)),
        },
        RESTOCKED => {
            let units = u64::from_le_bytes(take(input)?);
            Event::Restocked {
                units,
                id: text(input)?.to_owned(),
            }
        }
        GATE_SET => Event::GateSet { gate: json(input)? },
        RULES_SET => Event::RulesSet { spec: json(input)? },
        ACKED => {
            let count = u32::from_le_bytes(take(input)?);
            let positions = (0..count).map(|_| Ok(u64::from_le_bytes(take(input)?)));
            Event::Acked {
                positions: positions.collect::<Result<_, String>>()?,
            }
        }
        other => return Err(format!("unknown record kind {other}")),
    };
    Ok(Record::Event(segment, event))
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], String> {
    let (head, rest) = input
        .split_first_chunk::<N>()
        .ok_or("record is cut short")?;
    *input = rest;
    Ok(*head)
}

fn text<'a>(input: &mut &'a [u8]) -> Result<&'a str, String> {
    let length = usize::from(u16::from_le_bytes(take(input)?));
    let (head, rest) = input.split_at_checked(length).ok_or("text is cut short")?;
    *input = rest;
    std::str::from_utf8(head).map_err(|_| "text is not UTF-8".to_owned())
}

fn json<T: serde::de::DeserializeOwned>(input: &mut &[u8]) -> Result<T, String> {
    serde_json::from_str(text(input)?).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{SaleId, SegmentId, SkuId};

    fn order(raw: u128, quantity: u32, fingerprint: u64) -> StoredOrder {
        StoredOrder {
            order: OrderId::from_u128(raw),
            buyer: BuyerId::try_new("b-1").unwrap(),
            request: RequestId::try_new("r/1").unwrap(),
            quantity,
            fingerprint,
            state: OrderState::Reserved,
            created_at_ms: 7,
            pay_by_ms: 9,
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (any::<u128>(), any::<u32>(), any::<u64>()).prop_map(|(raw, quantity, fingerprint)| {
                Event::Bought {
                    order: order(raw, quantity, fingerprint),
                }
            }),
            any::<u128>().prop_map(|raw| Event::Released {
                order: OrderId::from_u128(raw)
            }),
            any::<u128>().prop_map(|raw| Event::Confirmed {
                order: OrderId::from_u128(raw)
            }),
            ("[a-z0-9]{1,40}", any::<u64>()).prop_map(|(id, units)| Event::Restocked { id, units }),
            Just(Event::GateSet { gate: Gate::Paused }),
            prop::collection::vec(any::<u64>(), 0..50)
                .prop_map(|positions| Event::Acked { positions }),
        ]
    }

    proptest! {
        #[test]
        fn every_event_survives_its_binary_form(events in prop::collection::vec(event(), 0..20)) {
            let mut bytes = Vec::new();
            for event in &events {
                encode_event(&mut bytes, 3, event);
            }
            let mut rest = bytes.as_slice();
            for event in events {
                prop_assert_eq!(decode(&mut rest), Ok(Record::Event(3, event)));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() && decode(&mut rest).is_ok() {}
        }
    }

    #[test]
    fn an_opening_survives_its_binary_form() {
        let id = SegmentId::first(SaleId::try_new("s").unwrap(), SkuId::try_new("k").unwrap());
        let spec = SegmentSpec {
            id,
            stock: 5,
            starts_at_ms: 1,
            ends_at_ms: 2,
            buyer_limit: 3,
            pay_within_ms: 4,
            durability: None,
        };
        let mut bytes = Vec::new();
        encode_opened(&mut bytes, 0, &spec);
        assert_eq!(decode(&mut bytes.as_slice()), Ok(Record::Opened(spec)));
    }
}
