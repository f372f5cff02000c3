//! Cases about freezing a segment and building it anew under a higher epoch (INV-EPOCH-1).

use std::time::Duration;

use super::{Counter, Subject};
use stock::{
    Gate, Lookup, OrderState, Position, StockError, StockMoves, StoredOrder, Transition, Verdict,
};

async fn freeze(counter: &mut Counter<'_>) {
    counter.epoch += 1;
    let frozen = counter
        .store()
        .freeze(counter.id(), counter.epoch)
        .await
        .expect("a store freezes")
        .expect("the segment is known");
    assert_eq!((frozen.gate, frozen.epoch), (Gate::Frozen, counter.epoch));
}

async fn begin(counter: &Counter<'_>, moves: &StockMoves) {
    counter
        .store()
        .rebuild_begin(&counter.spec, counter.epoch, moves)
        .await
        .expect("a frozen segment is rebuilt");
}

async fn load(counter: &Counter<'_>, orders: &[StoredOrder]) {
    counter
        .store()
        .rebuild_load(counter.id(), counter.epoch, orders)
        .await
        .expect("the orders fit");
}

async fn finish(counter: &Counter<'_>) {
    let open = counter
        .store()
        .rebuild_finish(counter.id(), counter.epoch, Gate::Open)
        .await
        .expect("a rebuild ends");
    assert_eq!(
        (open.gate, open.epoch, open.needs_rebuild),
        (Gate::Open, counter.epoch, false)
    );
}

pub(super) async fn rebuild(counter: &mut Counter<'_>, orders: &[StoredOrder], moves: &StockMoves) {
    freeze(counter).await;
    begin(counter, moves).await;
    load(counter, orders).await;
    finish(counter).await;
}

async fn unsettled(counter: &Counter<'_>) -> Vec<StoredOrder> {
    let (mut after, mut orders) = (Position::default(), Vec::new());
    loop {
        let page = counter
            .store()
            .unsettled(counter.id(), after, 2)
            .await
            .expect("a store tells");
        let Some((last, _)) = page.last() else {
            return orders;
        };
        after = *last;
        orders.extend(page.into_iter().map(|(_, order)| order));
    }
}

fn in_state(order: &StoredOrder, state: OrderState) -> StoredOrder {
    StoredOrder {
        state,
        ..order.clone()
    }
}

/// Everything that would change it is refused as not executed.
pub async fn a_frozen_segment_answers_replays_and_nothing_else(subject: &Subject) {
    let mut counter = Counter::open(subject, 5, 5).await;
    let order = counter.take("b1", "r1", 1).await;
    freeze(&mut counter).await;
    assert_eq!(
        counter.buy("b1", "r1", 1).await,
        Verdict::Replayed(order.clone())
    );
    assert_eq!(counter.buy("b2", "r1", 1).await, Verdict::Frozen);
    let lookup = Lookup::Order(order.order);
    let found = counter.store().find(counter.id(), &lookup).await.unwrap();
    assert_eq!(found, Some(order.clone()));
    let (store, id) = (counter.store(), counter.id());
    let refusals = [
        store.release_many(id, &[order.order]).await.map(drop),
        store.confirm_many(id, &[order.order]).await.map(drop),
        store.restock(id, "more", 1).await.map(drop),
        store.pull(id, "c1", 10, Duration::ZERO).await.map(drop),
        store.set_gate(id, Gate::Open).await.map(drop),
    ];
    for (place, refusal) in refusals.into_iter().enumerate() {
        assert!(
            matches!(refusal, Err(StockError::AwaitsRebuild(_))),
            "call {place}: {refusal:?}"
        );
    }
    let counts = counter.snapshot().await;
    assert_eq!(
        (counts.gate, counts.reserved, counts.restocked),
        (Gate::Frozen, 1, 0)
    );
}

/// Two supervisors that rebuild at once do not mix their work.
pub async fn an_older_epoch_cannot_freeze_or_rebuild(subject: &Subject) {
    let mut counter = Counter::open(subject, 5, 5).await;
    let old = counter.epoch;
    freeze(&mut counter).await;
    freeze(&mut counter).await;
    begin(&counter, &StockMoves::default()).await;
    let (store, id) = (counter.store(), counter.id());
    for epoch in [old, old + 1] {
        let moves = StockMoves::default();
        let refusals = [
            store.freeze(id, epoch).await.map(drop),
            store.rebuild_begin(&counter.spec, epoch, &moves).await,
            store.rebuild_load(id, epoch, &[]).await,
            store.rebuild_finish(id, epoch, Gate::Open).await.map(drop),
        ];
        for (place, refusal) in refusals.into_iter().enumerate() {
            assert!(
                matches!(refusal, Err(StockError::StaleEpoch { current, .. }) if current == old + 2),
                "epoch {epoch}, call {place}: {refusal:?}"
            );
        }
    }
    finish(&counter).await;
    let stale = Counter {
        subject,
        spec: counter.spec.clone(),
        epoch: old,
    };
    let current = counter.epoch;
    assert_eq!(
        stale.buy("b1", "r1", 1).await,
        Verdict::StaleEpoch { current }
    );
    counter.take("b1", "r1", 1).await;
}

