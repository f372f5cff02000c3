//! What the journal holds: events of segments, and their binary form.
//!
//! One record is `kind: u8, segment: u32, fields…`, all integers little-endian, texts as `length: u32, bytes`. Records have no
//! checksum of their own; the frame around a batch of them has (see [`super::journal`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Gate, Metadata, OrderState, SegmentSpec, StoredOrder,
    ids::{BuyerId, OrderId, RequestId},
};

/// Something that happened to a segment. Orders are named by their index, which is the order of acceptance.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// An order was accepted.
    Bought { order: StoredOrder },
    /// An unpaid order's units went back.
    Released { index: u32 },
    /// An order was paid.
    Confirmed { index: u32 },
    /// Units were added.
    Restocked { id: String, units: u64 },
    /// Units were taken away; 0 is remembered too.
    Withdrawn { id: String, units: u64 },
    /// The operator moved the gate.
    GateSet { gate: Gate },
    /// Window, limit, payment time or durability changed.
    RulesSet { spec: SegmentSpec },
    /// Queue entries were settled.
    Acked { indexes: Vec<u32> },
    /// A rebuild was announced under a new epoch.
    Fenced { epoch: u64 },
    /// The content was thrown away.
    RebuildBegan(Beginning),
    /// An order of the ledger came back.
    Loaded { order: StoredOrder },
    /// The segment sells again.
    RebuildFinished { gate: Gate },
    /// The segment was restored from a backup: what was said under older epochs is void.
    EpochRaised { epoch: u64 },
    /// The sale is long over: the orders were dropped.
    Retired,
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// A segment was opened; segments are numbered in this order from 0.
    Opened(SegmentSpec),
    /// A segment that the store did not know was begun by its rebuild; numbered likewise.
    Begun(Beginning),
    /// An event of the segment with that number.
    Event(u32, Event),
    /// Nothing but the time that the frame carries.
    Tick,
}

const OPENED: u8 = 0;
const BOUGHT: u8 = 1;
const RELEASED: u8 = 2;
const CONFIRMED: u8 = 3;
const RESTOCKED: u8 = 4;
const GATE_SET: u8 = 5;
const RULES_SET: u8 = 6;
const ACKED: u8 = 7;
const WITHDRAWN: u8 = 8;
const FROZEN: u8 = 9;
const REBUILD_BEGAN: u8 = 10;
const LOADED: u8 = 11;
const REBUILD_FINISHED: u8 = 12;
const EPOCH_RAISED: u8 = 13;
const RETIRED: u8 = 14;
const BEGUN: u8 = 15;
const TICK: u8 = 16;
/// An order with metadata is a kind of its own, with one text more: without, it costs no byte.
const BOUGHT_WITH_METADATA: u8 = 17;
const LOADED_WITH_METADATA: u8 = 18;

/// What a rebuilt segment begins with, before its orders are loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Beginning {
    pub(super) spec: SegmentSpec,
    pub(super) epoch: u64,
    pub(super) restocks: BTreeMap<String, u64>,
    pub(super) withdrawals: BTreeMap<String, u64>,
}

/// Appends the binary form of an opening.
pub(super) fn encode_opened(out: &mut Vec<u8>, spec: &SegmentSpec) {
    head(out, OPENED, 0);
    put_json(out, spec);
}

/// Appends the binary form of the beginning of an unknown segment.
pub(super) fn encode_begun(out: &mut Vec<u8>, beginning: &Beginning) {
    head(out, BEGUN, 0);
    put_json(out, beginning);
}

/// Appends the record that only makes the frame carry its time.
pub(super) fn encode_tick(out: &mut Vec<u8>) {
    head(out, TICK, 0);
}

