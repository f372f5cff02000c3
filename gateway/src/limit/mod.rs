//! The token buckets of this gateway: whose bucket a request draws from, and what is said about it in headers.
//!
//! The arithmetic is limiter's ([`RateLimiter`]). One bucket table serves all cores, so that a client has one bucket and not one per core.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use limiter::rate::{
    Decision, Limited, RateKey, RateLimiter, TextKey, policy_field, remaining_field,
};
use seckill::api::identity::Identity;
use tokio::time::Instant;

use crate::config::{self, LimitKey};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A `[[limit]]`: a token bucket for every key.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub config: config::Limit,
    pub limiter: RateLimiter,
    key: Key,
    policy: HeaderValue,
}

#[derive(Debug)]
enum Key {
    Ip,
    Header(HeaderName, TextKey),
    Buyer(Identity, TextKey),
}

impl Bucket {
    /// The buckets of a limit, all full. `identity` says who a buyer is, for limits that go by it.
    pub(crate) fn new(config: config::Limit, identity: Option<&Identity>, now: Instant) -> Self {
        let capacity =
            std::num::NonZeroUsize::new(config.max_keys).unwrap_or(std::num::NonZeroUsize::MIN);
        Self {
            limiter: RateLimiter::new(config.quota, capacity, now),
            key: match (&config.key, identity) {
                (LimitKey::Header(name), _) => Key::Header(name.clone(), TextKey::new()),
                (LimitKey::Buyer, Some(identity)) => Key::Buyer(identity.clone(), TextKey::new()),
                (LimitKey::Ip | LimitKey::Buyer, _) => Key::Ip,
            },
            policy: policy_field(&config.name, config.quota),
            config,
        }
    }

    /// Whose bucket a request draws from.
    pub(crate) fn key(&self, headers: &HeaderMap, client: IpAddr) -> RateKey {
        let named = match &self.key {
            Key::Ip => None,
            Key::Header(name, key) => headers.get(name).map(|value| key.key_of(value.as_bytes())),
            // Only what is proven counts: a key out of a token that nobody signed could be a new one for every request.
            Key::Buyer(identity, key) => identity
                .proven(headers, now_ms())
                .map(|buyer| key.key_of(buyer.as_str().as_bytes())),
        };
        // A client that names no buyer is counted by its address: one bucket for all of them would let one client empty it.
        named.unwrap_or_else(|| RateKey::from_ip(client))
    }

    pub(crate) fn draw(&self, key: RateKey, now: Instant) -> Decision {
        self.limiter.check(key, now)
    }

    /// Gives a token back, because another limit refused the request.
    pub(crate) fn give_back(&self, key: RateKey) {
        self.limiter.give_back(key);
    }

    /// What a refusal says.
    pub(crate) fn mark_refused(&self, headers: &mut HeaderMap, limited: &Limited) {
        headers.insert(RATE_LIMIT, limited.field(&self.config.name));
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
    }

    /// What an answer says where `report = true`.
    pub(crate) fn report(&self, headers: &mut HeaderMap, remaining: u32) {
        headers.append(RATE_LIMIT, remaining_field(&self.config.name, remaining));
        headers.append(RATE_LIMIT_POLICY, self.policy.clone());
    }
}

/// Unix time, for tokens that end.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64)
}
