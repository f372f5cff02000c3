//! Dead letters and their replay: exactly once, or back with a reason. The same facts on SQLite and on PostgreSQL.

use std::sync::{Arc, atomic::Ordering};

use seckill::{
    ids::{SegmentId, SkuId},
    ledger::{Action, DeadLetter, LetterId, OrderStatus, Restock},
    settlement::replay::{Outcome, Replay, Replayer},
};
use stock::{OrderQueue, Segments, Selling, StoredOrder};
use tokio::sync::watch;

use crate::support::{
    bench::{Bench, RECLAIM_MS},
    ledger::{Engine, eventually, on_both_engines, order, order_id, sale, sale_id, segment},
};

on_both_engines! {
    a_letter_is_replayed_exactly_once_by_however_many,
    what_the_worker_set_aside_is_settled_when_the_cause_is_mended,
    a_replay_that_the_guard_refuses_says_so_and_succeeds_after_a_restock,
    what_no_unit_is_left_for_is_refused_for_good_when_asked,
    a_replay_that_fails_again_goes_back_with_its_count_and_reason,
    what_cannot_be_read_or_is_lost_stays,
    an_order_the_store_gave_back_arrives_as_returned,
    a_second_order_of_a_request_stays_and_is_one_letter,
    pages_show_every_open_letter_once_and_a_failed_replay_holds_up_no_other,
    a_store_that_is_down_changes_nothing,
}

struct Desk {
    bench: Bench,
    replayer: Arc<Replayer>,
}

impl Desk {
    async fn open(engine: Engine, stock: u64) -> Self {
        let bench = Bench::new(engine, stock).await;
        let (store, ledger) = (bench.store.clone(), bench.test.ledger.clone());
        let replayer = Replayer::new(store, ledger, bench.test.clock());
        Self {
            bench,
            replayer: Arc::new(replayer),
        }
    }

    /// An order that the store holds and the ledger never got.
    async fn letter(&self, order: &StoredOrder) -> LetterId {
        self.bench.store.accept(&segment(), order.clone());
        self.set_aside(&segment(), Some(order)).await
    }

    async fn set_aside(&self, segment: &SegmentId, order: Option<&StoredOrder>) -> LetterId {
        let position = order.map_or("9-9".to_owned(), |order| {
            format!("1-{}", order.created_at_ms)
        });
        let letter = DeadLetter {
            segment: segment.clone(),
            position: position.clone(),
            order: order.map(|order| order.order),
            reason: "the test says so".to_owned(),
            raw: "raw".to_owned(),
            held: order.cloned(),
        };
        let ledger = &self.bench.test.ledger;
        ledger
            .set_aside(&[letter], self.bench.test.now_ms())
            .await
            .unwrap();
        LetterId {
            sku: segment.sku.clone(),
            segment: segment.index,
            position,
        }
    }

    async fn replay(&self, id: &LetterId) -> Replay {
        self.replayer.one(&sale_id(), id, false).await.unwrap()
    }

    /// Replays and reason of a letter.
    async fn on_file(&self, id: &LetterId) -> (u64, String) {
        let ledger = &self.bench.test.ledger;
        let letter = ledger.dead_letter(&sale_id(), id).await.unwrap().unwrap();
        (letter.replays, letter.reason)
    }

    /// Letters that the report counts.
    async fn open_letters(&self) -> u64 {
        let ledger = &self.bench.test.ledger;
        ledger
            .report(&sale_id())
            .await
            .unwrap()
            .unwrap()
            .dead_letters
    }

    async fn status(&self, n: u64) -> Option<OrderStatus> {
        let order = self.bench.test.ledger.order(order_id(n)).await.unwrap();
        order.map(|order| order.status)
    }
}

async fn a_letter_is_replayed_exactly_once_by_however_many(engine: Engine) {
    let desk = Desk::open(engine, 10).await;
    let id = desk.letter(&order(1, 2)).await;
    assert_eq!(desk.open_letters().await, 1);
    let ledger = desk.bench.test.ledger.clone();
    assert_eq!(ledger.letters_open().await.unwrap(), 1);
    let replays: Vec<_> = (0..8)
        .map(|_| {
            let (replayer, id) = (desk.replayer.clone(), id.clone());
            tokio::spawn(async move { replayer.one(&sale_id(), &id, false).await.unwrap().outcome })
        })
        .collect();
    let mut outcomes = Vec::new();
    for replay in replays {
        outcomes.push(replay.await.unwrap());
    }
    let settled = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Settled);
    assert_eq!(settled.count(), 1, "{outcomes:?}");
    let before = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Before);
    assert_eq!(before.count(), 7, "{outcomes:?}");
    assert_eq!(desk.bench.test.shoe().await.sold, 2);
    assert_eq!(
        (desk.open_letters().await, desk.on_file(&id).await.0),
        (0, 1)
    );
    assert_eq!(ledger.letters_open().await.unwrap(), 0);
    assert_eq!(desk.status(1).await, Some(OrderStatus::Reserved));
}

