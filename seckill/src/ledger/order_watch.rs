//! Which orders and requests the callers of this node wait for, and what changed of them.
//!
//! Callers come through [`OrderLedger::subscribe`]; `poll_changes.rs` asks the database, once for all of them. What this node changes
//! itself is noted here at once, so that it is read without waiting for the next round.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use stock::StoredOrder;
use tokio::sync::{Notify, watch};

use super::{LedgerOrder, OrderLedger, Standing};
use crate::{
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    locks::Locked,
};

/// What somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatchKey {
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

/// All that is watched on this node. As large as there are callers: each takes itself out when it is dropped.
#[derive(Default)]
pub(super) struct OrderWatch {
    /// A `std` lock: held for one look into a map, or to copy the keys of a round.
    table: Mutex<Table>,
    /// Notified when `dirty` has something to read.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    entries: HashMap<WatchKey, Entry>,
    /// Watched and changed by this node, or new here: read before the next round.
    dirty: HashSet<WatchKey>,
    /// How many entries are requests; settlement skips them while there are none.
    requests: usize,
}

struct Entry {
    /// Rows with a higher version are changes.
    known: u64,
    changes: watch::Sender<Option<Arc<LedgerOrder>>>,
    subscribers: usize,
}

/// One caller's subscription.
pub struct OrderSubscription {
    ledger: OrderLedger,
    key: WatchKey,
    changes: watch::Receiver<Option<Arc<LedgerOrder>>>,
}

impl OrderLedger {
    /// Begins to listen for anything later than `known` (`None`: for anything). The database is asked once at once, so a change
    /// between the caller's own reading and this call is not lost.
    pub fn subscribe(&self, key: WatchKey, known: Option<Standing>) -> OrderSubscription {
        let known = known.map_or(0, |known| known.version);
        let watch = &self.shared.order_watch;
        let mut table = watch.table.locked();
        let table = &mut *table;
        let entry = table.entries.entry(key.clone()).or_insert_with(|| {
            table.requests += usize::from(matches!(key, WatchKey::Request(_)));
            Entry {
                known,
                changes: watch::Sender::new(None),
                subscribers: 0,
            }
        });
        entry.subscribers += 1;
        if entry.changes.borrow().is_none() {
            // The one who knows least decides what is a change; the others skip it.
            entry.known = entry.known.min(known);
        }
        let changes = entry.changes.subscribe();
        table.dirty.insert(key.clone());
        watch.changed.notify_one();
        OrderSubscription {
            ledger: self.clone(),
            key,
            changes,
        }
    }

    /// An order once it is in the ledger, for a caller that the store told of it; `None` after `at_most`.
    pub async fn once_settled(
        &self,
        order: OrderId,
        at_most: Duration,
    ) -> Option<Arc<LedgerOrder>> {
        let mut subscription = self.subscribe(WatchKey::Order(order), None);
        let settled = tokio::time::timeout(at_most, subscription.after(None));
        settled.await.ok()
    }

    /// How many orders and requests are watched on this node.
    pub fn subscriptions(&self) -> usize {
        self.shared.order_watch.table.locked().entries.len()
    }
}

