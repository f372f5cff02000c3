//! Units on their way from one segment of a sku to another, as rows that any node can finish ([`crate::transfer`]).
//!
//! `pending` (asked for) → `moving` (taken from the source) → `done`, or `pending` → `cancelled`. Each step is a compare-and-set, so
//! of two nodes that work on one row, and of a rebalancer and a rebuild, exactly one makes each step.

use std::collections::HashMap;

use stock::words;

use super::{
    LedgerError, OrderLedger,
    query::{Query, from_row, query},
};
use crate::ids::{SaleId, SegmentId, SkuId};

words! {
    /// Where a transfer stands.
    pub enum TransferState {
        /// Asked for. Its units may or may not be taken from the source.
        Pending = "pending",
        /// Taken from the source. They may or may not have arrived.
        Moving = "moving",
        /// Arrived.
        Done = "done",
        /// Nothing was moved, and nothing ever will be.
        Cancelled = "cancelled",
    }
}

impl TransferState {
    /// Whether something is left to do.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Moving)
    }
}

/// Units on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Its id: the withdrawal's id at the source and the restock's id at the destination. Never an operator's restock id, which
    /// cannot hold a colon.
    pub id: String,
    /// The sale.
    pub sale: SaleId,
    /// The sku.
    pub sku: SkuId,
    /// Index of the segment that gives.
    pub source: u16,
    /// Index of the segment that takes.
    pub destination: u16,
    /// Units asked for while pending, units taken after that.
    pub units: u64,
    /// Where it stands.
    pub state: TransferState,
    /// When it began, by the clock of the node that began it.
    pub created_at_ms: u64,
}

impl Transfer {
    /// The segment that gives.
    pub fn source_id(&self) -> SegmentId {
        self.segment(self.source)
    }

    /// The segment that takes.
    pub fn destination_id(&self) -> SegmentId {
        self.segment(self.destination)
    }

    fn segment(&self, index: u16) -> SegmentId {
        SegmentId {
            sale: self.sale.clone(),
            sku: self.sku.clone(),
            index,
        }
    }
}

/// What the ledger knows of a sku's transfers at one instant. Two equal marks without an open or stuck transfer mean that no unit changed
/// its segment in between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransferMark {
    /// Transfers ever begun.
    pub begun: u64,
    /// The one that is under way.
    pub open: Option<Transfer>,
    /// Those that wait for a segment which does not answer.
    pub stuck: Vec<Transfer>,
}

impl TransferMark {
    /// Whether units may be in no segment.
    pub fn is_open(&self) -> bool {
        self.open.is_some() || !self.stuck.is_empty()
    }

    /// Whether units of this pair of segments wait already, so that no more can be moved between them.
    pub fn is_stuck(&self, source: u16, destination: u16) -> bool {
        let is_pair = |one: &Transfer| (one.source, one.destination) == (source, destination);
        self.stuck.iter().any(is_pair)
    }
}

const BEGIN: &str = "INSERT INTO sale_transfers (transfer_id, sale, sku, source, destination, units, state, created_at_ms) \
    VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7) ON CONFLICT DO NOTHING";
const ARRIVED: &str = "INSERT INTO sale_transfers (transfer_id, sale, sku, source, destination, units, state, created_at_ms) \
    VALUES ($1, $2, $3, $4, $5, $6, 'done', $7) ON CONFLICT DO NOTHING";
const TAKEN: &str = "UPDATE sale_transfers SET state = 'moving', units = $2 WHERE transfer_id = $1 AND state = 'pending'";
const DONE: &str =
    "UPDATE sale_transfers SET state = 'done' WHERE transfer_id = $1 AND state = 'moving'";
const CANCEL: &str = "UPDATE sale_transfers SET state = 'cancelled', units = 0 WHERE transfer_id = $1 AND state = 'pending'";
/// The columns of a [`Transfer`], and whether it is stuck.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT transfer_id, sale, sku, source, destination, units, state, created_at_ms, stuck FROM sale_transfers ",
            $rest
        )
    };
}
const ONE: &str = select!("WHERE transfer_id = $1");
/// As the partial index has it, so that finished transfers are not read.
const OPEN: &str = select!("WHERE state IN ('pending', 'moving') ORDER BY created_at_ms");
const OPEN_OF_SKU: &str =
    select!("WHERE sale = $1 AND sku = $2 AND state IN ('pending', 'moving')");
const STUCK: &str =
    "UPDATE sale_transfers SET stuck = 1 WHERE transfer_id = $1 AND state IN ('pending', 'moving')";
const BEGUN: &str = "SELECT COUNT(*) FROM sale_transfers WHERE sale = $1 AND sku = $2";
const IN_TRANSIT: &str = "SELECT sku, CAST(SUM(units) AS BIGINT) FROM sale_transfers \
    WHERE sale = $1 AND state = 'moving' GROUP BY sku";

