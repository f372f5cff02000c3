//! Which orders and requests the callers of this node wait for, and the news that reached it about them.
//!
//! Callers come through [`OrderLedger::follow`]; `news.rs` asks the database, once for all of them. What this node changes
//! itself is noted here at once, so that it is read without waiting for the next round.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, watch};

use super::{LedgerOrder, OrderLedger, Standing};
use crate::{
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    store::StoredOrder,
};

/// What somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Followed {
    /// The next change of an order.
    Order(OrderId),
    /// The order of a request, whichever it is.
    Request(Box<RequestKey>),
}

/// A request, as unique in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The sale.
    pub sale: SaleId,
    /// The sku.
    pub sku: SkuId,
    /// Who bought.
    pub buyer: BuyerId,
    /// The idempotency key.
    pub request: RequestId,
}

/// All that is followed on this node. As large as there are callers: each takes itself out when it is dropped.
#[derive(Default)]
pub(super) struct Following {
    /// A `std` lock: held for one look into a map, or to copy the keys of a round.
    table: Mutex<Table>,
    /// Rung when `dirty` has something to read.
    bell: Notify,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Followed, Entry>,
    /// Followed and changed by this node, or new here: read before the next round.
    dirty: HashSet<Followed>,
    /// How many entries are requests; settlement skips them while there are none.
    requests: usize,
}

struct Entry {
    /// Rows with a higher version are news.
    known: u64,
    news: watch::Sender<Option<Arc<LedgerOrder>>>,
    followers: usize,
}

/// One caller's view of what it follows.
pub struct Follower {
    ledger: OrderLedger,
    key: Followed,
    news: watch::Receiver<Option<Arc<LedgerOrder>>>,
}

impl OrderLedger {
    /// Begins to listen for anything later than `known` (`None`: for anything). The database is asked once at once, so a change
    /// between the caller's own reading and this call is not lost.
    pub fn follow(&self, key: Followed, known: Option<Standing>) -> Follower {
        let known = known.map_or(0, |known| known.version);
        let following = &self.shared.following;
        let mut table = following.table();
        let table = &mut *table;
        let entry = table.entries.entry(key.clone()).or_insert_with(|| {
            table.requests += usize::from(matches!(key, Followed::Request(_)));
            Entry {
                known,
                news: watch::Sender::new(None),
                followers: 0,
            }
        });
        entry.followers += 1;
        if entry.news.borrow().is_none() {
            // The one who knows least decides what is news; the others skip it.
            entry.known = entry.known.min(known);
        }
        let news = entry.news.subscribe();
        table.dirty.insert(key.clone());
        following.bell.notify_one();
        Follower {
            ledger: self.clone(),
            key,
            news,
        }
    }

    /// How many orders and requests are followed on this node.
    pub fn followed(&self) -> usize {
        self.shared.following.table().entries.len()
    }
}

impl Follower {
    /// The order once it stands later than `known`. Never ends if it never does.
    pub async fn after(&mut self, known: Option<Standing>) -> Arc<LedgerOrder> {
        let is_news = |order: &Option<Arc<LedgerOrder>>| {
            order.as_ref().is_some_and(|order| {
                known.is_none_or(|known| order.standing().is_after(known))
            })
        };
        loop {
            if let Ok(found) = self.news.wait_for(is_news).await {
                return found.clone().expect("is_news is false for none");
            }
            // The sender goes when the last follower goes, and this is one.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut table = self.ledger.shared.following.table();
        let Some(entry) = table.entries.get_mut(&self.key) else {
            return;
        };
        entry.followers -= 1;
        if entry.followers == 0 {
            table.entries.remove(&self.key);
            table.dirty.remove(&self.key);
            table.requests -= usize::from(matches!(self.key, Followed::Request(_)));
        }
    }
}

impl Following {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes that these are about to change, or have; [`Self::ring`] has them read.
    pub(super) fn touch(&self, orders: impl IntoIterator<Item = OrderId>) {
        let mut table = self.table();
        for order in orders {
            let key = Followed::Order(order);
            if table.entries.contains_key(&key) {
                table.dirty.insert(key);
            }
        }
    }

    /// Notes what a settlement has brought: the orders, and whoever waits for them by their requests.
    pub(super) fn settled(&self, segment: &SegmentId, orders: &[StoredOrder]) {
        self.touch(orders.iter().map(|order| order.order));
        let mut table = self.table();
        if table.requests == 0 {
            return;
        }
        for order in orders {
            let key = Followed::Request(Box::new(RequestKey {
                sale: segment.sale.clone(),
                sku: segment.sku.clone(),
                buyer: order.buyer.clone(),
                request: order.request.clone(),
            }));
            if table.entries.contains_key(&key) {
                table.dirty.insert(key);
            }
        }
    }

    /// Has what was touched read, if anything was. Call it after the commit.
    pub(super) fn ring(&self) {
        if !self.table().dirty.is_empty() {
            self.bell.notify_one();
        }
    }

    /// Ends when something was touched.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// What was touched, and the version from which on it is news.
    pub(super) fn take_dirty(&self) -> Vec<(Followed, u64)> {
        let mut table = self.table();
        let dirty = std::mem::take(&mut table.dirty);
        dirty
            .into_iter()
            .filter_map(|key| {
                let known = table.entries.get(&key)?.known;
                Some((key, known))
            })
            .collect()
    }

    /// Everything, and the version from which on it is news.
    pub(super) fn take_all(&self) -> Vec<(Followed, u64)> {
        let mut table = self.table();
        table.dirty.clear();
        let all = table.entries.iter();
        all.map(|(key, entry)| (key.clone(), entry.known)).collect()
    }

    /// Hands an order as it was just read to its followers. An older reading than the last is dropped.
    pub(super) fn publish(&self, key: &Followed, order: &Arc<LedgerOrder>) {
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(key) else {
            return;
        };
        let is_newer = entry
            .news
            .borrow()
            .as_ref()
            .is_none_or(|last| order.standing().is_after(last.standing()));
        if is_newer {
            entry.known = entry.known.max(order.version);
            entry.news.send_replace(Some(order.clone()));
        }
    }
}
