//! An outbox in memory, with the rules of the ledger's: leases, tries, and the order of an order's events.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use delivery::{Event, EventKind, Outbox, WallClock};
use serde_json::json;
use tokio::sync::Notify;

/// By order and step.
type Rows = BTreeMap<(u64, u32), Row>;

#[derive(Clone, Default)]
pub struct MemoryOutbox {
    rows: Arc<Mutex<Rows>>,
    written: Arc<Notify>,
}

struct Row {
    kind: EventKind,
    due_ms: u64,
    attempts: u32,
    is_delivered: bool,
    reason: Option<String>,
}

/// An event that was given up.
#[derive(Debug, PartialEq, Eq)]
pub struct Dead {
    pub kind: &'static str,
    pub attempts: u32,
    pub reason: String,
}

impl Row {
    fn is_open(&self) -> bool {
        !self.is_delivered && self.reason.is_none()
    }
}

pub fn order_id(n: u64) -> String {
    format!("ord_{n:06}")
}

pub fn wall_clock() -> WallClock {
    Arc::new(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_millis() as u64
    })
}

impl MemoryOutbox {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    fn write(&self, orders: impl Iterator<Item = u64>, step: u32, kind: EventKind) {
        let row = |order| {
            let row = Row {
                kind,
                due_ms: 0,
                attempts: 0,
                is_delivered: false,
                reason: None,
            };
            ((order, step), row)
        };
        self.rows().extend(orders.map(row));
        self.written.notify_one();
    }

    /// Writes the first event of new orders.
    pub fn settle(&self, first: u64, count: u64) {
        self.write(first..first + count, 1, EventKind::Settled);
    }

    /// Writes the second event of orders.
    pub fn pay(&self, orders: impl Iterator<Item = u64>) {
        self.write(orders, 2, EventKind::Paid);
    }

    /// As after a crash between the acknowledgements and their record.
    pub fn forget_deliveries(&self) {
        for row in self.rows().values_mut() {
            (row.is_delivered, row.due_ms) = (false, 0);
        }
    }

    /// Takes the first events of paid orders for delivered.
    pub fn skip_settlements_of_paid(&self) {
        let mut rows = self.rows();
        let paid: Vec<u64> = rows
            .keys()
            .filter(|key| key.1 == 2)
            .map(|key| key.0)
            .collect();
        for order in paid {
            rows.get_mut(&(order, 1)).unwrap().is_delivered = true;
        }
    }

    pub fn pending(&self) -> u64 {
        self.rows().values().filter(|row| row.is_open()).count() as u64
    }

    /// The events that were handed out.
    pub fn tried(&self) -> usize {
        self.rows().values().filter(|row| row.attempts > 0).count()
    }

    pub fn dead(&self) -> Vec<Dead> {
        let rows = self.rows();
        let dead = rows.values().filter_map(|row| {
            Some(Dead {
                kind: row.kind.as_str(),
                attempts: row.attempts,
                reason: row.reason.clone()?,
            })
        });
        dead.collect()
    }

    pub async fn lease(&self, count: usize) -> Vec<Event> {
        let lease = Duration::from_secs(60);
        self.lease_events(wall_clock()(), lease, count)
            .await
            .unwrap()
    }

    /// Changes the events that are still leased to the caller.
    fn change(&self, events: &[Event], change: impl Fn(&mut Row)) {
        let mut rows = self.rows();
        for event in events {
            let order = event.order.trim_start_matches("ord_").parse().unwrap();
            let row = rows.get_mut(&(order, event.step)).unwrap();
            if row.attempts == event.attempts && row.is_open() {
                change(row);
            }
        }
        drop(rows);
        self.written.notify_one();
    }
}

#[async_trait]
impl Outbox for MemoryOutbox {
    type Error = Infallible;

    async fn lease_events(
        &self,
        now_ms: u64,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Event>, Infallible> {
        let mut rows = self.rows();
        let due: Vec<(u64, u32)> = rows
            .iter()
            .filter(|((order, step), row)| {
                let before = rows.get(&(*order, step - 1));
                row.is_open() && row.due_ms <= now_ms && before.is_none_or(|row| !row.is_open())
            })
            .map(|(key, _)| *key)
            .take(limit)
            .collect();
        let mut events = Vec::new();
        for (order, step) in due {
            let row = rows.get_mut(&(order, step)).unwrap();
            row.attempts += 1;
            row.due_ms = now_ms + lease.as_millis() as u64;
            let (id, created_at_ms) = (format!("evt_{order:06}_{step}"), 1_700_000_000_000 + order);
            let document = json!({ "id": order_id(order) });
            events.push(Event {
                body: Event::document(&id, row.kind, created_at_ms, &document),
                id,
                order: order_id(order),
                step,
                kind: row.kind,
                created_at_ms,
                attempts: row.attempts,
            });
        }
        Ok(events)
    }

    async fn events_delivered(&self, events: &[Event], _: u64) -> Result<(), Infallible> {
        self.change(events, |row| row.is_delivered = true);
        Ok(())
    }

    async fn events_dead(&self, events: &[(Event, String)], _: u64) -> Result<(), Infallible> {
        for (event, reason) in events {
            let event = std::slice::from_ref(event);
            self.change(event, |row| row.reason = Some(reason.clone()));
        }
        Ok(())
    }

    async fn events_retry_at(&self, events: &[Event], due_ms: u64) -> Result<(), Infallible> {
        self.change(events, |row| row.due_ms = due_ms);
        Ok(())
    }

    async fn events_held(&self, events: &[Event], due_ms: u64) -> Result<(), Infallible> {
        self.change(events, |row| {
            row.due_ms = due_ms;
            row.attempts -= 1;
        });
        Ok(())
    }

    async fn events_pending(&self) -> Result<u64, Infallible> {
        Ok(self.pending())
    }

    async fn events_given_up(&self) -> Result<u64, Infallible> {
        Ok(self.dead().len() as u64)
    }

    async fn prune_events(&self, _: u64, _: usize) -> Result<u64, Infallible> {
        Ok(0)
    }

    async fn events_due(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.written.notified()).await;
    }
}