/// Appends the binary form of an event.
pub(super) fn encode_event(out: &mut Vec<u8>, segment: u32, event: &Event) {
    match event {
        Event::Bought { order } => {
            head(out, kind_of(order, BOUGHT, BOUGHT_WITH_METADATA), segment);
            put_order(out, order);
        }
        Event::Loaded { order } => {
            head(out, kind_of(order, LOADED, LOADED_WITH_METADATA), segment);
            out.push(order.state as u8);
            put_order(out, order);
        }
        Event::Released { index } => {
            head(out, RELEASED, segment);
            out.extend_from_slice(&index.to_le_bytes());
        }
        Event::Confirmed { index } => {
            head(out, CONFIRMED, segment);
            out.extend_from_slice(&index.to_le_bytes());
        }
        Event::Restocked { id, units } => {
            head(out, RESTOCKED, segment);
            out.extend_from_slice(&units.to_le_bytes());
            put_text(out, id);
        }
        Event::Withdrawn { id, units } => {
            head(out, WITHDRAWN, segment);
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
        Event::Acked { indexes } => {
            head(out, ACKED, segment);
            out.extend_from_slice(&(indexes.len() as u32).to_le_bytes());
            for index in indexes {
                out.extend_from_slice(&index.to_le_bytes());
            }
        }
        Event::Fenced { epoch } => {
            head(out, FROZEN, segment);
            out.extend_from_slice(&epoch.to_le_bytes());
        }
        Event::RebuildBegan(beginning) => {
            head(out, REBUILD_BEGAN, segment);
            put_json(out, beginning);
        }
        Event::RebuildFinished { gate } => {
            head(out, REBUILD_FINISHED, segment);
            put_json(out, gate);
        }
        Event::EpochRaised { epoch } => {
            head(out, EPOCH_RAISED, segment);
            out.extend_from_slice(&epoch.to_le_bytes());
        }
        Event::Retired => head(out, RETIRED, segment),
    }
}

fn head(out: &mut Vec<u8>, kind: u8, segment: u32) {
    out.push(kind);
    out.extend_from_slice(&segment.to_le_bytes());
}

fn kind_of(order: &StoredOrder, without: u8, with: u8) -> u8 {
    match order.metadata {
        None => without,
        Some(_) => with,
    }
}

fn put_order(out: &mut Vec<u8>, order: &StoredOrder) {
    out.extend_from_slice(&order.order.as_u128().to_le_bytes());
    out.extend_from_slice(&order.fingerprint.to_le_bytes());
    out.extend_from_slice(&order.quantity.to_le_bytes());
    out.extend_from_slice(&order.created_at_ms.to_le_bytes());
    out.extend_from_slice(&order.pay_by_ms.to_le_bytes());
    put_text(out, order.buyer.as_str());
    put_text(out, order.request.as_str());
    if let Some(metadata) = &order.metadata {
        put_text(out, metadata.as_str());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("a record is far smaller than 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Rare records carry JSON: they can gain fields without a new journal version.
fn put_json<T: Serialize>(out: &mut Vec<u8>, value: &T) {
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
        BEGUN => return Ok(Record::Begun(json(input)?)),
        TICK => return Ok(Record::Tick),
        BOUGHT | BOUGHT_WITH_METADATA => Event::Bought {
            order: order(input, OrderState::Reserved, kind == BOUGHT_WITH_METADATA)?,
        },
        LOADED | LOADED_WITH_METADATA => {
            let state = match take::<1>(input)?[0] {
                0 => OrderState::Reserved,
                1 => OrderState::Sold,
                2 => OrderState::Released,
                other => return Err(format!("unknown order state {other}")),
            };
            Event::Loaded {
                order: order(input, state, kind == LOADED_WITH_METADATA)?,
            }
        }
        RELEASED => Event::Released {
            index: u32::from_le_bytes(take(input)?),
        },
        CONFIRMED => Event::Confirmed {
            index: u32::from_le_bytes(take(input)?),
        },
        RESTOCKED => {
            let units = u64::from_le_bytes(take(input)?);
            Event::Restocked {
                units,
                id: text(input)?.to_owned(),
            }
        }
        WITHDRAWN => {
            let units = u64::from_le_bytes(take(input)?);
            Event::Withdrawn {
                units,
                id: text(input)?.to_owned(),
            }
        }
        GATE_SET => Event::GateSet { gate: json(input)? },
        RULES_SET => Event::RulesSet { spec: json(input)? },
        ACKED => {
            let count = u32::from_le_bytes(take(input)?);
            let indexes = (0..count).map(|_| Ok(u32::from_le_bytes(take(input)?)));
            Event::Acked {
                indexes: indexes.collect::<Result<_, String>>()?,
            }
        }
        FROZEN => Event::Fenced {
            epoch: u64::from_le_bytes(take(input)?),
        },
        REBUILD_BEGAN => Event::RebuildBegan(json(input)?),
        REBUILD_FINISHED => Event::RebuildFinished { gate: json(input)? },
        EPOCH_RAISED => Event::EpochRaised {
            epoch: u64::from_le_bytes(take(input)?),
        },
        RETIRED => Event::Retired,
        other => return Err(format!("unknown record kind {other}")),
    };
    Ok(Record::Event(segment, event))
}

fn order(input: &mut &[u8], state: OrderState, has_metadata: bool) -> Result<StoredOrder, String> {
    let order = OrderId::from_u128(u128::from_le_bytes(take(input)?));
    let fingerprint = u64::from_le_bytes(take(input)?);
    let quantity = u32::from_le_bytes(take(input)?);
    let created_at_ms = u64::from_le_bytes(take(input)?);
    let pay_by_ms = u64::from_le_bytes(take(input)?);
    let buyer = BuyerId::try_new(text(input)?).map_err(|e| e.to_string())?;
    let request = RequestId::try_new(text(input)?).map_err(|e| e.to_string())?;
    let metadata = match has_metadata {
        true => Some(Metadata::from_stored(text(input)?)?),
        false => None,
    };
    Ok(StoredOrder {
        order,
        buyer,
        request,
        quantity,
        fingerprint,
        state,
        created_at_ms,
        pay_by_ms,
        metadata,
    })
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], String> {
    let (head, rest) = input
        .split_first_chunk::<N>()
        .ok_or("record is cut short")?;
    *input = rest;
    Ok(*head)
}

fn text<'a>(input: &mut &'a [u8]) -> Result<&'a str, String> {
    let length = u32::from_le_bytes(take(input)?) as usize;
    let (head, rest) = input.split_at_checked(length).ok_or("text is cut short")?;
    *input = rest;
    std::str::from_utf8(head).map_err(|_| "text is not UTF-8".to_owned())
}

fn json<T: serde::de::DeserializeOwned>(input: &mut &[u8]) -> Result<T, String> {
    serde_json::from_str(text(input)?).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
