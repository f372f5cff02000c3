//! Events that could not be handed to the shop after every try: listed for an operator, and made due again when the operator
//! says so.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::{
    LedgerError, OrderLedger,
    query::{Columns, FromRow, query},
    rows::Page,
};
use crate::ids::{OrderId, SaleId};

/// Most events in one page, and made due in one statement.
const MAX_PAGE: usize = 1_000;

/// Which event, in the form that the shop is told: the order's id without its prefix, and the event's place in the order's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    /// The order.
    pub order: OrderId,
    /// Its place among the events of the order.
    pub step: u32,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadDelivery {
    /// As the shop would have known it.
    pub id: EventId,
    /// The order.
    pub order: OrderId,
    /// What happened to the order.
    pub kind: String,
    /// When it happened.
    pub created_at_ms: u64,
    /// How often it was tried.
    pub attempts: u64,
    /// When it was given up.
    pub dead_at_ms: u64,
    /// What its last try said.
    pub reason: String,
}

/// The answer to [`OrderLedger::revive_event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revived {
    /// It is due now, with all its tries before it.
    Due,
    /// It was not dead: it waits for its delivery or was delivered.
    Alive,
    /// The sale has no such event.
    Unknown,
}

const PAGE: &str = "SELECT e.order_id, e.step, e.kind, e.created_at_ms, e.attempts, e.dead_at_ms, COALESCE(f.reason, '') FROM order_outbox e \
    JOIN order_orders o ON o.order_id = e.order_id \
    LEFT JOIN order_outbox_failures f ON f.order_id = e.order_id AND f.step = e.step \
    WHERE e.dead_at_ms > 0 AND o.sale = $1 AND (e.order_id, e.step) > ($2, $3) ORDER BY e.order_id, e.step LIMIT $4";
/// Of two at once, the second finds nothing dead.
const ONE: &str = "UPDATE order_outbox SET dead_at_ms = 0, attempts = 0, next_at_ms = $1 \
    WHERE order_id = $2 AND step = $3 AND dead_at_ms > 0 \
    AND EXISTS (SELECT 1 FROM order_orders o WHERE o.order_id = order_outbox.order_id AND o.sale = $4)";
const KNOWN: &str = "SELECT COUNT(*) FROM order_outbox e JOIN order_orders o ON o.order_id = e.order_id \
    WHERE e.order_id = $1 AND e.step = $2 AND o.sale = $3";
const ALL: &str = "UPDATE order_outbox SET dead_at_ms = 0, attempts = 0, next_at_ms = $1 WHERE dead_at_ms > 0 AND (order_id, step) IN \
    (SELECT e.order_id, e.step FROM order_outbox e JOIN order_orders o ON o.order_id = e.order_id \
     WHERE e.dead_at_ms > 0 AND e.dead_at_ms <= $1 AND o.sale = $2 ORDER BY e.order_id, e.step LIMIT $3)";

impl OrderLedger {
    /// The dead events of a sale, after a cursor.
    pub async fn dead_deliveries(
        &self,
        sale: &SaleId,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Page<DeadDelivery, EventId>, LedgerError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let order = after.map_or_else(String::new, |id| id.order.to_string());
        let step = after.map_or(0, |id| id.step);
        let page = query!(PAGE, sale, order, step, limit);
        let events = page.all(self.reads()).await?;
        Ok(Page::of(events, limit, |event: &DeadDelivery| event.id))
    }

    /// Makes one dead event due again.
    pub async fn revive_event(
        &self,
        sale: &SaleId,
        id: EventId,
        now_ms: u64,
    ) -> Result<Revived, LedgerError> {
        let revived = query!(ONE, now_ms, id.order, id.step, sale);
        if revived.run(&self.pool).await? > 0 {
            self.wake();
            return Ok(Revived::Due);
        }
        let known = query!(KNOWN, id.order, id.step, sale);
        Ok(match known.one::<u64>(self.reads()).await? {
            0 => Revived::Unknown,
            _ => Revived::Alive,
        })
    }

    /// Makes all events of a sale due again that are dead by now; answers how many. One that is given up again meanwhile stays.
    pub async fn revive_events(&self, sale: &SaleId, now_ms: u64) -> Result<u64, LedgerError> {
        let mut all = 0;
        loop {
            let revived = query!(ALL, now_ms, sale, MAX_PAGE).run(&self.pool).await?;
            all += revived;
            if revived < MAX_PAGE as u64 {
                self.wake();
                return Ok(all);
            }
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = self.order.to_string();
        write!(f, "evt_{}_{}", order.trim_start_matches("ord_"), self.step)
    }
}

impl FromStr for EventId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .strip_prefix("evt_")
            .and_then(|rest| rest.rsplit_once('_'));
        let id = parts.and_then(|(order, step)| {
            Some(Self {
                order: format!("ord_{order}").parse().ok()?,
                step: step.parse().ok()?,
            })
        });
        id.ok_or_else(|| {
            format!("event {text:?}: must be evt_, the order's id without ord_, and _1 or _2")
        })
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromRow for DeadDelivery {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        let id = EventId {
            order: columns.take()?,
            step: columns.take()?,
        };
        Ok(Self {
            id,
            order: id.order,
            kind: columns.take()?,
            created_at_ms: columns.take()?,
            attempts: columns.take()?,
            dead_at_ms: columns.take()?,
            reason: columns.take()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_event_survives_its_text_form() {
        let id = EventId {
            order: OrderId::new(1, 2, 3),
            step: 2,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "evt_",
            "evt_x_1",
            "ord_0_1",
            &id.to_string()[..30],
            "evt__1",
        ] {
            assert!(bad.parse::<EventId>().is_err(), "{bad:?}");
        }
    }
}
