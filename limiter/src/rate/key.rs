//! Whose bucket a request draws from. Keys are 128 bits whatever they stand for: no allocation per request, a table of fixed
//! size, and no header value (which may be a token) is kept in memory.

use std::net::{IpAddr, Ipv6Addr};

use ahash::RandomState;

/// The owner of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateKey(u128);

impl RateKey {
    /// One bucket for everybody.
    pub const SHARED: Self = Self(0);

    /// The bucket of an address. An IPv6 client owns a whole /64 and could walk through its addresses, so the lower half is
    /// masked. An IPv4 address written inside IPv6 is the same client as the plain one.
    pub fn from_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(Ipv6Addr::to_bits(v6) & !u128::from(u64::MAX)),
        }
    }

    /// The bucket of a number the caller already has.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }
}

/// Makes keys of texts, such as the value of a header. Only a fingerprint under a secret of this process is kept.
#[derive(Clone, Debug)]
pub struct TextKey {
    high: RandomState,
    low: RandomState,
}

impl Default for TextKey {
    fn default() -> Self {
        Self::new()
    }
}

impl TextKey {
    /// With a secret of its own: two of them make different keys of one text.
    pub fn new() -> Self {
        Self {
            high: RandomState::new(),
            low: RandomState::new(),
        }
    }

    /// The key of a text.
    pub fn key_of(&self, value: &[u8]) -> RateKey {
        let high = u128::from(self.high.hash_one(value));
        let low = u128::from(self.low.hash_one(value));
        RateKey(high << 64 | low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of_ip(text: &str) -> RateKey {
        RateKey::from_ip(text.parse().unwrap())
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        assert_eq!(
            key_of_ip("2001:db8:1:2::1"),
            key_of_ip("2001:db8:1:2:ffff::9")
        );
        assert_ne!(key_of_ip("2001:db8:1:2::1"), key_of_ip("2001:db8:1:3::1"));
    }

    #[test]
    fn every_ipv4_address_is_its_own_client() {
        assert_ne!(key_of_ip("192.0.2.1"), key_of_ip("192.0.2.2"));
        assert_eq!(key_of_ip("192.0.2.1"), key_of_ip("::ffff:192.0.2.1"));
    }

    #[test]
    fn texts_are_told_apart() {
        let keys = TextKey::new();
        assert_eq!(keys.key_of(b"ann"), keys.key_of(b"ann"));
        assert_ne!(keys.key_of(b"ann"), keys.key_of(b"bob"));
        assert_ne!(keys.key_of(b"ann"), TextKey::new().key_of(b"ann"));
    }
}
