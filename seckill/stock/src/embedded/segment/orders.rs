//! The orders of a segment in memory, compact: one fixed record and one state byte each, texts stored once, no key stored in an
//! index. Below 200 bytes an order with a buyer of its own; `docs/operating/configuration.md` has the measured figures.

use ahash::RandomState;

use super::{chunks::Chunked, index::Index, texts::Texts};
use crate::{
    Metadata, OrderState, StoredOrder,
    ids::{BuyerId, OrderId, RequestId},
};

/// What never changes of an order. 56 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    /// The order's id, in halves so that the record needs no alignment of 16.
    pub(crate) id: [u64; 2],
    pub(crate) fingerprint: u64,
    pub(crate) created_at_ms: u64,
    pub(crate) pay_by_ms: u64,
    /// Place of the request id in the texts; metadata, if the state says that there is any, is behind it.
    pub(crate) request: u64,
    /// Number of the buyer.
    pub(crate) buyer: u32,
    pub(crate) quantity: u32,
}

const STATE_MASK: u8 = 0b011;
const ACKED: u8 = 0b100;
const HAS_METADATA: u8 = 0b1000;

fn state_of(byte: u8) -> Option<OrderState> {
    match byte & STATE_MASK {
        0 => Some(OrderState::Reserved),
        1 => Some(OrderState::Sold),
        2 => Some(OrderState::Released),
        _ => None,
    }
}

fn byte_of(state: OrderState) -> u8 {
    match state {
        OrderState::Reserved => 0,
        OrderState::Sold => 1,
        OrderState::Released => 2,
    }
}

/// What a snapshot holds of the orders: everything that cannot be computed from the rest. Cloning shares all of it.
#[derive(Clone, Default)]
pub(crate) struct SharedOrders {
    pub(crate) records: Chunked<Record>,
    /// State in two bits, whether the queue entry was acknowledged, and whether there is metadata.
    pub(crate) states: Chunked<u8>,
    /// Places of the buyers' names.
    pub(crate) buyers: Chunked<u64>,
    pub(crate) texts: Texts,
}

/// The orders with their indexes.
#[derive(Default)]
pub(super) struct Orders {
    data: SharedOrders,
    /// Live units of each buyer.
    held: Chunked<u32>,
    by_id: Index,
    by_request: Index,
    by_buyer: Index,
    hasher: RandomState,
}

impl Orders {
    /// Builds the indexes over what a snapshot held. `Err` says what cannot be.
    pub(super) fn load(data: SharedOrders) -> Result<Self, String> {
        let mut orders = Self {
            data,
            ..Self::default()
        };
        if orders.data.records.len() != orders.data.states.len() {
            return Err("orders and states differ in number".to_owned());
        }
        for buyer in 0..orders.data.buyers.len() {
            let place = orders.data.buyers.at(buyer);
            let name = orders.data.texts.get(place);
            let name = name.ok_or_else(|| format!("buyer {buyer} has no name"))?;
            orders.by_buyer.insert(orders.hasher.hash_one(name), buyer);
            orders.held.push(0);
        }
        for index in 0..orders.len() {
            let record = orders.data.records.at(index);
            let state = state_of(orders.data.states.at(index))
                .ok_or_else(|| format!("order {index} is in no state"))?;
            if record.buyer >= orders.data.buyers.len() {
                return Err(format!("order {index} has no buyer"));
            }
            let request = orders.data.texts.get(record.request);
            let request = request.ok_or_else(|| format!("order {index} has no request id"))?;
            if orders.has_metadata(index) && orders.data.texts.behind(record.request).is_none() {
                return Err(format!("order {index} has no metadata"));
            }
            let hash = orders
                .hasher
                .hash_one((orders.buyer_name(record.buyer), request));
            orders.by_request.insert(hash, index);
            orders
                .by_id
                .insert(orders.hasher.hash_one(record.id), index);
            if state != OrderState::Released {
                orders.hold(record.buyer, |held| held.saturating_add(record.quantity));
            }
        }
        Ok(orders)
    }

    /// A copy for a snapshot: shares everything, costs one reference a chunk.
    pub(super) fn shared(&self) -> SharedOrders {
        self.data.clone()
    }

    pub(super) fn len(&self) -> u32 {
        self.data.records.len()
    }

    fn buyer_name(&self, buyer: u32) -> &str {
        self.text(self.data.buyers.at(buyer))
    }

    fn text(&self, place: u64) -> &str {
        self.data
            .texts
            .get(place)
            .expect("places come from pushing, or were checked when loaded")
    }

    fn hold(&mut self, buyer: u32, change: impl FnOnce(u32) -> u32) {
        self.held.set(buyer, change(self.held.at(buyer)));
    }

    pub(super) fn find(&self, id: OrderId) -> Option<u32> {
        let id = halves(id);
        self.by_id.find(self.hasher.hash_one(id), |index| {
            self.data.records.at(index).id == id
        })
    }

    pub(super) fn find_request(&self, buyer: &str, request: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((buyer, request));
        self.by_request.find(hash, |index| {
            let record = self.data.records.at(index);
            self.text(record.request) == request && self.buyer_name(record.buyer) == buyer
        })
    }

