//! Cases about the queue that settlement reads.

use std::{collections::BTreeSet, time::Duration};

use super::{Counter, Subject};
use stock::{OrderState, Position, QueueDepth, QueueEntry, ids::OrderId};

/// Longer than any test: what is held is never reclaimed.
const NEVER: Duration = Duration::from_secs(3_600);

async fn pull(
    counter: &Counter<'_>,
    consumer: &str,
    max: usize,
    reclaim_after: Duration,
) -> Vec<QueueEntry> {
    let entries = counter
        .store()
        .pull(counter.id(), consumer, max, reclaim_after)
        .await
        .expect("a store hands out");
    assert!(entries.len() <= max);
    entries
}

async fn ack(counter: &Counter<'_>, entries: &[QueueEntry]) {
    let positions: Vec<_> = entries.iter().map(|entry| entry.position).collect();
    counter
        .store()
        .ack(counter.id(), &positions)
        .await
        .expect("a store acknowledges");
}

fn order_of(entry: &QueueEntry) -> OrderId {
    entry
        .order
        .as_ref()
        .expect("a store reads what it wrote")
        .order
}

async fn take_orders(counter: &Counter<'_>, count: usize) -> Vec<OrderId> {
    let purchases: Vec<_> = (0..count)
        .map(|buyer| counter.purchase(&format!("b{buyer}"), "r1", 1))
        .collect();
    let orders = purchases.iter().map(|purchase| purchase.order).collect();
    counter.buy_many(purchases).await;
    orders
}

/// In the order of acceptance, to the consumer that asks first; refusals and replays are not on it.
pub async fn every_accepted_order_is_handed_out_once(subject: &Subject) {
    let counter = Counter::open(subject, 25, 1).await;
    let orders = take_orders(&counter, 30).await;
    counter.buy("b1", "r1", 1).await;
    let mut seen = Vec::new();
    for consumer in ["c1", "c2", "c1", "c3"] {
        let entries = pull(&counter, consumer, 10, NEVER).await;
        assert!(
            entries.iter().all(|entry| entry.deliveries == 1),
            "{entries:?}"
        );
        assert!(entries.is_sorted_by_key(|entry| entry.position));
        seen.extend(entries.iter().map(order_of));
    }
    assert_eq!(seen, orders[..25]);
    assert_eq!(pull(&counter, "c1", 10, NEVER).await, []);
}

/// Whether its consumer died or lost track, itself included.
pub async fn what_is_not_acknowledged_is_handed_out_again(subject: &Subject) {
    let counter = Counter::open(subject, 5, 1).await;
    let orders = take_orders(&counter, 3).await;
    let first = pull(&counter, "c1", 2, NEVER).await;
    for (delivery, consumer) in [(2, "c2"), (3, "c2"), (4, "c1")] {
        let again = pull(&counter, consumer, 2, Duration::ZERO).await;
        assert_eq!(again.iter().map(order_of).collect::<Vec<_>>(), orders[..2]);
        assert_eq!(again[0].position, first[0].position);
        assert!(
            again.iter().all(|entry| entry.deliveries == delivery),
            "{again:?}"
        );
    }
    // What is reclaimed comes before what is new.
    let all = pull(&counter, "c3", 10, Duration::ZERO).await;
    assert_eq!(all.iter().map(order_of).collect::<Vec<_>>(), orders);
    assert_eq!(
        all.iter().map(|entry| entry.deliveries).collect::<Vec<_>>(),
        [5, 5, 1]
    );
}

/// Not even to another consumer. Acknowledging twice, or what was never handed out, does no harm.
pub async fn acknowledged_entries_never_come_back(subject: &Subject) {
    let counter = Counter::open(subject, 5, 1).await;
    let orders = take_orders(&counter, 3).await;
    let entries = pull(&counter, "c1", 2, NEVER).await;
    ack(&counter, &entries[..1]).await;
    ack(&counter, &entries[..1]).await;
    counter
        .store()
        .ack(counter.id(), &[])
        .await
        .expect("a store acknowledges nothing");
    let stranger = [Position {
        major: u64::from(u32::MAX),
        minor: 7,
    }];
    counter
        .store()
        .ack(counter.id(), &stranger)
        .await
        .expect("a store ignores unknown positions");
    let rest = pull(&counter, "c2", 10, Duration::ZERO).await;
    assert_eq!(rest.iter().map(order_of).collect::<Vec<_>>(), orders[1..]);
    ack(&counter, &rest).await;
    assert_eq!(pull(&counter, "c1", 10, Duration::ZERO).await, []);
}

