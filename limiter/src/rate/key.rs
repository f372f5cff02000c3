//! Whose bucket a request draws from. Keys are 128 bits whatever they stand for: no allocation per request, a table of fixed
//! size, and no header value (which may be a token) is kept in memory.

use std::net::{IpAddr, Ipv6Addr};

use ahash::RandomState;
use http::{Extensions, HeaderName, Request};

/// The owner of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateKey(u128);

impl RateKey {
    /// The bucket shared by everybody whose request carries no key, so that leaving the key out never escapes the limit.
    pub const ABSENT: Self = Self(0);

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

/// Says whose bucket a request draws from.
pub trait KeyExtractor {
    /// The key, or `None` when the request carries none: it then shares [`RateKey::ABSENT`] with all others like it.
    fn key<B>(&self, request: &Request<B>) -> Option<RateKey>;

    /// This key, or else the other one: a user header, or else the address.
    fn or<O: KeyExtractor>(self, other: O) -> OrKey<Self, O>
    where
        Self: Sized,
    {
        OrKey(self, other)
    }
}

/// The client's address as the edge determined it, carried in the request's extensions. Only the edge knows which hops to
/// trust, so nothing here reads `X-Forwarded-For`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

/// Keys by client address, found in the request's extensions by the given function.
#[derive(Clone, Copy, Debug)]
pub struct IpKey<F = fn(&Extensions) -> Option<IpAddr>> {
    find: F,
}

/// Keys by the value of a header. Only a fingerprint under a secret of this process is kept.
#[derive(Clone, Debug)]
pub struct HeaderKey {
    name: HeaderName,
    high: RandomState,
    low: RandomState,
}

/// One bucket for everybody.
#[derive(Clone, Copy, Debug)]
pub struct ConstantKey;

/// The first key, or else the second. Made by [`KeyExtractor::or`].
#[derive(Clone, Copy, Debug)]
pub struct OrKey<A, B>(A, B);

impl IpKey {
    /// Reads [`ClientIp`] from the extensions.
    pub fn new() -> Self {
        Self {
            find: |extensions| extensions.get::<ClientIp>().map(|ip| ip.0),
        }
    }
}

impl Default for IpKey {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Fn(&Extensions) -> Option<IpAddr>> IpKey<F> {
    /// Reads the address wherever the caller keeps it, so that the edge needs no second extension per request.
    pub fn from_fn(find: F) -> Self {
        Self { find }
    }
}

impl<F: Fn(&Extensions) -> Option<IpAddr>> KeyExtractor for IpKey<F> {
    fn key<B>(&self, request: &Request<B>) -> Option<RateKey> {
        (self.find)(request.extensions()).map(RateKey::from_ip)
    }
}

impl HeaderKey {
    /// Keys by the first value of this header.
    pub fn new(name: HeaderName) -> Self {
        Self {
            name,
            high: RandomState::new(),
            low: RandomState::new(),
        }
    }

    /// The key of a value, for callers that hold the value and not the request.
    pub fn key_of(&self, value: &[u8]) -> RateKey {
        let high = u128::from(self.high.hash_one(value));
        let low = u128::from(self.low.hash_one(value));
        RateKey(high << 64 | low)
    }
}

impl KeyExtractor for HeaderKey {
    fn key<B>(&self, request: &Request<B>) -> Option<RateKey> {
        let value = request.headers().get(&self.name)?;
        Some(self.key_of(value.as_bytes()))
    }
}

impl KeyExtractor for ConstantKey {
    fn key<B>(&self, _request: &Request<B>) -> Option<RateKey> {
        Some(RateKey::ABSENT)
    }
}

impl<A: KeyExtractor, B: KeyExtractor> KeyExtractor for OrKey<A, B> {
    fn key<T>(&self, request: &Request<T>) -> Option<RateKey> {
        self.0.key(request).or_else(|| self.1.key(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of_ip(text: &str) -> RateKey {
        RateKey::from_ip(text.parse().unwrap())
    }

    fn from_peer(ip: &str) -> Request<()> {
        let mut request = Request::new(());
        request
            .extensions_mut()
            .insert(ClientIp(ip.parse().unwrap()));
        request
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
    fn ip_key_reads_the_extension() {
        assert_eq!(
            IpKey::new().key(&from_peer("192.0.2.1")),
            Some(key_of_ip("192.0.2.1"))
        );
        assert_eq!(IpKey::new().key(&Request::new(())), None);
    }

    #[test]
    fn header_key_tells_values_apart() {
        let extractor = HeaderKey::new(HeaderName::from_static("x-user-id"));
        let with = |user: &str| {
            Request::builder()
                .header("x-user-id", user)
                .body(())
                .unwrap()
        };
        assert_eq!(extractor.key(&with("ann")), extractor.key(&with("ann")));
        assert_ne!(extractor.key(&with("ann")), extractor.key(&with("bob")));
        assert_eq!(extractor.key(&Request::new(())), None);
    }

    #[test]
    fn or_key_falls_back() {
        let extractor = HeaderKey::new(HeaderName::from_static("x-user-id")).or(IpKey::new());
        assert_eq!(
            extractor.key(&from_peer("192.0.2.1")),
            Some(key_of_ip("192.0.2.1"))
        );
    }
}
