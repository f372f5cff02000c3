//! A sale's segments on this node: their rebalancers, and the one time in its life that a segment is opened in the store.

use std::sync::Arc;

use futures_util::future::join_all;
use stock::{Gate, SegmentSpec, SegmentStatus, StockError};
use tokio::runtime::Handle;

use super::{EngineError, SaleEngine, refresh::bounded};
use crate::{
    bells::Bells,
    catalogue::OpenSale,
    ids::{SaleId, SegmentId},
    sale::{Sale, SkuOnSale},
    sku_stock::{SegmentRuntime, Stock, rebalancer},
    sold_out::SkuSoldOut,
    transfer::{self, Transfers},
};

/// Makes the stocks of sales, with the tasks that work for them.
#[derive(Clone)]
pub(super) struct StockMaker {
    /// Rung when a segment has accepted something, so that settlement does not wait for its next poll.
    pub(super) accepted: Arc<Bells>,
    pub(super) transfers: Transfers,
    /// Where rebalancers run and carts are decided: the control plane.
    pub(super) runtime: Handle,
}

impl StockMaker {
    /// The stocks of a sale as they were, and new ones where there were none.
    pub(super) fn stocks(&self, sale: &Sale, known: Option<&OpenSale>) -> Vec<Arc<Stock>> {
        let stock = |sku: &SkuOnSale| match known.and_then(|open| open.stock(&sku.sku)) {
            Some(stock) => stock.clone(),
            None => self.new_stock(sale, sku),
        };
        sale.skus.iter().map(stock).collect()
    }

    fn new_stock(&self, sale: &Sale, sku: &SkuOnSale) -> Arc<Stock> {
        let sold_out = Arc::new(SkuSoldOut::default());
        let segments = sale.segments_of(&sku.sku).into_iter();
        let segments = segments
            .map(|id| self.new_segment(id, sold_out.clone()))
            .collect();
        let (rebalancer, work) = rebalancer();
        let names = (sale.id.clone(), sku.sku.clone());
        let stock = Arc::new(Stock::new(
            names,
            sku.price_minor,
            segments,
            sold_out,
            rebalancer,
        ));
        if stock.is_cut() {
            let moves =
                transfer::run_rebalancer(work, Arc::downgrade(&stock), self.transfers.clone());
            self.runtime.spawn(moves);
        }
        stock
    }

    fn new_segment(&self, id: SegmentId, sku_sold_out: Arc<SkuSoldOut>) -> Arc<SegmentRuntime> {
        let accepted = self.accepted.of(&id);
        Arc::new(SegmentRuntime::new(id, sku_sold_out, accepted))
    }
}

impl SaleEngine {
    /// Opens a segment in the store, once in its life. If the ledger remembers it as opened and the store does not know it, the
    /// store has lost its data: opening it again would put the whole stock on sale a second time, so it stays closed (its
    /// buyers get 503) until [`crate::rebuild`] has rebuilt it.
    pub(super) async fn open_segment(
        &self,
        sale: &Sale,
        spec: &SegmentSpec,
        stock: &Stock,
    ) -> Result<(), EngineError> {
        if self.ledger.is_opened(&spec.id).await? {
            match bounded(self.store.snapshot(&spec.id)).await {
                Ok(_) => {}
                Err(StockError::NotOpen(id)) => {
                    tracing::error!(segment = %id, "the store has lost this segment; it sells nothing until it is rebuilt");
                    return Err(StockError::NotOpen(id).into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let snapshot = bounded(self.store.open(spec)).await?;
        self.ledger.mark_opened(&spec.id, self.now_ms()).await?;
        let snapshot = self.match_gate(snapshot, sale.gate).await?;
        self.learn(sale, stock, &snapshot).await
    }

    /// Sets a segment's gate to the one that was read from the ledger, and looks there again afterwards: another node may have moved
    /// it since. The node that moves it writes the ledger first, so either this second look sees the newer gate, or the other node's
    /// own setting comes after this one. A pause stays a pause.
    async fn match_gate(
        &self,
        mut snapshot: SegmentStatus,
        mut wanted: Gate,
    ) -> Result<SegmentStatus, EngineError> {
        // Only the rebuild that froze a segment opens it again, never a node that starts.
        while snapshot.gate != wanted && snapshot.gate != Gate::Frozen {
            let id = snapshot.spec.id.clone();
            snapshot = bounded(self.store.set_gate(&id, wanted)).await?;
            wanted = match self.ledger.sale(&id.sale).await? {
                Some(sale) => sale.gate,
                None => return Ok(snapshot),
            };
        }
        Ok(snapshot)
    }

    /// Brings a gate that was just moved to the segments at once. Others may be slow or silent, and the refresh under way waits for
    /// them; an emergency stop must not. What does not answer here is tried again by the refresh.
    pub(super) async fn push_gate(&self, sale: &SaleId, gate: Gate) {
        let Some(open) = self.catalogue.sale(sale) else {
            return;
        };
        let pushed = open.segments().map(async |segment| {
            let snapshot = bounded(self.store.snapshot(&segment.id)).await?;
            self.match_gate(snapshot, gate).await
        });
        for error in join_all(pushed).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%sale, ?gate, %error, "a segment's gate was not moved, trying again");
        }
    }
}
