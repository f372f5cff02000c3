//! Units move to the buyer: when a buyer's home segment is empty and another one is not, a chunk of units changes its segment, and
//! the purchase is decided again at home, where the buyer's limit and request ids are.
//!
//! A transfer is a row of the ledger that goes through `pending → moving → done`, with one store call before each step, under one
//! id. Every step can be repeated, by this node or another one, so a crash between any two leaves a row that
//! [`Transfers::sweep`] finishes. Meanwhile the units are in no segment, which is why nobody says "sold out" while a row is open.
//! One transfer of a sku is under way at a time, over all nodes; one that cannot be finished because a segment does not answer is set
//! aside as stuck, and holds up its own pair of segments only.
//!
//! [`plan`] is the arithmetic, [`Transfers`] the steps, [`run_rebalancer`] the one task a sku that decides who gets what.

mod pass;
pub mod plan;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use stock::{SegmentStatus, StockError, StockStore};

use self::pass::{Counters, Pass};
use crate::{
    clock::WallClock,
    ids::SegmentId,
    ledger::{LedgerError, OrderLedger, Transfer, TransferState},
    locks::Locked,
    sku_stock::{REBALANCER_DEPTH, RebalancerWork, Stock},
    ticks::bounded,
};

/// An open row older than this has lost its node. Finishing one that has not is harmless, so clocks may differ.
const STALE_AFTER_MS: u64 = 3_000;
/// A store that does not answer a step within this is left to the sweeper, so that one dead segment holds up one transfer.
const STEP: Duration = Duration::from_secs(2);

/// Transfers that a sweep finishes at the same time.
const AT_ONCE: usize = 16;

