//! The ids of the sale domain, one newtype each, so that a sku can never be passed where a buyer is meant.
//!
//! All text ids are checked once, where they enter (API, config, ledger); past that point they are known to be
//! short and free of control characters, so they can be put into Redis keys, journal records and SQL as they are.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text was not accepted as an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {min}..={max} characters of {allowed}")]
pub struct InvalidId {
    /// Which id was being read.
    pub what: &'static str,
    /// Shortest length in bytes.
    pub min: usize,
    /// Longest length in bytes.
    pub max: usize,
    /// The allowed characters, for the message.
    pub allowed: &'static str,
}

fn check(
    text: &str,
    what: &'static str,
    max: usize,
    allowed: &'static str,
    is_allowed: fn(u8) -> bool,
) -> Result<(), InvalidId> {
    if text.is_empty() || text.len() > max || !text.bytes().all(is_allowed) {
        return Err(InvalidId {
            what,
            min: 1,
            max,
            allowed,
        });
    }
    Ok(())
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn is_visible(byte: u8) -> bool {
    (0x21..=0x7e).contains(&byte)
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:literal, $rule:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the text.
            pub fn try_new(text: &str) -> Result<Self, InvalidId> {
                check(text, $what, $max, $allowed, $rule)?;
                Ok(Self(text.into()))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::try_new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::try_new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

text_id!(
    /// One sale (a window of time in which skus are sold).
    SaleId, "sale", 64, "A-Z a-z 0-9 - _ .", is_name
);
text_id!(
    /// One kind of unit on sale.
    SkuId, "sku", 64, "A-Z a-z 0-9 - _ .", is_name
);
text_id!(
    /// Who buys: the identity that the buyer limit counts.
    BuyerId, "buyer", 128, "visible ASCII", is_visible
);
text_id!(
    /// The caller's idempotency key of one purchase, scoped to sale, sku and buyer.
    RequestId, "Idempotency-Key", 255, "visible ASCII", is_visible
);

impl BuyerId {
    /// Which of a sku's `parts` segments is home to this buyer: everything of the buyer (limit, request ids) lives there.
    ///
    /// CRC-32 (IEEE 802.3, as in zlib) of the id's bytes, modulo the number of segments. Published and without a version: every
    /// node and every release must agree, or a buyer would have two homes and twice the limit.
    pub fn home(&self, parts: usize) -> usize {
        crc32fast::hash(self.0.as_bytes()) as usize % parts.max(1)
    }
}

/// The unit of atomicity: one sku of one sale, or one part of its stock. All of a segment's keys share one Redis hash tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SegmentId {
    /// The sale.
    pub sale: SaleId,
    /// The sku.
    pub sku: SkuId,
    /// Which part of the sku's stock; [`SegmentId::CART`] where all skus of the sale live together.
    pub index: u16,
}

impl SegmentId {
    /// The index of a sku's only segment in a sale with carts.
    pub const CART: u16 = 1 << 15;

    /// The only segment of a sku in a sale with carts: all such segments of a sale live together, so that one atomic step can
    /// take from several of them.
    pub fn of_cart(sale: SaleId, sku: SkuId) -> Self {
        Self {
            sale,
            sku,
            index: Self::CART,
        }
    }

    /// Whether this segment lives together with the others of its sale.
    pub fn is_of_cart(&self) -> bool {
        self.index == Self::CART
    }

    /// The first segment of a sku.
    pub fn first(sale: SaleId, sku: SkuId) -> Self {
        Self {
            sale,
            sku,
            index: 0,
        }
    }

    /// A short stable number that every order id of this segment carries, so that an order can be found by its id alone.
    pub fn tag(&self) -> u32 {
        crc32fast::hash(self.to_string().as_bytes())
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.sale, self.sku, self.index)
    }
}

/// An order: 48 bits of time, 32 bits of [`SegmentId::tag`], 48 random bits. Ids sort by time and cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderId(u128);

/// Crockford's base 32, lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const PREFIX: &str = "ord_";
/// 26 characters of 5 bits hold 130 bits.
const TEXT_LEN: usize = 26;

impl OrderId {
    /// Builds an id from its three parts; `random` gives its low 48 bits.
    pub fn new(now_ms: u64, segment_tag: u32, random: u64) -> Self {
        let time = u128::from(now_ms & 0xffff_ffff_ffff) << 80;
        Self(time | u128::from(segment_tag) << 48 | u128::from(random & 0xffff_ffff_ffff))
    }

    /// The tag of the segment that the order belongs to.
    pub fn segment_tag(self) -> u32 {
        (self.0 >> 48) as u32
    }

    /// The raw number, for compact storage.
    pub fn as_u128(self) -> u128 {
        self.0
    }

    /// The id with that raw number.
    pub fn from_u128(raw: u128) -> Self {
        Self(raw)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; TEXT_LEN];
        let mut rest = self.0;
        for slot in text.iter_mut().rev() {
            *slot = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.write_str(PREFIX)?;
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OrderId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId {
            what: "order id",
            min: 30,
            max: 30,
            allowed: "ord_ and 26 of 0-9 a-z without i l o u",
        };
        let digits = text.strip_prefix(PREFIX).ok_or_else(|| invalid.clone())?;
        // The first character carries the top 3 bits only; anything above 7 would overflow 128 bits.
        if digits.len() != TEXT_LEN || digits.as_bytes()[0] > b'7' {
            return Err(invalid);
        }
        let mut raw = 0u128;
        for byte in digits.bytes() {
            let digit = ALPHABET
                .iter()
                .position(|&a| a == byte)
                .ok_or_else(|| invalid.clone())?;
            raw = raw << 5 | digit as u128;
        }
        Ok(Self(raw))
    }
}

impl TryFrom<String> for OrderId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<OrderId> for String {
    fn from(id: OrderId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_survives_its_text_form() {
        for raw in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = OrderId::from_u128(raw);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn an_order_id_tells_its_segment_and_sorts_by_time() {
        let early = OrderId::new(1_000, 0xdead_beef, u64::MAX);
        let late = OrderId::new(1_001, 0, 0);
        assert_eq!(early.segment_tag(), 0xdead_beef);
        assert!(early < late && early.to_string() < late.to_string());
    }

    // These numbers are part of the wire: a release that changes one gives buyers a second home. They are zlib's.
    #[test]
    fn a_buyers_home_never_changes() {
        let home = |buyer: &str, parts| BuyerId::try_new(buyer).unwrap().home(parts);
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(
            (home("ann", 1), home("ann", 8), home("ann", 64)),
            (0, 3, 51)
        );
        assert_eq!((home("bob", 3), home("buyer-17", 8)), (2, 6));
    }

    #[test]
    fn buyers_spread_over_all_homes() {
        for parts in [2, 3, 8, 64] {
            let mut buyers = vec![0_u32; parts];
            for n in 0..10_000 {
                buyers[BuyerId::try_new(&format!("buyer-{n}")).unwrap().home(parts)] += 1;
            }
            let fair = 10_000 / parts as u32;
            assert!(
                buyers
                    .iter()
                    .all(|count| (fair / 2..fair * 2).contains(count)),
                "{buyers:?}"
            );
        }
    }

    #[test]
    fn ids_with_control_characters_spaces_or_too_long_are_refused() {
        for text in ["", "a b", "a\nb", "{x}", &"a".repeat(65)] {
            assert!(SkuId::try_new(text).is_err(), "{text:?}");
        }
        for text in [
            "ord_",
            "ord_8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "ord_i0000000000000000000000000",
            "x",
        ] {
            assert!(text.parse::<OrderId>().is_err(), "{text:?}");
        }
    }
}
