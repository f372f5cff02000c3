//! Telling the buyer: long polls and event streams of several nodes over one ledger, on SQLite and on PostgreSQL.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use seckill::api::WaitingConfig;
use stock::StoredOrder;
use tokio::time::Instant;

use crate::support::{
    ledger::{Engine, PAY_WITHIN_MS, T0, TestLedger, eventually, on_both_engines, order, segment},
    memory_store::MemoryStore,
    node::{Event, EventReader, Node, Pay, json, order_path},
};

on_both_engines! {
    a_wait_ends_when_the_order_changes_here_or_elsewhere,
    an_unchanged_order_is_answered_when_the_time_is_over,
    news_and_final_orders_are_answered_at_once,
    a_request_is_waited_for_until_some_node_has_settled_it,
    a_wait_for_a_request_that_never_was_ends_in_no_such_order,
    places_are_bounded_and_a_gone_client_frees_its_place,
    a_drain_answers_who_waits_and_ends_streams,
    five_hundred_waiters_hear_of_one_expiry,
    events_tell_every_change_once_and_end,
    a_stream_goes_on_elsewhere_after_the_last_event_id,
    a_ledger_that_comes_back_brings_the_news,
}

/// Longer than any test: a wait that ends by itself has failed.
const LONG: &str = "30s";
/// What a wait may take to notice a change on a busy machine; the promise is a quarter of a second.
const SOON: Duration = Duration::from_secs(5);

struct Shop {
    test: TestLedger,
    store: Arc<MemoryStore>,
    here: Node,
    there: Node,
}

impl Shop {
    async fn open(engine: Engine) -> Self {
        Self::open_with(engine, WaitingConfig::default()).await
    }

    async fn open_with(engine: Engine, waiting: WaitingConfig) -> Self {
        let test = TestLedger::with_sale(engine, 1_000).await;
        let store = MemoryStore::new(test.clock());
        Self {
            here: Node::start_with(&test, &store, waiting).await,
            there: Node::start(&test, &store).await,
            test,
            store,
        }
    }

    /// An order in store and ledger.
    async fn order(&self, n: u64) -> StoredOrder {
        let order = order(n, 1);
        self.store.accept(&segment(), order.clone());
        self.there
            .settle(&self.test, std::slice::from_ref(&order))
            .await;
        order
    }

    /// Waits until so many orders and requests are followed at `here`.
    async fn watched(&self, count: usize) {
        eventually("all waiters listen", async || {
            self.here.ledger().subscriptions() == count
        })
        .await;
    }
}

async fn a_wait_ends_when_the_order_changes_here_or_elsewhere(engine: Engine) {
    let shop = Shop::open(engine).await;
    for (n, node) in [(1, &shop.here), (2, &shop.there)] {
        let order = shop.order(n).await;
        let path = format!("{}?wait={LONG}", order_path(order.order));
        let headers = [("if-none-match", "W/\"1\"")];
        let waiting = async {
            let began = Instant::now();
            let response = shop.here.get(&path, n, &headers).await;
            assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["etag"], "W/\"2\"");
            assert_eq!(json(response).await["status"], "released");
        };
        let change = async {
            shop.watched(1).await;
            node.cancel(&shop.test, &order).await;
        };
        tokio::join!(waiting, change);
        shop.watched(0).await;
    }
}

async fn an_unchanged_order_is_answered_when_the_time_is_over(engine: Engine) {
    let shop = Shop::open(engine).await;
    let path = order_path(shop.order(1).await.order);
    let began = Instant::now();
    let headers = [("if-none-match", "W/\"1\""), ("prefer", "wait=1")];
    let response = shop.here.get(&path, 1, &headers).await;
    assert_eq!(response.status(), 304);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(response.headers()["preference-applied"], "wait=1");
    assert_eq!(response.headers()["etag"], "W/\"1\"");

    let by_word = format!("{path}?wait=100ms&status=reserved");
    let response = shop.here.get(&by_word, 1, &[]).await;
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("preference-applied"));
    assert_eq!(json(response).await["status"], "reserved");
}

async fn news_and_final_orders_are_answered_at_once(engine: Engine) {
    let shop = Shop::open(engine).await;
    let order = shop.order(1).await;
    let path = format!("{}?wait={LONG}", order_path(order.order));
    // Nothing is known yet, or something older.
    for headers in [&[][..], &[("if-none-match", "W/\"0\"")]] {
        let response = shop.here.get(&path, 1, headers).now_or_soon().await;
        assert_eq!(response.status(), 200);
    }
    let by_word = format!("{path}&status=paying");
    let response = shop.here.get(&by_word, 1, &[]);
    assert_eq!(response.now_or_soon().await.status(), 200);
    shop.here.cancel(&shop.test, &order).await;
    let headers = [("if-none-match", "W/\"2\"")];
    let response = shop.here.get(&path, 1, &headers).now_or_soon().await;
    assert_eq!(response.status(), 304, "nothing will ever change");
    let without_wait = shop.here.get(&order_path(order.order), 1, &headers).await;
    assert_eq!(without_wait.status(), 304);
}

