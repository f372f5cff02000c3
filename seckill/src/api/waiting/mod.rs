//! Telling the buyer: how a request that waits for an order is bounded, answered and ended.
//!
//! A waiting request holds a permit ([`permits`]), holds one subscription of the ledger, and remembers what was sent ([`last_served`]).
//! It costs no query of its own: the ledger reads for all of them together. A client that leaves drops its future or its
//! stream, and with it the permit.

pub(super) mod events;
mod last_served;
mod permits;
pub(super) mod wait_params;

use std::{sync::Arc, time::Duration};

use stock::StoredOrder;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use self::permits::{End, Kind, WaitPermit};
use self::{
    last_served::LastServed,
    permits::{Full, WaitPermits},
    wait_params::WaitParams,
};
use super::problem::{Code, Problem};
use crate::{
    engine::FoundOrder,
    ids::BuyerId,
    ledger::{OrderLedger, Standing, WatchKey},
};

/// Below the idle timeouts of the proxies and mobile networks between here and the buyer.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Each is a few KiB: a connection, a future, a permit. Far more than one node's share of buyers who have an order.
const PER_NODE: usize = 10_000;
/// A buyer has a few tabs open.
const PER_BUYER: usize = 4;
/// Often enough for proxies that cut what is silent for half a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Then the client comes again with the last id: its identity is checked anew, and nodes get an even share of streams back.
const STREAM_MAX: Duration = Duration::from_secs(600);
/// When a permit may be free again.
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
    permits: Arc<WaitPermits>,
    last_served: LastServed,
    /// Cancelled when the process is about to stop: waiting requests are answered, streams end.
    draining: CancellationToken,
}

impl Waiting {
    pub(super) fn new(config: WaitingConfig, draining: CancellationToken) -> Self {
        let permits = Arc::new(WaitPermits::new(config.per_node, config.per_buyer));
        Self {
            config,
            permits,
            last_served: LastServed::default(),
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

    /// Takes a permit, or says why there is none.
    pub(super) fn enter(&self, kind: Kind, buyer: &BuyerId) -> Result<WaitPermit, Problem> {
        self.permits.enter(kind, buyer).map_err(|full| match full {
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

    /// The standing to send of an order that was just read: never earlier than what this node has sent before (INV-ORDER-5).
    pub(super) fn serve(&self, found: &FoundOrder) -> Standing {
        self.last_served.latest(found.id(), found.standing())
    }

    /// The same of an order of which only the store was asked.
    pub(super) fn serve_stored(&self, order: &StoredOrder) -> Standing {
        self.last_served
            .latest(order.order, Standing::in_store(order.state))
    }

    /// Waits until the order has changed for the caller, its time is over, or the process stops. `found` is the latest reading afterwards.
    pub(super) async fn until_change(
        &self,
        ledger: &OrderLedger,
        params: &WaitParams,
        deadline: Instant,
        found: &mut FoundOrder,
        permit: WaitPermit,
    ) -> Standing {
        let mut standing = self.serve(found);
        let mut subscription = ledger.subscribe(WatchKey::Order(found.id()), Some(standing));
        let end = loop {
            if params.is_answered_by(standing) {
                break End::Changed;
            }
            tokio::select! {
                biased;
                order = subscription.after(Some(standing)) => {
                    *found = FoundOrder::Settled(Box::new((*order).clone()));
                    standing = self.serve(found);
                }
                () = self.drained() => break End::Drained,
                () = tokio::time::sleep_until(deadline) => break End::Unchanged,
            }
        };
        permit.end(end);
        standing
    }
}