async fn what_the_worker_set_aside_is_settled_when_the_cause_is_mended(engine: Engine) {
    let desk = Desk::open(engine, 10).await;
    let bench = &desk.bench;
    // The store has a sku that the ledger never heard of.
    let stray = SegmentId::first(sale_id(), SkuId::try_new("stray").unwrap());
    let spec = stock::SegmentSpec {
        id: stray.clone(),
        ..sale(1).segment_specs().remove(0)
    };
    bench.store.open(&spec).await.unwrap();
    bench.store.accept(&stray, order(1, 1));
    let running = bench.start_with(
        bench.test.ledger.clone(),
        watch::channel(vec![stray.clone()]).1,
    );
    eventually("the stray order is set aside", async || {
        bench.test.advance(RECLAIM_MS);
        bench.store.depth(&stray).await.unwrap().entries == 0
    })
    .await;
    running.stop().await;
    let page = bench
        .test
        .ledger
        .dead_letters(&sale_id(), None, 10)
        .await
        .unwrap();
    let [letter] = &page.rows[..] else {
        panic!("{page:?}");
    };
    assert_eq!((letter.order, page.next.clone()), (Some(order_id(1)), None));
    let failed = desk.replay(&letter.id).await;
    assert_eq!(failed.outcome, Outcome::Failed);
    assert!(failed.detail.contains("stray"), "{}", failed.detail);
    let mend = "INSERT INTO sale_skus (sale, sku, position, stock, total, sold, price_minor) VALUES ('spring', 'stray', 9, 5, 5, 0, 100)";
    sqlx::query(mend)
        .execute(bench.test.ledger.pool())
        .await
        .unwrap();
    assert_eq!(desk.replay(&letter.id).await.outcome, Outcome::Settled);
    assert_eq!(desk.status(1).await, Some(OrderStatus::Reserved));
    assert_eq!(desk.on_file(&letter.id).await.0, 2);
}

async fn a_replay_that_the_guard_refuses_says_so_and_succeeds_after_a_restock(engine: Engine) {
    let desk = Desk::open(engine, 1).await;
    let id = desk.letter(&order(1, 2)).await;
    let refused = desk.replay(&id).await;
    assert_eq!(refused.outcome, Outcome::NoUnits);
    assert!(
        refused.detail.contains("wants 2 units and 1 are left"),
        "{}",
        refused.detail
    );
    assert_eq!(
        desk.on_file(&id).await,
        (1, "2 units are wanted and 1 are left".to_owned())
    );
    assert_eq!(
        (desk.status(1).await, desk.bench.test.shoe().await.sold),
        (None, 0)
    );
    let restock = Restock {
        sku: segment().sku,
        id: "more".to_owned(),
        units: 1,
    };
    let ledger = &desk.bench.test.ledger;
    ledger
        .restock(&sale_id(), &restock, desk.bench.test.now_ms())
        .await
        .unwrap();
    assert_eq!(desk.replay(&id).await.outcome, Outcome::Settled);
    assert_eq!(desk.bench.test.shoe().await.sold, 2);
}

async fn what_no_unit_is_left_for_is_refused_for_good_when_asked(engine: Engine) {
    let desk = Desk::open(engine, 1).await;
    let id = desk.letter(&order(1, 2)).await;
    let refused = desk.replayer.one(&sale_id(), &id, true).await.unwrap();
    assert_eq!(refused.outcome, Outcome::Refused);
    assert_eq!(desk.status(1).await, Some(OrderStatus::Refused));
    assert_eq!(desk.open_letters().await, 0);
    let effects = desk
        .bench
        .test
        .ledger
        .effects(&segment(), 10)
        .await
        .unwrap();
    assert_eq!(effects.len(), 1);
    assert_eq!(
        (effects[0].order, effects[0].action),
        (order_id(1), Action::Release)
    );
}

async fn a_replay_that_fails_again_goes_back_with_its_count_and_reason(engine: Engine) {
    let desk = Desk::open(engine, 10).await;
    let id = desk.letter(&order(1, 1)).await;
    let rename = async |from: &str, to: &str| {
        let pool = desk.bench.test.ledger.pool();
        let rename =
            sqlx::query("UPDATE sale_skus SET sku = $1 WHERE sku = $2").bind(to.to_owned());
        rename.bind(from.to_owned()).execute(pool).await.unwrap();
    };
    let id_of_two = desk.letter(&order(2, 2)).await;
    rename("shoe", "gone").await;
    for times in 1..=2 {
        let replay = desk.replay(&id_of_two).await;
        assert_eq!(replay.outcome, Outcome::Failed, "{}", replay.detail);
        assert_eq!(desk.on_file(&id_of_two).await, (times, replay.detail));
    }
    assert_eq!(desk.status(2).await, None);
    rename("gone", "shoe").await;
    for id in [id, id_of_two] {
        assert_eq!(desk.replay(&id).await.outcome, Outcome::Settled);
    }
    assert_eq!(desk.bench.test.shoe().await.sold, 3);
}