/// Handed out or not; what was acknowledged is in the ledger.
pub async fn what_was_never_settled_is_read_while_frozen(subject: &Subject) {
    let mut counter = Counter::open(subject, 9, 1).await;
    let mut orders = Vec::new();
    for buyer in 0..7 {
        orders.push(counter.take(&format!("b{buyer}"), "r1", 1).await);
    }
    let (store, id) = (counter.store(), counter.id());
    let pulled = store.pull(id, "c1", 4, Duration::ZERO).await.unwrap();
    store
        .ack(id, &[pulled[0].position, pulled[2].position])
        .await
        .unwrap();
    freeze(&mut counter).await;
    let mut left = unsettled(&counter).await;
    left.sort_by_key(|order| order.buyer.clone());
    let expected: Vec<_> = [1, 3, 4, 5, 6].map(|place| orders[place].clone()).into();
    assert_eq!(left, expected);
}

/// States, limits, tombstones, replays and moves; a version and an epoch that only grow.
pub async fn a_rebuilt_segment_holds_what_the_ledger_said(subject: &Subject) {
    let mut counter = Counter::open(subject, 10, 3).await;
    let reserved = counter.take("b1", "r1", 2).await;
    let sold = counter.take("b2", "r1", 1).await;
    let released = counter.take("b3", "r1", 3).await;
    let forgotten = counter.take("b4", "r1", 3).await;
    let before = counter.snapshot().await;
    let ledger = [
        reserved.clone(),
        in_state(&sold, OrderState::Sold),
        in_state(&released, OrderState::Released),
    ];
    let moves = StockMoves {
        restocks: vec![("in".to_owned(), 4)],
        withdrawals: vec![("out".to_owned(), 1)],
    };
    rebuild(&mut counter, &ledger, &moves).await;

    let counts = counter.snapshot().await;
    assert_eq!(
        (
            counts.available,
            counts.reserved,
            counts.sold,
            counts.accepted
        ),
        (10, 2, 1, 3)
    );
    assert_eq!((counts.restocked, counts.withdrawn), (4, 1));
    assert!(
        counts.version > before.version,
        "sold-out memories compare versions"
    );
    // The same fingerprint replays, another does not, and what nobody settled may buy again.
    assert_eq!(
        counter.buy("b1", "r1", 2).await,
        Verdict::Replayed(reserved.clone())
    );
    assert_eq!(counter.buy("b1", "r1", 1).await, Verdict::KeyReused);
    assert_eq!(
        counter.buy("b3", "r1", 3).await,
        Verdict::Replayed(in_state(&released, OrderState::Released))
    );
    counter.take("b4", "r1", forgotten.quantity).await;
    assert_eq!(
        counter.buy("b1", "r2", 2).await,
        Verdict::BuyerLimit { held: 2, limit: 3 }
    );
    let (store, id) = (counter.store(), counter.id());
    let released_now = store
        .release_many(id, &[reserved.order, released.order])
        .await
        .unwrap();
    assert_eq!(
        released_now,
        [Transition::Done, Transition::AlreadyReleased]
    );
    let confirmed = store.confirm_many(id, &[sold.order]).await.unwrap();
    assert_eq!(confirmed, [Transition::AlreadySold]);
    // Moves that were loaded do not happen again.
    store.restock(id, "in", 4).await.unwrap();
    assert_eq!(store.withdraw(id, "out", 1).await.unwrap(), 1);
    let counts = counter.snapshot().await;
    assert_eq!((counts.restocked, counts.withdrawn), (4, 1));
}

/// All of them, and none that the ledger does not know.
pub async fn a_rebuilt_segment_knows_the_later_orders_of_a_buyer(subject: &Subject) {
    let mut counter = Counter::open(subject, 10, 4).await;
    let first = counter.take("ann", "r1", 1).await;
    let later = counter.take("ann", "r2", 1).await;
    let forgotten = counter.take("ann", "r3", 1).await;
    let returned = in_state(&first, OrderState::Released);
    let ledger = [returned.clone(), later.clone()];
    rebuild(&mut counter, &ledger, &StockMoves::default()).await;

    for order in [returned, later] {
        let again = counter.buy("ann", order.request.as_str(), 1).await;
        assert_eq!(again, Verdict::Replayed(order));
    }
    assert_eq!(
        counter.buy("ann", "r3", 4).await,
        Verdict::BuyerLimit { held: 1, limit: 4 }
    );
    let anew = counter.take("ann", "r3", 1).await;
    assert_ne!(anew.order, forgotten.order);
}

