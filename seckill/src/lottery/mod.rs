//! The lottery: which of the buyers who entered may buy. A pure function of what was published before and what is published
//! after, so that anybody can do it again.
//!
//! Version 1, all text being ASCII and all hashes lower-case hexadecimal:
//! - commitment = SHA-256(seed), the seed being 32 bytes; published with the sale, before anybody enters.
//! - entry = SHA-256("penstock-entry-v1\n" sale "\n" buyer "\n" nonce); the nonce is the buyer's, so the list tells no names.
//! - root = SHA-256 of all entries in ascending order, each followed by "\n".
//! - key = HMAC-SHA256(seed, "penstock-draw-v1\n" sale "\n" count "\n" root "\n" beacon "\n").
//! - rank of an entry = HMAC-SHA256(key, entry); the draw is the entries by ascending rank, equal ranks by entry.
//!
//! The root is under the key, so no entry can be added or taken away afterwards. Whoever knows the seed before entries close
//! could still try out entries of their own; a beacon (a public number that nobody knows before a later instant, its source
//! published with the sale) takes that from them.

mod select;
mod verify;

use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

pub use self::{
    select::Selection,
    verify::{Published, Round, Verdict, verify},
};
use crate::ids::{BuyerId, SaleId};

/// Most winners of all rounds of one draw: a node keeps them on a list, and 64 bytes each while it draws.
pub const MAX_WINNERS: u64 = 1_000_000;
/// Longest beacon, and description of its source.
pub const BEACON_MAX: usize = 256;

/// What a sale says about its lottery before anybody enters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LotteryRules {
    /// First instant at which nobody can enter any more.
    pub closes_at_ms: u64,
    /// Winners of the first round.
    pub winners: u64,
    /// SHA-256 of the seed.
    pub commitment: String,
    /// Where the beacon will come from, in words that others can follow; none if empty.
    #[serde(default)]
    pub beacon_source: String,
}

/// The secret behind a commitment.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed out of random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// As 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// What is published beforehand.
    pub fn commitment(&self) -> String {
        sha256(&self.0)
    }
}

impl std::fmt::Debug for Seed {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

/// The public form of a buyer's entry.
pub fn entry_of(sale: &SaleId, buyer: &BuyerId, nonce: &str) -> String {
    sha256(format!("penstock-entry-v1\n{sale}\n{buyer}\n{nonce}").as_bytes())
}

/// A nonce out of 128 random bits.
pub fn new_nonce(random: u128) -> String {
    format!("{random:032x}")
}

/// Takes entries in ascending order and gives their count and root.
pub struct Roll {
    count: u64,
    context: digest::Context,
    last: String,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            count: 0,
            context: digest::Context::new(&digest::SHA256),
            last: String::new(),
        }
    }
}

impl Roll {
    /// Adds the next entry; false if it is not above the one before, and then it is not added.
    pub fn add(&mut self, entry: &str) -> bool {
        if entry <= self.last.as_str() {
            return false;
        }
        self.context.update(entry.as_bytes());
        self.context.update(b"\n");
        self.count += 1;
        self.last.clear();
        self.last.push_str(entry);
        true
    }

    /// How many, and their root.
    pub fn finish(self) -> (u64, String) {
        (self.count, hex::encode(self.context.finish()))
    }
}

/// Ranks entries.
pub struct Ranking(hmac::Key);

impl Ranking {
    /// The ranking of one draw.
    pub fn new(seed: &Seed, sale: &SaleId, count: u64, root: &str, beacon: &str) -> Self {
        let text = format!("penstock-draw-v1\n{sale}\n{count}\n{root}\n{beacon}\n");
        let seed = hmac::Key::new(hmac::HMAC_SHA256, &seed.0);
        let key = hmac::sign(&seed, text.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// Where an entry stands among the others.
    pub fn rank(&self, entry: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.0, entry.as_bytes());
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Whether a text is a hash as it is written here.
pub fn is_hash(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(is_digit)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

#[cfg(test)]
mod tests;
