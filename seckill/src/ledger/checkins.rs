//! One-time codes of bookings: only a keyed hash is kept, tries are counted before they are judged, and a code opens once.

use std::collections::HashMap;

use sqlx::AnyConnection;

use super::{LedgerError, LedgerOrder, OrderLedger, OrderStatus, Payment, checkout, query::query};
use crate::ids::{OrderId, SaleId, SkuId};

/// Tries at one code.
pub const ATTEMPTS_MAX: u32 = 5;
/// Codes of one booking: bounds all tries at it to a hundred of a trillion codes.
pub const CODES_MAX: u32 = 20;
/// What an order is paid by that cost nothing.
const INTENT: &str = "checkin";

/// The answer to [`OrderLedger::check_in`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckIn {
    /// The buyer is there; the booking is used.
    Done(Box<LedgerOrder>),
    /// It was used before.
    Before {
        /// When.
        at_ms: u64,
    },
    /// Another code.
    Wrong {
        /// Tries that are left.
        left: u32,
    },
    /// All tries are used up; the buyer needs a new code.
    Locked,
    /// The booking was cancelled or given up, or is not paid.
    NotBooked,
    /// No code was made for such a booking of the sale.
    Unknown,
}

/// What became of the bookings of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Units booked and not yet used.
    pub booked: u64,
    /// Units whose buyer came.
    pub checked_in: u64,
    /// Units given back by their buyer, or not paid in time.
    pub cancelled: u64,
    /// Units whose buyer did not come in time.
    pub no_show: u64,
}

const NEW_CODE: &str = "INSERT INTO sale_checkins (order_id, sale, mac, codes, attempts, checked_in_at_ms) VALUES ($1, $2, $3, 1, 0, 0) \
    ON CONFLICT (order_id) DO UPDATE SET mac = excluded.mac, codes = sale_checkins.codes + 1, attempts = 0 \
    WHERE sale_checkins.codes < $4 AND sale_checkins.checked_in_at_ms = 0";
/// Counted before it is judged: a crash in between costs a try and never gives one.
const TRY: &str = "UPDATE sale_checkins SET attempts = attempts + 1 \
    WHERE order_id = $1 AND sale = $2 AND attempts < $3 AND checked_in_at_ms = 0 RETURNING mac, attempts";
const STATE: &str = "SELECT checked_in_at_ms FROM sale_checkins WHERE order_id = $1 AND sale = $2";
const USE: &str = "UPDATE sale_checkins SET checked_in_at_ms = $2 WHERE order_id = $1";
const COUNTS: &str = "SELECT o.sku, o.status, \
    CASE WHEN o.reason = 'expired' AND o.amount_minor = 0 THEN 'no_show' ELSE '' END, CASE WHEN COALESCE(c.checked_in_at_ms, 0) > 0 THEN 1 ELSE 0 END, \
    CAST(SUM(o.quantity) AS BIGINT) FROM order_orders o LEFT JOIN sale_checkins c ON c.order_id = o.order_id \
    WHERE o.sale = $1 GROUP BY 1, 2, 3, 4";

impl OrderLedger {
    /// Keeps the hash of a new code, which takes the place of an older one. False: the booking was used, or had too many codes.
    pub async fn new_code(
        &self,
        sale: &SaleId,
        order: OrderId,
        mac: &str,
    ) -> Result<bool, LedgerError> {
        let made = query!(NEW_CODE, order, sale, mac, CODES_MAX);
        Ok(made.run(&self.pool).await? == 1)
    }

    /// Uses a booking, if its code is right. `is_right` is given the hash that is kept.
    pub async fn check_in(
        &self,
        sale: &SaleId,
        order: OrderId,
        is_right: impl Fn(&str) -> bool,
        now_ms: u64,
    ) -> Result<CheckIn, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let tried = query!(TRY, order, sale, ATTEMPTS_MAX)
            .first(&mut *tx)
            .await?;
        let Some((mac, used)): Option<(String, u32)> = tried else {
            let known = query!(STATE, order, sale).first(&mut *tx).await?;
            tx.rollback().await?;
            return Ok(match known {
                None => CheckIn::Unknown,
                Some(0) => CheckIn::Locked,
                Some(at_ms) => CheckIn::Before { at_ms },
            });
        };
        if !is_right(&mac) {
            tx.commit().await?;
            let left = ATTEMPTS_MAX.saturating_sub(used);
            return Ok(CheckIn::Wrong { left });
        }
        let Some(booking) = self.used(&mut tx, order, now_ms).await? else {
            tx.commit().await?;
            return Ok(CheckIn::NotBooked);
        };
        query!(USE, order, now_ms).run(&mut *tx).await?;
        tx.commit().await?;
        self.wake();
        Ok(CheckIn::Done(Box::new(booking)))
    }

    /// The bookings of a sale by slot.
    pub async fn slot_counts(
        &self,
        sale: &SaleId,
    ) -> Result<HashMap<SkuId, SlotCounts>, LedgerError> {
        let rows: Vec<(SkuId, OrderStatus, String, bool, u64)> =
            query!(COUNTS, sale).all(self.reads()).await?;
        let mut slots = HashMap::<_, SlotCounts>::new();
        for (sku, status, reason, is_used, units) in rows {
            let slot = slots.entry(sku).or_default();
            match (status, reason.as_str(), is_used) {
                (OrderStatus::Paid, _, true) => slot.checked_in += units,
                (OrderStatus::Reserved | OrderStatus::Paying | OrderStatus::Paid, ..) => {
                    slot.booked += units;
                }
                (OrderStatus::Released, "no_show", _) => slot.no_show += units,
                (OrderStatus::Released, ..) => slot.cancelled += units,
                (OrderStatus::Refused, ..) => {}
            }
        }
        Ok(slots)
    }

    /// Takes the units of a booking for good: of one that cost nothing now, of one that was paid for they are taken. None of any
    /// other.
    async fn used(
        &self,
        connection: &mut AnyConnection,
        order: OrderId,
        now_ms: u64,
    ) -> Result<Option<LedgerOrder>, LedgerError> {
        let Some(known) = checkout::read(connection, order).await? else {
            return Ok(None);
        };
        match known.status {
            OrderStatus::Paid => Ok(Some(known)),
            OrderStatus::Reserved if known.amount_minor == 0 => {
                match self.mark_paid(connection, order, INTENT, now_ms).await? {
                    Payment::Paid(paid) | Payment::AlreadyPaid(paid) => Ok(Some(paid)),
                    Payment::NotPayable(_) => Ok(None),
                }
            }
            OrderStatus::Reserved
            | OrderStatus::Paying
            | OrderStatus::Released
            | OrderStatus::Refused => Ok(None),
        }
    }
}