async fn what_cannot_be_read_or_is_lost_stays(engine: Engine) {
    let desk = Desk::open(engine, 10).await;
    let unreadable = desk.set_aside(&segment(), None).await;
    // Never accepted by the store: it has lost it.
    let lost = desk.set_aside(&segment(), Some(&order(1, 1))).await;
    for times in 1..=2 {
        assert_eq!(desk.replay(&unreadable).await.outcome, Outcome::Unreadable);
        assert_eq!(desk.replay(&lost).await.outcome, Outcome::Lost);
        assert_eq!(
            desk.on_file(&unreadable).await,
            (times, "the test says so".to_owned())
        );
        assert_eq!(desk.on_file(&lost).await.0, times);
    }
    assert_eq!((desk.open_letters().await, desk.status(1).await), (2, None));
    let nobody = "shoe:0:none".parse().unwrap();
    assert_eq!(desk.replay(&nobody).await.outcome, Outcome::Unknown);
}

async fn an_order_the_store_gave_back_arrives_as_returned(engine: Engine) {
    let desk = Desk::open(engine, 1).await;
    // More than there is: what takes no units needs none.
    let id = desk.letter(&order(1, 2)).await;
    let given_back = [order_id(1)];
    desk.bench
        .store
        .release_many(&segment(), &given_back)
        .await
        .unwrap();
    assert_eq!(desk.replay(&id).await.outcome, Outcome::Settled);
    assert_eq!(desk.status(1).await, Some(OrderStatus::Released));
    assert_eq!(desk.bench.test.shoe().await.sold, 0);
}

async fn a_second_order_of_a_request_stays_and_is_one_letter(engine: Engine) {
    let desk = Desk::open(engine, 10).await;
    desk.bench.test.settle_new(1, 1).await;
    let mut second = order(2, 1);
    second.buyer = order(1, 1).buyer;
    second.request = order(1, 1).request;
    let id = desk.letter(&second).await;
    let replay = desk.replay(&id).await;
    assert_eq!(replay.outcome, Outcome::SecondOrder);
    assert_eq!((desk.open_letters().await, desk.status(2).await), (1, None));
    let page = desk
        .bench
        .test
        .ledger
        .dead_letters(&sale_id(), None, 10)
        .await
        .unwrap();
    let own = &page.rows[0].id;
    assert_eq!(own.position, order_id(2).to_string());
    assert_eq!(desk.replay(own).await.outcome, Outcome::SecondOrder);
    assert_eq!(desk.on_file(own).await.0, 1);
    assert_eq!(
        (desk.open_letters().await, desk.bench.test.shoe().await.sold),
        (1, 1)
    );
}

async fn pages_show_every_open_letter_once_and_a_failed_replay_holds_up_no_other(engine: Engine) {
    let desk = Desk::open(engine, 100).await;
    let mut all = vec![desk.set_aside(&segment(), None).await];
    for n in 1..=24 {
        all.push(desk.letter(&order(n, 1)).await);
    }
    let boot = SegmentId::first(sale_id(), SkuId::try_new("boot").unwrap());
    all.push(desk.set_aside(&boot, None).await);
    let ledger = &desk.bench.test.ledger;
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = ledger
            .dead_letters(&sale_id(), after.as_ref(), 10)
            .await
            .unwrap();
        seen.extend(page.rows.into_iter().map(|letter| letter.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let sorted = |ids: Vec<LetterId>| {
        let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        ids.sort();
        ids
    };
    assert_eq!(sorted(seen), sorted(all));

    let (mut after, mut outcomes) = (None, Vec::new());
    loop {
        let page = desk
            .replayer
            .page(&sale_id(), after.as_ref(), 7, false)
            .await
            .unwrap();
        outcomes.extend(page.rows.into_iter().map(|replay| replay.outcome));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let count = |wanted| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    assert_eq!(
        (count(Outcome::Settled), count(Outcome::Unreadable)),
        (24, 2)
    );
    assert_eq!((outcomes.len(), desk.open_letters().await), (26, 2));
    assert_eq!(desk.bench.test.shoe().await.sold, 24);
}

async fn a_store_that_is_down_changes_nothing(engine: Engine) {
    let desk = Desk::open(engine, 10).await;
    let id = desk.letter(&order(1, 1)).await;
    desk.bench.store.is_down.store(true, Ordering::SeqCst);
    assert!(desk.replayer.one(&sale_id(), &id, false).await.is_err());
    assert_eq!(desk.on_file(&id).await, (0, "the test says so".to_owned()));
    desk.bench.store.is_down.store(false, Ordering::SeqCst);
    assert_eq!(desk.replay(&id).await.outcome, Outcome::Settled);
}
