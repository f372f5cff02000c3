//! Bookings: what is free, one-time codes, and checking in with them.

use ahash::AHashMap;
use ring::hmac;

use super::{EngineError, SaleEngine};
use crate::{
    ids::{OrderId, SaleId, SkuId},
    ledger::CheckIn,
    locks::Locked,
    sku_stock::Stock,
};

/// Crockford's base 32: no letter that is read as another or as a digit.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 40 bits: a trillion codes.
const CODE_LEN: usize = 8;

/// A code out of random bits.
pub fn new_code(random: u64) -> String {
    let digit = |place: usize| char::from(ALPHABET[(random >> (5 * place)) as usize & 31]);
    (0..CODE_LEN).map(digit).collect()
}

impl SaleEngine {
    /// Takes this key for the hashes of codes.
    pub fn use_checkin_key(&self, secret: &[u8]) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        self.checkin_key.store(Some(std::sync::Arc::new(key)));
    }

    /// Whether codes can be made here.
    pub fn has_checkin_key(&self) -> bool {
        self.checkin_key.load().is_some()
    }

    /// Makes `code` the code of a booking; false if there is no key, the booking was used, or it had too many codes.
    pub async fn set_code(
        &self,
        sale: &SaleId,
        order: OrderId,
        code: &str,
    ) -> Result<bool, EngineError> {
        let Some(key) = self.checkin_key.load_full() else {
            return Ok(false);
        };
        let tag = hmac::sign(&key, message(order, code).as_bytes());
        Ok(self.ledger.new_code(sale, order, &hex::encode(tag)).await?)
    }

    /// Checks a buyer in who shows a code.
    pub async fn check_in(
        &self,
        sale: &SaleId,
        order: OrderId,
        code: &str,
    ) -> Result<CheckIn, EngineError> {
        let Some(key) = self.checkin_key.load_full() else {
            return Ok(CheckIn::Unknown);
        };
        let text = message(order, code);
        // `verify` takes the same time wherever the first difference is.
        let is_right = |mac: &str| {
            hex::decode(mac).is_ok_and(|tag| hmac::verify(&key, text.as_bytes(), &tag).is_ok())
        };
        let now_ms = self.now_ms();
        Ok(self.ledger.check_in(sale, order, is_right, now_ms).await?)
    }

    /// Units for sale of each sku of a sale, as this node last saw them.
    pub fn free_units(&self, sale: &SaleId) -> AHashMap<SkuId, u64> {
        let free = self.free.locked();
        let of_sale = free.get(sale);
        of_sale.cloned().unwrap_or_default()
    }

    /// Notes what is free of a segment, in a sale of slots: each of these has one segment.
    pub(super) fn note_free(&self, stock: &Stock) {
        let open = self.catalogue.sale(&stock.sale);
        let has_slots = open.is_some_and(|open| open.sale.rules.slots.is_some());
        if let Some(counts) = stock.counts().filter(|_| has_slots) {
            let mut free = self.free.locked();
            let of_sale = free.entry(stock.sale.clone()).or_default();
            of_sale.insert(stock.sku.clone(), counts.available);
        }
    }
}

/// What is hashed: a code is good for its booking only. People write small letters, and o for 0, and i or l for 1.
fn message(order: OrderId, code: &str) -> String {
    let read = code.trim().to_ascii_uppercase();
    let read: String = read
        .chars()
        .filter(|letter| *letter != '-')
        .map(|letter| match letter {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect();
    format!("penstock-checkin-v1\n{order}\n{read}")
}