/// In place of the other segment of a move of which only one is known. A sku has 64 segments at most.
const UNKNOWN: u16 = 65_535;
const CALLED_OFF: &str = "SELECT CAST(COALESCE(SUM(units), 0) AS BIGINT) FROM sale_transfers \
    WHERE sale = $1 AND sku = $2 AND source = $3 AND state = 'cancelled'";

impl OrderLedger {
    /// Units of transfers out of a segment that a rebuild has called off: they may have been taken in the store.
    pub async fn called_off_units(&self, segment: &SegmentId) -> Result<u64, LedgerError> {
        query!(CALLED_OFF, segment).one(self.reads()).await
    }

    /// Writes down units that came to a segment and left it by transfers which the ledger has lost, for a rebuild under this epoch.
    pub async fn record_lost_moves(
        &self,
        segment: &SegmentId,
        epoch: u64,
        came: u64,
        left: u64,
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        let own = segment.index;
        let mut tx = self.pool.begin().await?;
        for (way, source, destination, units) in
            [("in", UNKNOWN, own, came), ("out", own, UNKNOWN, left)]
        {
            if units > 0 {
                let lost = Transfer {
                    id: format!("t:lost-{way}:{segment}:{epoch}"),
                    sale: segment.sale.clone(),
                    sku: segment.sku.clone(),
                    source,
                    destination,
                    units,
                    state: TransferState::Done,
                    created_at_ms: now_ms,
                };
                written(ARRIVED, &lost).run(&mut *tx).await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// Writes down a new transfer; false if one of the sku is under way already, or one of the same pair of segments is stuck,
    /// whichever node began it.
    pub async fn begin_transfer(&self, transfer: &Transfer) -> Result<bool, LedgerError> {
        Ok(written(BEGIN, transfer).run(&self.pool).await? == 1)
    }

    /// Pending → moving, with the units that the source gave. False if it was not pending any more.
    pub async fn transfer_taken(&self, id: &str, units: u64) -> Result<bool, LedgerError> {
        Ok(query!(TAKEN, id, units).run(&self.pool).await? == 1)
    }

    /// Moving → done. False if it was not moving any more.
    pub async fn transfer_done(&self, id: &str) -> Result<bool, LedgerError> {
        Ok(query!(DONE, id).run(&self.pool).await? == 1)
    }

    /// Writes down a transfer that has arrived and of which the ledger has nothing any more: it went back in time meanwhile.
    pub async fn transfer_arrived(&self, transfer: &Transfer) -> Result<(), LedgerError> {
        written(ARRIVED, transfer).run(&self.pool).await?;
        Ok(())
    }

    /// Pending → cancelled. False if it was not pending any more.
    pub async fn cancel_transfer(&self, id: &str) -> Result<bool, LedgerError> {
        Ok(query!(CANCEL, id).run(&self.pool).await? == 1)
    }

    /// Sets an open transfer aside, so that others of its sku can begin. It stays open, and any node may finish it.
    pub async fn transfer_stuck(&self, id: &str) -> Result<(), LedgerError> {
        query!(STUCK, id).run(&self.pool).await?;
        Ok(())
    }

    /// One transfer.
    pub async fn transfer(&self, id: &str) -> Result<Option<Transfer>, LedgerError> {
        query!(ONE, id).first(self.reads()).await
    }

    /// All transfers that are not finished, oldest first; one a sku at most, and one a pair of its segments that is stuck.
    pub async fn open_transfers(&self) -> Result<Vec<Transfer>, LedgerError> {
        query!(OPEN).all(self.reads()).await
    }

    /// What is known of a sku's transfers.
    pub async fn transfer_mark(
        &self,
        sale: &SaleId,
        sku: &SkuId,
    ) -> Result<TransferMark, LedgerError> {
        // In this order: a transfer that begins in between is seen as open, or is missing in this number and in the next one.
        let begun = query!(BEGUN, sale, sku).one(self.reads()).await?;
        let open: Vec<(Transfer, bool)> = query!(OPEN_OF_SKU, sale, sku).all(self.reads()).await?;
        let mut mark = TransferMark {
            begun,
            ..TransferMark::default()
        };
        for (transfer, is_stuck) in open {
            match is_stuck {
                false => mark.open = Some(transfer),
                true => mark.stuck.push(transfer),
            }
        }
        Ok(mark)
    }

    /// Units of a sale that left one segment and are not known to have reached the other, sku by sku.
    pub async fn units_in_transfer(
        &self,
        sale: &SaleId,
    ) -> Result<HashMap<SkuId, u64>, LedgerError> {
        query!(IN_TRANSIT, sale).all(self.reads()).await
    }
}

/// A statement that writes a transfer down.
fn written<'q>(statement: &'static str, transfer: &'q Transfer) -> Query<'q> {
    query!(
        statement,
        &transfer.id,
        &transfer.sale,
        &transfer.sku,
        transfer.source,
        transfer.destination,
        transfer.units,
        transfer.created_at_ms
    )
}

from_row!(Transfer: id, sale, sku, source, destination, units, state, created_at_ms);