/// Nodes page through all accepted orders to know their request ids; settlement sees only what is new.
pub async fn a_rebuilt_segment_hands_out_no_settled_order_again(subject: &Subject) {
    let mut counter = Counter::open(subject, 10, 1).await;
    let orders = [
        counter.take("b1", "r1", 1).await,
        counter.take("b2", "r1", 1).await,
    ];
    rebuild(&mut counter, &orders, &StockMoves::default()).await;
    let (store, id) = (counter.store(), counter.id());
    assert_eq!(store.depth(id).await.unwrap().entries, 0);
    assert_eq!(store.pull(id, "c1", 10, Duration::ZERO).await.unwrap(), []);
    let new = counter.take("b3", "r1", 1).await;
    let pulled = store.pull(id, "c1", 10, Duration::ZERO).await.unwrap();
    assert_eq!(pulled.len(), 1);
    assert_eq!(pulled[0].order.as_ref().unwrap().order, new.order);
    let all = store
        .accepted_after(id, Position::default(), 10)
        .await
        .unwrap();
    assert_eq!(all.len(), 3);
    store.ack(id, &[pulled[0].position]).await.unwrap();
    assert_eq!(unsettled(&counter).await, []);
}

/// Under the same epoch by the same supervisor, or under a higher one by another.
pub async fn a_rebuild_that_died_half_way_begins_anew(subject: &Subject) {
    let mut counter = Counter::open(subject, 4, 1).await;
    let orders = [
        counter.take("b1", "r1", 1).await,
        counter.take("b2", "r1", 1).await,
    ];
    freeze(&mut counter).await;
    begin(&counter, &StockMoves::default()).await;
    load(&counter, &orders[..1]).await;
    begin(&counter, &StockMoves::default()).await;
    load(&counter, &orders).await;
    load(&counter, &orders).await;
    freeze(&mut counter).await;
    begin(&counter, &StockMoves::default()).await;
    load(&counter, &orders).await;
    assert_eq!(counter.buy("b3", "r1", 1).await, Verdict::Frozen);
    finish(&counter).await;
    let counts = counter.snapshot().await;
    assert_eq!(
        (counts.available, counts.reserved, counts.accepted),
        (2, 2, 2)
    );
}

/// As after a restart with an empty disk.
pub async fn a_lost_segment_is_rebuilt_from_nothing(subject: &Subject) {
    let mut counter = Counter::open(subject, 4, 1).await;
    let order = counter.take("b1", "r1", 1).await;
    let spec = Counter::spec(subject, 4, 1);
    let mut lost = Counter {
        subject,
        spec,
        epoch: 7,
    };
    assert_eq!(lost.store().freeze(lost.id(), 7).await.unwrap(), None);
    assert_eq!(unsettled(&lost).await, []);
    begin(&lost, &StockMoves::default()).await;
    load(&lost, std::slice::from_ref(&order)).await;
    finish(&lost).await;
    assert_eq!(lost.snapshot().await.available, 3);
    assert_eq!(lost.buy("b1", "r1", 1).await, Verdict::Replayed(order));
    lost.take("b2", "r1", 1).await;
    // The other segment has seen nothing of it.
    freeze(&mut counter).await;
    lost.epoch += 1;
    assert_eq!(counter.snapshot().await.accepted, 1);
}

/// INV-STOCK-1 holds for a rebuild as well.
pub async fn a_rebuild_refuses_more_orders_than_there_are_units(subject: &Subject) {
    let mut counter = Counter::open(subject, 2, 9).await;
    let order = counter.take("b1", "r1", 2).await;
    freeze(&mut counter).await;
    let moves = StockMoves {
        restocks: Vec::new(),
        withdrawals: vec![("out".to_owned(), 1)],
    };
    begin(&counter, &moves).await;
    let loaded = counter
        .store()
        .rebuild_load(counter.id(), counter.epoch, &[order])
        .await;
    assert!(matches!(loaded, Err(StockError::Corrupt(_))), "{loaded:?}");
}

/// A worker that slept through the rebuild holds positions of a queue that is gone.
pub async fn late_acknowledgements_of_an_older_epoch_take_nothing_off_the_queue(subject: &Subject) {
    let mut counter = Counter::open(subject, 9, 1).await;
    counter.take("b1", "r1", 1).await;
    let (store, id) = (subject.store.as_ref(), counter.id().clone());
    let old = store.pull(&id, "c1", 10, Duration::ZERO).await.unwrap();
    rebuild(&mut counter, &[], &StockMoves::default()).await;
    let new = counter.take("b2", "r1", 1).await;
    store.ack(&id, &[old[0].position]).await.unwrap();
    assert_eq!(unsettled(&counter).await, std::slice::from_ref(&new));
    let pulled = store.pull(&id, "c1", 10, Duration::ZERO).await.unwrap();
    assert_eq!(pulled.len(), 1);
}

/// Its units went back with the rebuild; taking them now would lose them.
pub async fn a_called_off_withdrawal_stays_called_off_after_a_rebuild(subject: &Subject) {
    let mut counter = Counter::open(subject, 4, 1).await;
    let moves = StockMoves {
        restocks: Vec::new(),
        withdrawals: vec![("t1".to_owned(), 0)],
    };
    rebuild(&mut counter, &[], &moves).await;
    let taken = counter.store().withdraw(counter.id(), "t1", 3).await;
    assert_eq!(taken.unwrap(), 0);
    assert_eq!(counter.snapshot().await.available, 4);
}
