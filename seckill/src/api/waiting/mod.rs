//! Telling the buyer: how a request that waits for an order is bounded, answered and ended.
//!
//! A waiting request holds a place ([`places`]), listens to one follower of the ledger, and remembers what was told ([`told`]).
//! It costs no query of its own: the ledger reads for all of them together. A client that leaves drops its future or its
//! stream, and with it the place.

pub mod events;
mod places;
mod told;
pub(super) mod wish;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use self::places::{End, Kind, Place};
use self::{
    places::{Full, Places},
    told::Told,
    wish::Wish,
};
use super::problem::{Code, Problem};
use crate::{
    engine::FoundOrder,
    ids::BuyerId,
    ledger::{Followed, OrderLedger, Standing},
    store::StoredOrder,
};

/// Below the idle timeouts of the proxies and mobile networks between here and the buyer.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Each is a few KiB: a connection, a future, a place. Far more than one node's share of buyers who have an order.
const PER_NODE: usize = 10_000;
/// A buyer has a few tabs open.
const PER_BUYER: usize = 4;
/// Often enough for proxies that cut what is silent for half a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Then the client comes again with the last id: its identity is checked anew, and nodes get an even share of streams back.
const STREAM_MAX: Duration = Duration::from_secs(600);
/// When a place may be free again.
const RETRY_MS: u64 = 2_000;

/// How many may wait, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingConfig {
    /// Longest wait of one request.
    pub max_wait: Duration,
    /// Requests and streams that may wait on this node at once.
    pub per_node: usize,
    /// The same of one buyer.
    pub per_buyer: usize,
    /// Longest silence of an event stream.
    pub heartbeat: Duration,
    /// Longest life of an event stream.
    pub stream_max: Duration,
}

impl Default for WaitingConfig {
    fn default() -> Self {
        Self {
            max_wait: MAX_WAIT,
            per_node: PER_NODE,
            per_buyer: PER_BUYER,
            heartbeat: HEARTBEAT,
            stream_max: STREAM_MAX,
        }
    }
}

/// How long a handler held its answer back on purpose, as an extension of the response: this is no latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The answer waited this long.
    For(Duration),
    /// The body is a stream of events; it lasts as long as the buyer listens.
    Stream,
}

/// What the waiting handlers share.
pub(super) struct Waiting {
    config: WaitingConfig,
    places: Arc<Places>,
    told: Told,
    /// Cancelled when the process is about to stop: whoever waits is answered, streams end.
    draining: CancellationToken,
}

impl Waiting {
    pub(super) fn new(config: WaitingConfig, draining: CancellationToken) -> Self {
        let places = Arc::new(Places::new(config.per_node, config.per_buyer));
        Self {
            config,
            places,
            told: Told::default(),
            draining,
        }
    }

    /// Longest wait of one request.
    pub(super) fn max_wait(&self) -> Duration {
        self.config.max_wait
    }

    /// Ends when the process is about to stop.
    pub(super) async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// Takes a place, or says why there is none.
    pub(super) fn enter(&self, kind: Kind, buyer: &BuyerId) -> Result<Place, Problem> {
        self.places.enter(kind, buyer).map_err(|full| match full {
            Full::Buyer => Problem::new(
                Code::TooManyWaiting,
                format!(
                    "{} requests of this buyer wait already; ask without a wait",
                    self.config.per_buyer
                ),
            )
            .retry_after_ms(RETRY_MS),
            Full::Node => Problem::new(
                Code::WaitingFull,
                "as many requests wait here as may; ask without a wait",
            )
            .retry_after_ms(RETRY_MS),
        })
    }

    /// The standing to be told of an order that was just read: never earlier than what this node has told before (INV-ORDER-5).
    pub(super) fn tell(&self, found: &FoundOrder) -> Standing {
        self.told.latest(found.id(), found.standing())
    }

    /// The same of an order of which only the store was asked.
    pub(super) fn tell_stored(&self, order: &StoredOrder) -> Standing {
        self.told
            .latest(order.order, Standing::in_store(order.state))
    }

    /// Waits until there is news for the caller, its time is over, or the process stops. `found` is the latest reading afterwards.
    pub(super) async fn until_news(
        &self,
        ledger: &OrderLedger,
        wish: &Wish,
        deadline: Instant,
        found: &mut FoundOrder,
        place: Place,
    ) -> Standing {
        let mut standing = self.tell(found);
        let mut follower = ledger.follow(Followed::Order(found.id()), Some(standing));
        let end = loop {
            if wish.is_answered_by(standing) {
                break End::Changed;
            }
            tokio::select! {
                biased;
                order = follower.after(Some(standing)) => {
                    *found = FoundOrder::Settled(Box::new((*order).clone()));
                    standing = self.tell(found);
                }
                () = self.drained() => break End::Drained,
                () = tokio::time::sleep_until(deadline) => break End::Unchanged,
            }
        };
        place.end(end);
        standing
    }
}
