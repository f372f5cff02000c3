//! Drafts, publishing and moved windows: the ledger first, then the store, then this node's catalogue. Also what a node tells
//! about where each sale stands.

use super::{EngineError, SaleEngine, pending};
use crate::{
    ids::{BuyerId, SaleId},
    ledger::{Edited, ListChanged, ListName, Published},
    locks::Locked,
    sale::{Sale, SaleState},
    series,
};

impl SaleEngine {
    /// Replaces a draft, if it is still this version of it.
    pub async fn edit_draft(&self, sale: &Sale, version: u64) -> Result<Edited, EngineError> {
        Ok(self.ledger.edit_draft(sale, version, self.now_ms()).await?)
    }

    /// Publishes a draft and opens its segments. Other nodes know it within their next refresh.
    pub async fn publish(&self, sale: &SaleId) -> Result<Published, EngineError> {
        // Before the ledger says "published": a tag that is taken cannot be mended afterwards.
        if let Some(draft) = self.ledger.sale(sale).await? {
            self.check_tags(&draft)?;
        }
        let published = self.ledger.publish(sale, self.now_ms()).await?;
        if matches!(published, Published::Done(_) | Published::Already(_)) {
            self.refresh_sale(sale).await.map_err(pending)?;
        }
        Ok(published)
    }

    /// Gives a published sale another window. When this returns, the store decides by it.
    pub async fn move_window(
        &self,
        sale: &SaleId,
        version: u64,
        starts_at_ms: u64,
        ends_at_ms: u64,
    ) -> Result<Edited, EngineError> {
        let moved = self
            .ledger
            .move_window(sale, version, starts_at_ms, ends_at_ms, self.now_ms())
            .await?;
        if matches!(moved, Edited::Done(_)) {
            self.refresh_sale(sale).await.map_err(pending)?;
        }
        Ok(moved)
    }

    /// Changes a list of a sale. This node goes by it when this returns, others after their next refresh.
    pub async fn change_list(
        &self,
        sale: &SaleId,
        list: ListName,
        add: &[BuyerId],
        remove: &[BuyerId],
    ) -> Result<ListChanged, EngineError> {
        let changed = self.ledger.change_list(sale, list, add, remove).await?;
        let _changing = self.changing.lock().await;
        let refreshed = self.admission.refresh(&self.ledger).await;
        refreshed.map_err(pending)?;
        Ok(changed)
    }

    /// Whether this node is ready for a sale's buyers: its segments are open, and the store answered for all of
    /// them when it was last asked. A published sale is warm one refresh after its publication at the latest.
    pub fn is_warm(&self, sale: &SaleId) -> bool {
        self.warm.locked().contains(sale)
    }

    /// Notes whether a sale is warm, and shows where it stands.
    pub(super) fn show_sale(&self, sale: &Sale, is_whole: bool) {
        let now = sale.state_at(self.now_ms());
        let is_known = is_whole && now != SaleState::Draft;
        let mut warm = self.warm.locked();
        match is_known {
            true => warm.insert(sale.id.clone()),
            false => warm.remove(&sale.id),
        };
        drop(warm);
        let mut shown = self.shown.locked();
        let gauges = shown.entry(sale.id.clone()).or_insert_with(|| {
            SaleState::ALL.map(|state| {
                let state = state.to_string();
                let labels = [("sale", sale.id.as_str()), ("state", state.as_str())];
                series::gauge("penstock_sale_state", &labels)
            })
        });
        for (state, gauge) in SaleState::ALL.into_iter().zip(gauges) {
            gauge.set(f64::from(state == now));
        }
    }

    /// Takes the state of a sale that is over off `/metrics`.
    pub(super) fn hide_sale(&self, sale: &SaleId) {
        self.shown.locked().remove(sale);
    }
}