/// Why a transfer stopped. Its row stays as it is, and the sweeper goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The ledger gave no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store gave no answer.
    #[error(transparent)]
    Stock(#[from] StockError),
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrived {
    /// Units that this call brought; 0 if the source had none. `None` if the transfer was called off, or another node has brought
    /// them.
    pub units: Option<u64>,
    /// The destination after they did, if this call brought them.
    pub destination: Option<SegmentStatus>,
}

/// Begins and finishes transfers.
#[derive(Clone)]
pub struct Transfers {
    store: Arc<dyn StockStore>,
    ledger: OrderLedger,
    clock: WallClock,
    /// Those whose units have left their segment while the ledger did not answer, by id. If it comes back without the row, because it went
    /// back in time, only this node knows of them.
    unwritten: Arc<Mutex<BTreeMap<String, Transfer>>>,
}

impl Transfers {
    /// Joins the parts.
    pub fn new(store: Arc<dyn StockStore>, ledger: OrderLedger, clock: WallClock) -> Self {
        Self {
            store,
            ledger,
            clock,
            unwritten: Arc::default(),
        }
    }

    /// Writes down a transfer of `units` to segment `destination`; `None` if one of the sku is under way already, on any node, or one
    /// of the same pair is stuck.
    pub async fn begin(
        &self,
        source: &SegmentId,
        destination: u16,
        units: u64,
    ) -> Result<Option<Transfer>, TransferError> {
        let transfer = Transfer {
            id: format!("t:{:032x}", rand::random::<u128>()),
            sale: source.sale.clone(),
            sku: source.sku.clone(),
            source: source.index,
            destination,
            units,
            state: TransferState::Pending,
            created_at_ms: (self.clock)(),
        };
        let begun = self.ledger.begin_transfer(&transfer).await?;
        Ok(begun.then_some(transfer))
    }

    /// Takes a transfer to its end, from wherever it stands. Several nodes may do so at once.
    pub async fn finish(&self, transfer: Transfer) -> Result<Arrived, TransferError> {
        let moving = match transfer.state {
            TransferState::Pending => self.take(transfer).await?,
            TransferState::Moving => Some(transfer),
            TransferState::Done | TransferState::Cancelled => None,
        };
        let Some(moving) = moving else {
            return Ok(Arrived::default());
        };
        if moving.state == TransferState::Cancelled {
            return Ok(Arrived {
                units: Some(0),
                destination: None,
            });
        }
        let segment = moving.destination_id();
        let arrives = self.store.restock(&segment, &moving.id, moving.units);
        let destination = bounded(STEP, arrives)
            .await
            .inspect_err(|_| self.keep(&moving))?;
        let written = self.write_arrived(&moving).await;
        written.inspect_err(|_| self.keep(&moving))?;
        Ok(Arrived {
            units: Some(moving.units),
            destination: Some(destination),
        })
    }

    async fn write_arrived(&self, moving: &Transfer) -> Result<(), LedgerError> {
        if !self.ledger.transfer_done(&moving.id).await? {
            // Somebody else was first, or the ledger has lost the row and must know of the move again.
            self.ledger.transfer_arrived(moving).await?;
        }
        Ok(())
    }

    /// Remembers a transfer whose units have left, until the ledger has been asked for its row.
    fn keep(&self, moving: &Transfer) {
        self.unwritten
            .locked()
            .insert(moving.id.clone(), moving.clone());
    }

    /// Finishes what only this node knows of; what the ledger knows, the sweep finds there.
    async fn finish_unwritten(&self) -> Result<usize, TransferError> {
        let all: Vec<Transfer> = self.unwritten.locked().values().cloned().collect();
        let mut finished = 0;
        for moving in all {
            if self.ledger.transfer(&moving.id).await?.is_none() {
                tracing::warn!(transfer = %moving.id, units = moving.units, "the ledger has lost a transfer: its units are brought all the same");
                if let Err(error) = self.finish(moving.clone()).await {
                    tracing::warn!(transfer = %moving.id, %error, "a transfer stays open");
                    continue;
                }
                finished += 1;
            }
            self.unwritten.locked().remove(&moving.id);
        }
        Ok(finished)
    }

    /// Pending → moving: the units leave their segment; → cancelled, if there were none. `None` if somebody else has gone on, or
    /// has called the transfer off: a rebuild of the source does that, and then it has counted the units as still there.
    async fn take(&self, pending: Transfer) -> Result<Option<Transfer>, TransferError> {
        let segment = pending.source_id();
        let leaves = self.store.withdraw(&segment, &pending.id, pending.units);
        let units = bounded(STEP, leaves).await?;
        let (written, state) = match units {
            0 => (
                self.ledger.cancel_transfer(&pending.id).await,
                TransferState::Cancelled,
            ),
            _ => (
                self.ledger.transfer_taken(&pending.id, units).await,
                TransferState::Moving,
            ),
        };
        let written = written.inspect_err(|_| {
            if units > 0 {
                self.keep(&Transfer {
                    units,
                    state: TransferState::Moving,
                    ..pending.clone()
                });
            }
        })?;
        if written {
            return Ok(Some(Transfer {
                units,
                state,
                ..pending
            }));
        }
        match self.ledger.transfer(&pending.id).await? {
            Some(now) => Ok(Some(now).filter(|now| now.state == TransferState::Moving)),
            // Rows are never removed: the ledger went back in time, and only this node knows that the units have left.
            None if units > 0 => Ok(Some(Transfer {
                units,
                state: TransferState::Moving,
                ..pending
            })),
            None => Ok(None),
        }
    }

    /// Finishes what others have left; answers how many transfers. One whose store does not answer does not hold up the rest.
    pub async fn sweep(&self) -> Result<usize, TransferError> {
        let now_ms = (self.clock)();
        let is_stale =
            |open: &Transfer| now_ms.saturating_sub(open.created_at_ms) >= STALE_AFTER_MS;
        let mut stale = self.ledger.open_transfers().await?;
        stale.retain(is_stale);
        let mut finished = self.finish_unwritten().await?;
        for some in stale.chunks(AT_ONCE) {
            let finishing = some
                .iter()
                .map(|transfer| self.finish_stale(transfer.clone()));
            finished += join_all(finishing)
                .await
                .into_iter()
                .filter(|done| *done)
                .count();
        }
        Ok(finished)
    }

    async fn finish_stale(&self, transfer: Transfer) -> bool {
        let id = transfer.id.clone();
        match self.finish(transfer).await {
            Ok(arrived) => {
                tracing::info!(transfer = %id, units = ?arrived.units, "a transfer that was left open is finished");
                true
            }
            Err(error) => {
                tracing::warn!(transfer = %id, %error, "a transfer stays open");
                if let Err(error) = self.ledger.transfer_stuck(&id).await {
                    tracing::warn!(transfer = %id, %error, "a transfer was not set aside");
                }
                false
            }
        }
    }
}

/// Works a rebalancer's queue until the stock is dropped: those who wait for units share one look and its transfers (`pass.rs`).
pub async fn run_rebalancer(mut work: RebalancerWork, stock: Weak<Stock>, transfers: Transfers) {
    let counters = Counters::new();
    let mut jobs = Vec::new();
    while work.jobs.recv_many(&mut jobs, REBALANCER_DEPTH).await > 0 {
        let Some(stock) = stock.upgrade() else {
            return;
        };
        Pass {
            stock: &stock,
            transfers: &transfers,
            counters: &counters,
        }
        .run(std::mem::take(&mut jobs))
        .await;
    }
}
