//! Cases about units that leave a segment for another one.

use super::{Counter, Subject};
use stock::{Gate, StockError, Verdict};

async fn withdraw(counter: &Counter<'_>, id: &str, units: u64) -> u64 {
    counter
        .store()
        .withdraw(counter.id(), id, units)
        .await
        .expect("a store moves units")
}

/// Never more than is unsold, and a repetition answers what the first call did.
pub async fn a_withdrawal_takes_what_there_is_once(subject: &Subject) {
    let counter = Counter::open(subject, 10, 9).await;
    counter.take("b1", "r1", 2).await;
    assert_eq!(withdraw(&counter, "t1", 5).await, 5);
    assert_eq!(withdraw(&counter, "t1", 5).await, 5);
    assert_eq!(withdraw(&counter, "t2", 5).await, 3);
    assert_eq!(withdraw(&counter, "t3", 5).await, 0);
    counter.store().restock(counter.id(), "r", 4).await.unwrap();
    assert_eq!(
        withdraw(&counter, "t3", 5).await,
        0,
        "an empty withdrawal is an answer too"
    );
    let counts = counter.snapshot().await;
    assert_eq!(
        (counts.available, counts.reserved, counts.withdrawn),
        (4, 2, 8)
    );
}

/// They belong to the segment that they went to.
pub async fn withdrawn_units_are_not_sold(subject: &Subject) {
    let counter = Counter::open(subject, 3, 9).await;
    let before = counter.snapshot().await.version;
    withdraw(&counter, "t1", 2).await;
    assert!(counter.snapshot().await.version > before);
    assert!(matches!(
        counter.buy("b1", "r1", 2).await,
        Verdict::SoldOut { remaining: 1, .. }
    ));
    counter.take("b1", "r2", 1).await;
}

/// A paused one does: an operator's pause is no doubt about the counts.
pub async fn a_frozen_segment_gives_nothing_away(subject: &Subject) {
    let counter = Counter::open(subject, 3, 9).await;
    counter.set_gate(Gate::Paused).await;
    assert_eq!(withdraw(&counter, "t1", 1).await, 1);
    let frozen = counter
        .store()
        .freeze(counter.id(), counter.epoch + 1)
        .await
        .unwrap();
    assert!(frozen.is_some());
    let refused = counter.store().withdraw(counter.id(), "t2", 1).await;
    assert!(
        matches!(refused, Err(StockError::AwaitsRebuild(_))),
        "{refused:?}"
    );
}