async fn a_request_is_waited_for_until_some_node_has_settled_it(engine: Engine) {
    let shop = Shop::open(engine).await;
    for (n, node) in [(1, &shop.here), (2, &shop.there)] {
        let path = format!("/v1/sales/spring/orders?sku=shoe&request_id=request-{n}&wait={LONG}");
        let waiting = async {
            let response = shop.here.get(&path, n, &[]).now_or_soon().await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["etag"], "W/\"1\"");
            let told = json(response).await;
            assert_eq!(told["id"], order(n, 1).order.to_string());
        };
        let change = async {
            shop.watched(1).await;
            node.settle(&shop.test, &[order(n, 1)]).await;
        };
        tokio::join!(waiting, change);
    }
}

async fn a_wait_for_a_request_that_never_was_ends_in_no_such_order(engine: Engine) {
    let shop = Shop::open(engine).await;
    let path = "/v1/sales/spring/orders?sku=shoe&request_id=nobody&wait=300ms";
    let began = Instant::now();
    let response = shop.here.get(path, 1, &[]).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(response.status(), 404);
    // The store has it by then, the ledger does not.
    let path = "/v1/sales/spring/orders?sku=shoe&request_id=request-5&wait=300ms";
    let waiting = shop.here.get(path, 5, &[]);
    let accept = async {
        shop.watched(1).await;
        shop.store.accept(&segment(), order(5, 1));
    };
    let (response, ()) = tokio::join!(waiting, accept);
    assert_eq!(json(response).await["status"], "reserved");
}

async fn places_are_bounded_and_a_gone_client_frees_its_place(engine: Engine) {
    let bounds = WaitingConfig {
        per_node: 2,
        per_buyer: 1,
        ..WaitingConfig::default()
    };
    let shop = Shop::open_with(engine, bounds).await;
    let known = [("if-none-match", "W/\"1\"")];
    let mut paths = Vec::new();
    for n in 1..=3 {
        let path = order_path(shop.order(n).await.order);
        paths.push(format!("{path}?wait={LONG}"));
    }
    let mut first = Box::pin(shop.here.get(&paths[0], 1, &known));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut first)
            .await
            .is_err()
    );
    let refused = shop.here.get(&paths[0], 1, &known).now_or_soon().await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(json(refused).await["code"], "too_many_waiting");

    // A stream needs a place like any other.
    let events = format!("{}/events", order_path(order(2, 1).order));
    let stream = shop.here.get(&events, 2, &[]);
    let stream = stream.now_or_soon().await;
    let refused = shop.here.get(&paths[2], 3, &known).now_or_soon().await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(json(refused).await["code"], "waiting_full");
    let unwaited = shop.here.get(&order_path(order(3, 1).order), 3, &[]).await;
    assert_eq!(unwaited.status(), 200, "reading needs no place");

    drop(first);
    let mut third = Box::pin(shop.here.get(&paths[2], 3, &known));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut third)
            .await
            .is_err()
    );
    drop(stream);
    let mut again = Box::pin(shop.here.get(&paths[0], 1, &known));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut again)
            .await
            .is_err()
    );
    drop((third, again));
    assert_eq!(shop.here.ledger().subscriptions(), 0);
}

async fn a_drain_answers_who_waits_and_ends_streams(engine: Engine) {
    let shop = Shop::open(engine).await;
    let order = shop.order(1).await;
    let path = order_path(order.order);
    let events = format!("{path}/events");
    let mut stream = EventReader::new(shop.here.get(&events, 1, &[]).await);
    assert_eq!(stream.event().await.unwrap().id, 1);
    let waiting = async {
        let long = format!("{path}?wait={LONG}&status=reserved");
        let response = shop.here.get(&long, 1, &[]).now_or_soon().await;
        assert_eq!(response.status(), 200);
    };
    let unknown = async {
        let long = format!("/v1/sales/spring/orders?sku=shoe&request_id=x&wait={LONG}");
        let response = shop.here.get(&long, 1, &[]).now_or_soon().await;
        assert_eq!(response.status(), 404);
    };
    let drain = async {
        shop.watched(2).await;
        shop.here.draining.cancel();
    };
    tokio::join!(waiting, unknown, drain);
    assert_eq!(stream.event().await, None, "ended, not cut");
    let late = shop.here.get(&events, 1, &[]).await;
    assert_eq!(late.status(), 503);
    assert!(late.headers().contains_key("retry-after"));
}

