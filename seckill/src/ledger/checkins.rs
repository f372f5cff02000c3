//! One-time codes of bookings: only a keyed hash is kept, tries are counted before they are judged, and a code opens once.

use sqlx::{AnyConnection, Row};

use super::{
    LedgerError, LedgerOrder, OrderLedger, OrderStatus, Payment, checkout,
    rows::{count, parsed},
    sql,
};
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
        let made = sqlx::query(NEW_CODE)
            .bind(order.to_string())
            .bind(sale.as_str())
            .bind(mac)
            .bind(i64::from(CODES_MAX))
            .execute(&self.pool)
            .await?;
        Ok(made.rows_affected() == 1)
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
        let tried = sqlx::query(TRY)
            .bind(order.to_string())
            .bind(sale.as_str())
            .bind(i64::from(ATTEMPTS_MAX))
            .fetch_all(&mut *tx)
            .await?;
        let Some(row) = tried.first() else {
            let known = sqlx::query(STATE)
                .bind(order.to_string())
                .bind(sale.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            tx.rollback().await?;
            return Ok(match known.map(|row| count(&row, 0)).transpose()? {
                None => CheckIn::Unknown,
                Some(0) => CheckIn::Locked,
                Some(at_ms) => CheckIn::Before { at_ms },
            });
        };
        let mac: &str = row.try_get(0)?;
        if !is_right(mac) {
            let used = count(row, 1)? as u32;
            tx.commit().await?;
            let left = ATTEMPTS_MAX.saturating_sub(used);
            return Ok(CheckIn::Wrong { left });
        }
        let Some(booking) = self.used(&mut tx, order, now_ms).await? else {
            tx.commit().await?;
            return Ok(CheckIn::NotBooked);
        };
        sqlx::query(USE)
            .bind(order.to_string())
            .bind(sql(now_ms))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.wake();
        Ok(CheckIn::Done(Box::new(booking)))
    }

    /// The bookings of a sale by slot.
    pub async fn slot_counts(
        &self,
        sale: &SaleId,
    ) -> Result<std::collections::HashMap<SkuId, SlotCounts>, LedgerError> {
        let rows = sqlx::query(COUNTS)
            .bind(sale.as_str())
            .fetch_all(self.reads())
            .await?;
        let mut slots = std::collections::HashMap::new();
        for row in &rows {
            let slot: &mut SlotCounts = slots.entry(parsed(row, 0)?).or_default();
            let reason: &str = row.try_get(2)?;
            let units = count(row, 4)?;
            match (parsed(row, 1)?, reason, count(row, 3)? == 1) {
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