impl OrderSubscription {
    /// The order once it stands later than `known`. Never ends if it never does.
    pub async fn after(&mut self, known: Option<Standing>) -> Arc<LedgerOrder> {
        let is_change = |order: &Option<Arc<LedgerOrder>>| {
            order
                .as_ref()
                .is_some_and(|order| known.is_none_or(|known| order.standing().is_after(known)))
        };
        loop {
            if let Ok(found) = self.changes.wait_for(is_change).await {
                return found.clone().expect("is_change is false for none");
            }
            // The sender goes when the last subscription goes, and this is one.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for OrderSubscription {
    fn drop(&mut self) {
        let mut table = self.ledger.shared.order_watch.table.locked();
        let Some(entry) = table.entries.get_mut(&self.key) else {
            return;
        };
        entry.subscribers -= 1;
        if entry.subscribers == 0 {
            table.entries.remove(&self.key);
            table.dirty.remove(&self.key);
            table.requests -= usize::from(matches!(self.key, WatchKey::Request(_)));
        }
    }
}

impl OrderWatch {
    /// Notes that these are about to change, or have; [`Self::notify`] has them read.
    pub(super) fn touch(&self, orders: impl IntoIterator<Item = OrderId>) {
        let mut table = self.table.locked();
        for order in orders {
            let key = WatchKey::Order(order);
            if table.entries.contains_key(&key) {
                table.dirty.insert(key);
            }
        }
    }

    /// Notes what a settlement has brought: the orders, and the requests that led to them.
    pub(super) fn settled(&self, segment: &SegmentId, orders: &[StoredOrder]) {
        self.touch(orders.iter().map(|order| order.order));
        let mut table = self.table.locked();
        if table.requests == 0 {
            return;
        }
        for order in orders {
            let key = WatchKey::Request(Box::new(RequestKey {
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
    pub(super) fn notify(&self) {
        if !self.table.locked().dirty.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Ends when something was touched.
    pub(super) async fn notified(&self) {
        self.changed.notified().await;
    }

    /// What was touched, and the version from which on it is a change.
    pub(super) fn take_dirty(&self) -> Vec<(WatchKey, u64)> {
        let mut table = self.table.locked();
        let dirty = std::mem::take(&mut table.dirty);
        dirty
            .into_iter()
            .filter_map(|key| {
                let known = table.entries.get(&key)?.known;
                Some((key, known))
            })
            .collect()
    }

    /// Everything, and the version from which on it is a change.
    pub(super) fn take_all(&self) -> Vec<(WatchKey, u64)> {
        let mut table = self.table.locked();
        table.dirty.clear();
        let all = table.entries.iter();
        all.map(|(key, entry)| (key.clone(), entry.known)).collect()
    }

    /// Hands an order as it was just read to its subscribers. An older reading than the last is dropped.
    pub(super) fn publish(&self, key: &WatchKey, order: &Arc<LedgerOrder>) {
        let mut table = self.table.locked();
        let Some(entry) = table.entries.get_mut(key) else {
            return;
        };
        let is_newer = entry
            .changes
            .borrow()
            .as_ref()
            .is_none_or(|last| order.standing().is_after(last.standing()));
        if is_newer {
            entry.known = entry.known.max(order.version);
            entry.changes.send_replace(Some(order.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{
        ledger::{self, OrderStatus},
        sale::NewSale,
    };
    use stock::OrderState;

    const NOW: u64 = 1_000;

    fn stored(n: u64) -> StoredOrder {
        StoredOrder {
            order: OrderId::new(NOW, 1, n),
            buyer: BuyerId::try_new("ann").unwrap(),
            request: RequestId::try_new(&format!("r{n}")).unwrap(),
            quantity: 1,
            state: OrderState::Reserved,
            fingerprint: 0,
            created_at_ms: NOW,
            pay_by_ms: NOW + 60_000,
            metadata: None,
        }
    }

    /// A ledger with a sale, in a folder that lives as long as it is kept.
    async fn ledger() -> (OrderLedger, SegmentId, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let sale = serde_json::json!({
            "id": "spring", "starts_at_ms": 1, "ends_at_ms": 1_000_000, "pay_within": "1m", "buyer_limit": 9,
            "currency": "usd", "skus": [{"sku": "shoe", "stock": 9, "price_minor": 500}]
        });
        let sale = serde_json::from_value::<NewSale>(sale).unwrap();
        let sale = sale.check().unwrap();
        ledger.create_sale(&sale, NOW).await.unwrap();
        let segment = SegmentId::first(sale.id.clone(), sale.skus[0].sku.clone());
        (ledger, segment, folder)
    }

    impl OrderLedger {
        /// What the poller was woken for.
        fn rung_for(&self) -> Vec<(WatchKey, u64)> {
            let watch = &self.shared.order_watch;
            match watch.notified().now_or_never() {
                Some(()) => watch.take_dirty(),
                None => Vec::new(),
            }
        }
    }

    #[tokio::test]
    async fn what_this_node_changes_is_read_at_once_and_nothing_else_is() {
        let (ledger, segment, _folder) = ledger().await;
        let (one, other) = (stored(1), stored(2));
        let request = WatchKey::Request(Box::new(RequestKey {
            sale: segment.sale.clone(),
            sku: segment.sku.clone(),
            buyer: other.buyer.clone(),
            request: other.request.clone(),
        }));
        let waits = [
            ledger.subscribe(WatchKey::Order(one.order), None),
            ledger.subscribe(request.clone(), None),
        ];
        assert_eq!(ledger.rung_for().len(), 2, "new subscribers");
        let settle = async |order: &StoredOrder| {
            let batch = std::slice::from_ref(order);
            ledger.settle(&segment, 1, batch, NOW).await.unwrap();
        };
        settle(&stored(3)).await;
        assert_eq!(ledger.rung_for(), [], "nobody watches it");
        settle(&other).await;
        assert_eq!(ledger.rung_for(), [(request, 0)]);
        settle(&one).await;
        let key = || (WatchKey::Order(one.order), 0);
        assert_eq!(ledger.rung_for(), [key()]);
        let mut tx = ledger.pool.begin().await.unwrap();
        ledger.hold(&mut tx, one.order, "pi", NOW).await.unwrap();
        ledger.drop_hold(&mut tx, one.order, "pi").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(ledger.rung_for(), [], "payments ring after their commit");
        ledger.wake();
        assert_eq!(ledger.rung_for(), [key()]);
        ledger.cancel(one.order, &one.buyer, NOW).await.unwrap();
        assert_eq!(ledger.rung_for(), [key()]);
        drop(waits);
        ledger.expire_due(u64::MAX / 2, 10).await.unwrap();
        assert_eq!(ledger.rung_for(), []);
        assert_eq!(
            (
                ledger.subscriptions(),
                ledger.shared.order_watch.table.locked().requests
            ),
            (0, 0)
        );
    }

    #[tokio::test]
    async fn an_older_reading_that_comes_later_is_no_change() {
        let (ledger, segment, _folder) = ledger().await;
        let order = stored(1);
        ledger
            .settle(&segment, 1, std::slice::from_ref(&order), NOW)
            .await
            .unwrap();
        let key = WatchKey::Order(order.order);
        let early = Arc::new(ledger.order(order.order).await.unwrap().unwrap());
        ledger.cancel(order.order, &order.buyer, NOW).await.unwrap();
        let late = Arc::new(ledger.order(order.order).await.unwrap().unwrap());
        let mut subscription = ledger.subscribe(key.clone(), None);
        ledger.shared.order_watch.publish(&key, &late);
        ledger.shared.order_watch.publish(&key, &early);
        assert_eq!(subscription.after(None).await.status, OrderStatus::Released);
        assert_eq!(ledger.shared.order_watch.take_all(), [(key, 2)]);
    }

    #[tokio::test]
    async fn the_subscriber_who_knows_least_decides_what_is_asked_for() {
        let (ledger, _, _folder) = ledger().await;
        let key = WatchKey::Order(stored(1).order);
        let known = |version| {
            let status = OrderStatus::Reserved;
            Some(Standing { version, status })
        };
        let _ahead = ledger.subscribe(key.clone(), known(3));
        let _behind = ledger.subscribe(key.clone(), known(1));
        let _again = ledger.subscribe(key.clone(), known(2));
        assert_eq!(ledger.shared.order_watch.take_all(), [(key, 1)]);
    }
}
