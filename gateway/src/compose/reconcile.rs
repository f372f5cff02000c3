//! Sales under watch: compared with the store by themselves, so that a broken promise raises its alert.

use std::{sync::Arc, time::Duration};

use seckill::{
    engine::SaleEngine,
    reconcile::{Reconciler, Watch},
    recovery::lease::Lease,
};
use tokio_util::sync::CancellationToken;

/// How soon what does not fit is found.
const EVERY: Duration = Duration::from_secs(10);

/// Compares until `shutdown`, on the one node that holds the lease.
pub(super) async fn watch(
    engine: Arc<SaleEngine>,
    reconciler: Reconciler,
    mut lease: impl Lease,
    shutdown: CancellationToken,
) {
    let mut watch = Watch::new(reconciler);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let held = lease.hold().await;
        let now_ms = engine.ledger().now_ms(engine.now_ms()).await;
        match (held, now_ms) {
            (Ok(Some(_)), Ok(now_ms)) => {
                let sales = engine.catalogue().sales().into_iter();
                let sales: Vec<_> = sales
                    .map(|open| (open.sale.clone(), open.is_over))
                    .collect();
                watch.look(&sales, now_ms).await;
            }
            (Ok(None), _) => {}
            (Err(error), _) => tracing::warn!(%error, "sales were not reconciled"),
            (_, Err(error)) => tracing::warn!(%error, "sales were not reconciled"),
        }
    }
    if let Err(error) = lease.give_up().await {
        tracing::debug!(%error, "the lease of the comparison was not given back; it runs out by itself");
    }
}