async fn five_hundred_waiters_hear_of_one_expiry(engine: Engine) {
    let shop = Shop::open(engine).await;
    let orders: Vec<_> = (0..500).map(|n| order(n, 1)).collect();
    shop.there.settle(&shop.test, &orders).await;
    let waiting = orders.iter().enumerate().map(|(n, order)| {
        let path = format!("{}?wait={LONG}", order_path(order.order));
        let here = &shop.here;
        async move {
            let headers = [("if-none-match", "W/\"1\"")];
            let response = here.get(&path, n as u64, &headers).await;
            assert_eq!(json(response).await["status"], "released");
            Instant::now()
        }
    });
    let expire = async {
        shop.watched(500).await;
        let due = T0 + PAY_WITHIN_MS + 1_000;
        let expired = shop.there.ledger().expire_due(due, 1_000).await.unwrap();
        assert_eq!(expired.len(), 500);
        Instant::now()
    };
    let (heard, expired) = tokio::join!(futures_util::future::join_all(waiting), expire);
    let last = heard.into_iter().max().unwrap();
    assert!(last.saturating_duration_since(expired) < SOON);
}

fn event(id: u64, status: &str) -> Option<Event> {
    Some(Event {
        id,
        status: status.to_owned(),
    })
}

async fn events_tell_every_change_once_and_end(engine: Engine) {
    let heartbeat = WaitingConfig {
        heartbeat: Duration::from_millis(50),
        ..WaitingConfig::default()
    };
    let shop = Shop::open_with(engine, heartbeat).await;
    // Not settled yet: the store alone knows it.
    let order = order(1, 1);
    shop.store.accept(&segment(), order.clone());
    let events = format!("{}/events", order_path(order.order));
    let mut stream = EventReader::new(shop.here.get(&events, 1, &[]).await);
    assert_eq!(stream.block().await.unwrap(), "retry: 2000");
    assert_eq!(stream.event().await, event(1, "reserved"));
    assert_eq!(
        stream.block().await.unwrap(),
        ":",
        "a heartbeat, and no event for the settlement"
    );
    shop.there
        .settle(&shop.test, std::slice::from_ref(&order))
        .await;
    for (id, step, status) in [
        (2, Pay::Hold, "paying"),
        (3, Pay::Drop, "reserved"),
        (4, Pay::Hold, "paying"),
        (5, Pay::Paid, "paid"),
    ] {
        shop.there.pay(&shop.test, order.order, step).await;
        assert_eq!(stream.event().await, event(id, status));
    }
    assert_eq!(stream.event().await, None);
    shop.watched(0).await;
    let again = shop.here.get(&events, 1, &[("last-event-id", "5")]).await;
    assert_eq!(again.status(), 204, "an EventSource comes no more");
    assert_eq!(
        shop.here.get(&events, 2, &[]).await.status(),
        404,
        "of another buyer"
    );
}

async fn a_stream_goes_on_elsewhere_after_the_last_event_id(engine: Engine) {
    let shop = Shop::open(engine).await;
    let order = shop.order(1).await;
    let events = format!("{}/events", order_path(order.order));
    shop.there.pay(&shop.test, order.order, Pay::Hold).await;
    let missed = shop.here.get(&events, 1, &[("last-event-id", "1")]).await;
    assert_eq!(EventReader::new(missed).event().await, event(2, "paying"));
    let heard = shop.here.get(&events, 1, &[("last-event-id", "2")]).await;
    let mut heard = EventReader::new(heard);
    assert_eq!(heard.block().await.unwrap(), "retry: 2000");
    assert!(
        heard.event().now_or_never().is_none(),
        "nothing is told twice"
    );
    shop.there.pay(&shop.test, order.order, Pay::Paid).await;
    assert_eq!(heard.event().await, event(3, "paid"));
    let bad = shop.here.get(&events, 1, &[("last-event-id", "x")]).await;
    assert_eq!(bad.status(), 400);
}

async fn a_ledger_that_comes_back_brings_the_news(engine: Engine) {
    let shop = Shop::open(engine).await;
    let order = shop.order(1).await;
    let path = format!("{}?wait={LONG}&status=reserved", order_path(order.order));
    let waiting = async {
        let response = shop.here.get(&path, 1, &[]).now_or_soon().await;
        assert_eq!(json(response).await["status"], "released");
    };
    let outage = async {
        shop.watched(1).await;
        let pool = shop.test.ledger.pool();
        let rename = |from: &str, to: &str| format!("ALTER TABLE {from} RENAME TO {to}");
        let away = sqlx::AssertSqlSafe(rename("order_orders", "away"));
        sqlx::query(away).execute(pool).await.unwrap();
        // Long enough for a round to fail.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let back = sqlx::AssertSqlSafe(rename("away", "order_orders"));
        sqlx::query(back).execute(pool).await.unwrap();
        shop.there.cancel(&shop.test, &order).await;
    };
    tokio::join!(waiting, outage);
}

trait Soon: Future + Sized {
    /// Panics if it takes as long as a wait would.
    async fn now_or_soon(self) -> Self::Output {
        tokio::time::timeout(SOON, self).await.expect("it waited")
    }
}

impl<F: Future> Soon for F {}
