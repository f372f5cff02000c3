//! The requests that the store is deciding right now.

use std::sync::{Arc, Mutex};

use ahash::AHashMap;

use crate::{
    ids::{BuyerId, RequestId},
    locks::Locked,
};

type Key = (BuyerId, RequestId);

/// Requests under way, of one segment or of the carts of one sale. Beyond [`InFlight::MAX`] a request is refused at once (503, retry)
/// instead of waiting in vain.
#[derive(Debug, Default)]
pub struct InFlight {
    requests: Arc<Mutex<Requests>>,
}

/// How often each request is under way: a client may send it again before the first one is answered. A `std` lock, held for one lookup.
#[derive(Debug, Default)]
struct Requests {
    count: usize,
    by_key: AHashMap<Key, usize>,
}

/// One request under way, until it is dropped.
#[derive(Debug)]
pub struct Entry {
    requests: Arc<Mutex<Requests>>,
    key: Key,
}

impl InFlight {
    /// Requests under way at most.
    pub const MAX: usize = 4096;

    /// Whether this request is being decided right now: then "no such order" would be said too early.
    pub fn is_deciding(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        let key = (buyer.clone(), request.clone());
        self.requests.locked().by_key.contains_key(&key)
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.requests.locked().count
    }

    /// `None` if too many are under way.
    pub(crate) fn enter(&self, buyer: &BuyerId, request: &RequestId) -> Option<Entry> {
        let key = (buyer.clone(), request.clone());
        let mut requests = self.requests.locked();
        if requests.count == Self::MAX {
            return None;
        }
        requests.count += 1;
        *requests.by_key.entry(key.clone()).or_default() += 1;
        Some(Entry {
            requests: self.requests.clone(),
            key,
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut requests = self.requests.locked();
        requests.count -= 1;
        if let Some(count) = requests.by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                requests.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_under_way_until_its_last_sending_is_answered() {
        let in_flight = InFlight::default();
        let buyer = BuyerId::try_new("ann").unwrap();
        let request = RequestId::try_new("r").unwrap();
        let other = RequestId::try_new("other").unwrap();
        let first = in_flight.enter(&buyer, &request).unwrap();
        let again = in_flight.enter(&buyer, &request).unwrap();
        drop(first);
        assert!(in_flight.is_deciding(&buyer, &request));
        assert!(!in_flight.is_deciding(&buyer, &other));
        drop(again);
        assert!(!in_flight.is_deciding(&buyer, &request));
    }

    #[test]
    fn no_more_are_under_way_than_may_be() {
        let in_flight = InFlight::default();
        let buyer = BuyerId::try_new("ann").unwrap();
        let request = RequestId::try_new("r").unwrap();
        let enter = || in_flight.enter(&buyer, &request);
        let mut entries: Vec<_> = (0..InFlight::MAX).map_while(|_| enter()).collect();
        assert_eq!(entries.len(), InFlight::MAX);
        assert!(enter().is_none());
        entries.pop();
        assert!(enter().is_some());
    }
}
