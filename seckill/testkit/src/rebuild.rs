//! The rebuild of a segment as a supervisor does it, with a ledger in memory.

use stock::{
    Gate, Position, SegmentSpec, SegmentStatus, StockError, StockMoves, StockStore, StoredOrder,
};

/// Freezes a segment under an epoch, takes over what its queue has and the ledger does not, and builds it anew from the ledger.
pub async fn rebuild(
    store: &dyn StockStore,
    spec: &SegmentSpec,
    epoch: u64,
    ledger: &mut Vec<StoredOrder>,
) -> Result<SegmentStatus, StockError> {
    store.freeze(&spec.id, epoch).await?;
    for order in unsettled(store, spec).await? {
        if ledger.iter().all(|known| known.order != order.order) {
            ledger.push(order);
        }
    }
    store
        .rebuild_begin(spec, epoch, &StockMoves::default())
        .await?;
    store.rebuild_load(&spec.id, epoch, ledger).await?;
    store.rebuild_finish(&spec.id, epoch, Gate::Open).await
}

/// All orders of the queue that were never acknowledged.
pub async fn unsettled(
    store: &dyn StockStore,
    spec: &SegmentSpec,
) -> Result<Vec<StoredOrder>, StockError> {
    let (mut after, mut orders) = (Position::default(), Vec::new());
    loop {
        let page = store.unsettled(&spec.id, after, 1_000).await?;
        let Some((last, _)) = page.last() else {
            return Ok(orders);
        };
        after = *last;
        orders.extend(page.into_iter().map(|(_, order)| order));
    }
}