    fn find_buyer(&self, buyer: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(buyer);
        self.by_buyer
            .find(hash, |number| self.buyer_name(number) == buyer)
    }

    /// Live units of a buyer.
    pub(super) fn held(&self, buyer: &str) -> u32 {
        self.find_buyer(buyer)
            .map_or(0, |number| self.held.at(number))
    }

    /// Appends an order that is not there yet and answers its index.
    pub(super) fn push(&mut self, order: &StoredOrder, is_acked: bool) -> u32 {
        let name = order.buyer.as_str();
        let buyer = self.find_buyer(name).unwrap_or_else(|| {
            let place = self.data.texts.push(name);
            let number = self.data.buyers.push(place);
            self.held.push(0);
            self.by_buyer.insert(self.hasher.hash_one(name), number);
            number
        });
        let request = order.request.as_str();
        let hash = self.hasher.hash_one((name, request));
        let (place, has_metadata) = match &order.metadata {
            None => (self.data.texts.push(request), 0),
            Some(metadata) => {
                let metadata = metadata.as_str();
                (self.data.texts.push_with(request, metadata), HAS_METADATA)
            }
        };
        let record = Record {
            id: halves(order.order),
            fingerprint: order.fingerprint,
            created_at_ms: order.created_at_ms,
            pay_by_ms: order.pay_by_ms,
            request: place,
            buyer,
            quantity: order.quantity,
        };
        let acked = if is_acked { ACKED } else { 0 };
        self.data
            .states
            .push(byte_of(order.state) | acked | has_metadata);
        let index = self.data.records.push(record);
        self.by_request.insert(hash, index);
        self.by_id.insert(self.hasher.hash_one(record.id), index);
        if order.state != OrderState::Released {
            self.hold(buyer, |held| held + order.quantity);
        }
        index
    }

    pub(super) fn record(&self, index: u32) -> Record {
        self.data.records.at(index)
    }

    pub(super) fn state(&self, index: u32) -> OrderState {
        state_of(self.data.states.at(index)).expect("only states are stored")
    }

    /// Moves an order from Reserved to another state.
    pub(super) fn set_state(&mut self, index: u32, state: OrderState) {
        let byte = self.data.states.at(index);
        self.data
            .states
            .set(index, byte & !STATE_MASK | byte_of(state));
        if state == OrderState::Released {
            let record = self.data.records.at(index);
            self.hold(record.buyer, |held| held.saturating_sub(record.quantity));
        }
    }

    pub(super) fn is_acked(&self, index: u32) -> bool {
        self.data.states.at(index) & ACKED != 0
    }

    fn has_metadata(&self, index: u32) -> bool {
        self.data.states.at(index) & HAS_METADATA != 0
    }

    pub(super) fn set_acked(&mut self, index: u32) {
        self.data
            .states
            .set(index, self.data.states.at(index) | ACKED);
    }

    fn metadata(&self, index: u32, record: &Record) -> Option<Metadata> {
        let text = self
            .has_metadata(index)
            .then(|| self.data.texts.behind(record.request))?;
        Some(Metadata::known(text.expect(
            "it was pushed with the request id, or checked when loaded",
        )))
    }

    /// The order as callers see it.
    pub(super) fn order(&self, index: u32) -> StoredOrder {
        let record = self.data.records.at(index);
        let checked = "ids were checked before they were stored";
        StoredOrder {
            order: OrderId::from_u128(u128::from(record.id[0]) << 64 | u128::from(record.id[1])),
            buyer: BuyerId::try_new(self.buyer_name(record.buyer)).expect(checked),
            request: RequestId::try_new(self.text(record.request)).expect(checked),
            quantity: record.quantity,
            fingerprint: record.fingerprint,
            state: self.state(index),
            created_at_ms: record.created_at_ms,
            pay_by_ms: record.pay_by_ms,
            metadata: self.metadata(index, &record),
        }
    }
}

fn halves(id: OrderId) -> [u64; 2] {
    [(id.as_u128() >> 64) as u64, id.as_u128() as u64]
}

/// Bytes of a record in a snapshot.
pub(crate) const RECORD_LEN: usize = 56;

impl Record {
    /// Appends its binary form.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let words = [
            self.id[0],
            self.id[1],
            self.fingerprint,
            self.created_at_ms,
            self.pay_by_ms,
            self.request,
        ];
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.buyer.to_le_bytes());
        out.extend_from_slice(&self.quantity.to_le_bytes());
    }

    /// Reads its binary form.
    pub(crate) fn decode(bytes: &[u8; RECORD_LEN]) -> Self {
        let word = |number: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[number * 8..number * 8 + 8]);
            u64::from_le_bytes(word)
        };
        Self {
            id: [word(0), word(1)],
            fingerprint: word(2),
            created_at_ms: word(3),
            pay_by_ms: word(4),
            request: word(5),
            buyer: word(6) as u32,
            quantity: (word(6) >> 32) as u32,
        }
    }
}