/// A slow consumer keeps what it holds until `reclaim_after`.
pub async fn what_a_consumer_holds_is_not_handed_out_too_early(subject: &Subject) {
    let counter = Counter::open(subject, 5, 1).await;
    let orders = take_orders(&counter, 3).await;
    assert_eq!(pull(&counter, "c1", 2, NEVER).await.len(), 2);
    let other: Vec<_> = pull(&counter, "c2", 10, NEVER)
        .await
        .iter()
        .map(order_of)
        .collect();
    assert_eq!(other, orders[2..]);
    assert_eq!(pull(&counter, "c1", 10, NEVER).await, []);
}

/// An order that was cancelled while it waited must not reach the ledger as a live one.
pub async fn an_entry_shows_its_order_as_it_stands_now(subject: &Subject) {
    let counter = Counter::open(subject, 5, 1).await;
    let orders = take_orders(&counter, 2).await;
    counter
        .store()
        .release_many(counter.id(), &orders[..1])
        .await
        .expect("a store releases");
    let entries = pull(&counter, "c1", 10, NEVER).await;
    let states: Vec<_> = entries
        .iter()
        .map(|entry| entry.order.as_ref().expect("readable").state)
        .collect();
    assert_eq!(states, [OrderState::Released, OrderState::Reserved]);
}

/// Settled or not, in pages of any size.
pub async fn all_accepted_orders_can_be_paged_through(subject: &Subject) {
    let counter = Counter::open(subject, 2_500, 1).await;
    let orders = take_orders(&counter, 2_500).await;
    let entries = pull(&counter, "c1", 100, NEVER).await;
    ack(&counter, &entries).await;
    for max in [999, 2_000, 10_000] {
        let (mut after, mut seen) = (Position::default(), Vec::new());
        loop {
            let page = counter
                .store()
                .accepted_after(counter.id(), after, max)
                .await
                .expect("a store lists");
            assert!(page.len() <= max);
            let Some((position, _)) = page.last() else {
                break;
            };
            assert!(*position > after, "positions grow");
            after = *position;
            // Only the last page may be short: a reader may stop there.
            assert!(page.len() == max || seen.len() + page.len() == orders.len());
            seen.extend(page.into_iter().map(|(_, order)| order.order));
        }
        assert_eq!(seen, orders, "in pages of {max}");
    }
    let positions: BTreeSet<_> = entries.iter().map(|entry| entry.position).collect();
    let first = counter
        .store()
        .accepted_after(counter.id(), Position::default(), 100)
        .await
        .expect("a store lists");
    assert!(
        first
            .iter()
            .all(|(position, _)| positions.contains(position)),
        "queue and list share their positions"
    );
}

/// Handed out or not.
pub async fn depth_counts_what_is_not_acknowledged(subject: &Subject) {
    let counter = Counter::open(subject, 10, 1).await;
    let depth = async || {
        counter
            .store()
            .depth(counter.id())
            .await
            .expect("a store measures")
    };
    assert_eq!(depth().await, QueueDepth::default());
    take_orders(&counter, 4).await;
    assert_eq!(depth().await.entries, 4);
    let entries = pull(&counter, "c1", 3, NEVER).await;
    assert_eq!(depth().await.entries, 4);
    ack(&counter, &entries[1..]).await;
    assert_eq!(depth().await.entries, 2);
    ack(&counter, &entries).await;
    assert_eq!(depth().await.entries, 1);
    let last = pull(&counter, "c1", 3, NEVER).await;
    ack(&counter, &last).await;
    assert_eq!(depth().await, QueueDepth::default());
}
