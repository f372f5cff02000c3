//! Deliveries to a shop that listens on a real socket and answers what the test tells it to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::post,
};
use delivery::{
    Deliverer, DeliveryConfig, DownstreamConfig, Outbox, Receiver, WebhookOptions, sign,
};
use limiter::backoff::Backoff;
use seckill::ledger::OrderLedger;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::ledger::{
    Engine, T0, TestLedger, eventually, on_both_engines, order, order_id, sale_id,
};

on_both_engines! {
    events_of_an_order_arrive_signed_and_in_order,
    an_event_given_up_is_kept_and_does_not_block_the_next,
    two_deliverers_never_share_an_event,
    a_lease_without_answer_ends,
    without_an_outbox_nothing_is_written,
    delivered_events_are_forgotten_after_their_time,
    events_that_cannot_be_sent_lose_no_try,
    the_word_of_a_node_whose_lease_ended_does_not_count,
}

const SECRET: &[u8] = b"a shared secret of the tests";

/// What the shop does with the next delivery; success when the list is empty.
enum Answer {
    Status(u16),
    /// Answers and then closes the connection.
    Close,
    /// Never answers.
    Hang,
}

#[derive(Clone, Default)]
struct Shop {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Shop {
    async fn start(self) -> String {
        let app = Router::new()
            .route("/hooks/penstock", post(receive))
            .with_state(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/hooks/penstock")
    }

    fn then(self, answer: Answer) -> Self {
        self.answers.lock().unwrap().push_back(answer);
        self
    }

    /// `(type, order)` of every delivery, accepted or not.
    fn deliveries(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let seen = self.seen.lock().unwrap();
        let bodies = seen
            .iter()
            .map(|(_, body)| serde_json::from_slice::<Value>(body).unwrap());
        bodies
            .map(|body| (text(&body["type"]), text(&body["data"]["order"]["id"])))
            .collect()
    }
}

async fn receive(State(shop): State<Shop>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    shop.seen.lock().unwrap().push((headers, body));
    let answer = shop.answers.lock().unwrap().pop_front();
    match answer {
        None => StatusCode::OK.into_response(),
        Some(Answer::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Answer::Close) => ([(header::CONNECTION, "close")], "bye").into_response(),
        Some(Answer::Hang) => std::future::pending().await,
    }
}

/// A limit that these tests do not reach.
fn options(url: &str) -> WebhookOptions {
    let burst = 10_000.try_into().unwrap();
    WebhookOptions {
        url: url.parse().unwrap(),
        tls: None,
        secret: SECRET.to_vec(),
        quota: limiter::rate::RateQuota::try_new(burst, Duration::from_secs(1), burst).unwrap(),
        in_flight: 16.try_into().unwrap(),
    }
}

fn deliverer(test: &TestLedger, url: &str, max_attempts: u32) -> Deliverer<OrderLedger> {
    let receiver = DownstreamConfig {
        receiver: Receiver::Webhook(options(url)),
        timeout: Duration::from_millis(300),
    };
    let sink = delivery::open(&receiver, test.clock()).unwrap();
    let config = DeliveryConfig {
        max_attempts,
        backoff: Backoff {
            first: Duration::from_secs(1),
            max: Duration::from_secs(8),
        },
        ..DeliveryConfig::default()
    };
    Deliverer::new(test.ledger.clone(), sink, test.clock(), config)
}

async fn pay(test: &TestLedger, n: u64) {
    let mut tx = test.ledger.pool().begin().await.unwrap();
    test.ledger
        .mark_paid(&mut tx, order_id(n), "pi_1", test.now_ms())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn events_of_an_order_arrive_signed_and_in_order(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let shop = Shop::default()
        .then(Answer::Status(500))
        .then(Answer::Close)
        .then(Answer::Hang);
    let url = shop.clone().start().await;
    let deliverer = deliverer(&test, &url, 10);
    test.settle_new(1, 1).await;
    pay(&test, 1).await;

    // The first is refused; the second waits for it, however often it is asked for.
    let round = deliverer.round().await.unwrap();
    assert_eq!((round.delivered, round.retried), (0, 1));
    let round = deliverer.round().await.unwrap();
    assert_eq!((round.delivered, round.retried), (0, 0));
    test.advance(1_000);
    assert_eq!(deliverer.round().await.unwrap().delivered, 1);
    // No answer in time is a failure, and the event comes again.
    assert_eq!(deliverer.round().await.unwrap().retried, 1);
    test.advance(1_000);
    assert_eq!(deliverer.round().await.unwrap().delivered, 1);
    assert_eq!(test.ledger.events_pending().await.unwrap(), 0);

    let kinds: Vec<_> = shop
        .deliveries()
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(
        kinds,
        ["order.settled", "order.settled", "order.paid", "order.paid"]
    );
    let seen = shop.seen.lock().unwrap();
    let mut ids = HashMap::new();
    for (headers, body) in seen.iter() {
        let signature = headers["penstock-signature"].to_str().unwrap();
        let time = signature
            .strip_prefix("t=")
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(signature, sign(SECRET, time, body));
        assert!((T0 / 1000..T0 / 1000 + 10).contains(&time));
        let document: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(
            headers["penstock-event-id"].to_str().unwrap(),
            document["id"].as_str().unwrap()
        );
        *ids.entry(document["id"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    assert!(
        ids.len() == 2 && ids.values().all(|times| *times == 2),
        "an event keeps its id: {ids:?}"
    );
    // The first tells what was true then, although the order was paid by the time it was sent.
    let first: Value = serde_json::from_slice(&seen[0].1).unwrap();
    assert_eq!(first["data"]["order"]["status"], "reserved");
    assert_eq!(first["data"]["order"]["amount_minor"], 1999);
}

async fn an_event_given_up_is_kept_and_does_not_block_the_next(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let shop = Shop::default()
        .then(Answer::Status(503))
        .then(Answer::Status(301));
    let url = shop.clone().start().await;
    let deliverer = deliverer(&test, &url, 2);
    let orders = test.settle_new(1, 1).await;
    test.ledger
        .cancel(order_id(1), &orders[0].buyer, T0)
        .await
        .unwrap();
    assert_eq!(deliverer.round().await.unwrap().retried, 1);
    test.advance(8_000);
    assert_eq!(deliverer.round().await.unwrap().dead, 1);
    assert_eq!(deliverer.round().await.unwrap().delivered, 1);
    assert_eq!(shop.deliveries().last().unwrap().0, "order.released");
    let dead = test.dead_events().await;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].kind.as_str(), dead[0].attempts), ("settled", 2));
    assert_eq!(dead[0].reason, "the shop answered 301");
    assert_eq!(dead[0].id.step, 1);

    // An operator who has mended the shop lets it come again, under its old id and with all its tries.
    assert_eq!(
        test.ledger
            .revive_events(&sale_id(), test.now_ms())
            .await
            .unwrap(),
        1
    );
    assert_eq!(deliverer.round().await.unwrap().delivered, 1);
    assert_eq!(test.dead_events().await, []);
    assert_eq!(shop.deliveries().last().unwrap().0, "order.settled");
}

async fn events_that_cannot_be_sent_lose_no_try(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    // Nobody listens there: the port was given back.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let deliverer = deliverer(&test, &url, 1);
    test.settle_new(1, 3).await;
    for _ in 0..3 {
        let round = deliverer.round().await.unwrap();
        assert_eq!((round.held, round.retried, round.dead), (3, 0, 0));
        test.advance(60_000);
    }
    let lease = Duration::from_secs(60);
    let leased = test.ledger.lease_events(test.now_ms(), lease, 10).await;
    assert!(leased.unwrap().iter().all(|event| event.attempts == 1));
}

// A node that was slow used to overwrite what the node that took over after it had decided.
async fn the_word_of_a_node_whose_lease_ended_does_not_count(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    test.settle_new(1, 1).await;
    let lease = Duration::from_secs(60);
    let slow = test.ledger.lease_events(T0, lease, 10).await.unwrap();
    let second = test
        .ledger
        .lease_events(T0 + 60_000, lease, 10)
        .await
        .unwrap();
    assert_eq!(second.len(), 1);
    test.ledger.events_retry_at(&slow, T0).await.unwrap();
    test.ledger.events_held(&slow, T0).await.unwrap();
    let given_up: Vec<_> = slow
        .into_iter()
        .map(|event| (event, "slow".to_owned()))
        .collect();
    test.ledger
        .events_dead(&given_up, T0 + 60_001)
        .await
        .unwrap();
    assert_eq!(test.dead_events().await, []);
    let leased = test.ledger.lease_events(T0 + 60_001, lease, 10).await;
    assert_eq!(leased.unwrap(), [], "the second node still has it");
}

async fn two_deliverers_never_share_an_event(engine: Engine) {
    let test = TestLedger::with_sale(engine, 500).await;
    let shop = Shop::default();
    let url = shop.clone().start().await;
    for chunk in 0..4 {
        test.settle_new(chunk * 100, 100).await;
    }
    let shutdown = CancellationToken::new();
    let nodes: Vec<_> = (0..2)
        .map(|_| tokio::spawn(deliverer(&test, &url, 10).run(shutdown.clone())))
        .collect();
    eventually("all events are delivered", async || {
        test.ledger.events_pending().await.unwrap() == 0
    })
    .await;
    shutdown.cancel();
    for node in nodes {
        node.await.unwrap();
    }
    let mut delivered: Vec<_> = shop
        .deliveries()
        .into_iter()
        .map(|(_, order)| order)
        .collect();
    delivered.sort();
    let mut expected: Vec<_> = (0..400).map(|n| order_id(n).to_string()).collect();
    expected.sort();
    assert_eq!(delivered, expected);
}

async fn a_lease_without_answer_ends(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    test.ledger
        .settle(&crate::support::ledger::segment(), 1, &[order(1, 1)], T0)
        .await
        .unwrap();
    let lease = Duration::from_secs(60);
    let first = test.ledger.lease_events(T0, lease, 10).await.unwrap();
    assert_eq!((first.len(), first[0].attempts), (1, 1));
    assert_eq!(
        test.ledger
            .lease_events(T0 + 59_999, lease, 10)
            .await
            .unwrap(),
        []
    );
    let again = test
        .ledger
        .lease_events(T0 + 60_000, lease, 10)
        .await
        .unwrap();
    assert_eq!(
        (again[0].id.as_str(), again[0].attempts),
        (first[0].id.as_str(), 2)
    );
}

async fn without_an_outbox_nothing_is_written(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let ledger = test.ledger.clone().without_outbox();
    let orders = [order(1, 1), order(2, 1), order(3, 99)];
    ledger
        .settle(&crate::support::ledger::segment(), 1, &orders, T0)
        .await
        .unwrap();
    ledger
        .cancel(order_id(1), &orders[0].buyer, T0)
        .await
        .unwrap();
    let mut connection = ledger.pool().acquire().await.unwrap();
    ledger
        .mark_paid(&mut connection, order_id(2), "pi_1", T0)
        .await
        .unwrap();
    drop(connection);
    assert_eq!(ledger.events_pending().await.unwrap(), 0);
}

async fn delivered_events_are_forgotten_after_their_time(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let url = Shop::default().start().await;
    test.settle_new(1, 3).await;
    deliverer(&test, &url, 3).round().await.unwrap();
    test.settle_new(4, 1).await;
    let prune = async |before_ms| test.ledger.prune_events(before_ms, 2).await.unwrap();
    assert_eq!(prune(T0).await, 0);
    assert_eq!(prune(T0 + 1).await, 2, "no more than were asked for");
    assert_eq!(prune(T0 + 1).await, 1);
    assert_eq!(prune(T0 + 1).await, 0);
    assert_eq!(test.ledger.events_pending().await.unwrap(), 1);
}

/// Reads one request off a connection; false when the other side has closed it.
async fn read_request(stream: &mut tokio::net::TcpStream) -> bool {
    use tokio::io::AsyncReadExt;
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        seen.extend_from_slice(&chunk[..read]);
        // The body is one JSON document with nothing after it.
        if read == 0 || seen.ends_with(b"}}}") {
            return read > 0;
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_shop_drops_costs_no_try() {
    use tokio::io::AsyncWriteExt;
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let test = TestLedger::with_sale(Engine::Sqlite, 10).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shop = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        assert!(read_request(&mut first).await);
        first.write_all(OK).await.unwrap();
        // The second event comes over the kept connection, which breaks off without an answer.
        assert!(read_request(&mut first).await);
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        assert!(read_request(&mut second).await);
        second.write_all(OK).await.unwrap();
    });
    let deliverer = deliverer(&test, &url, 10);
    for n in 1..=2 {
        test.settle_new(n, 1).await;
        let round = deliverer.round().await.unwrap();
        assert_eq!((round.delivered, round.retried), (1, 0));
    }
    shop.await.unwrap();
}

// The first event whose retry could not be written used to take the marks of all delivered ones with it.
#[tokio::test]
async fn a_retry_that_cannot_be_written_loses_no_delivery() {
    let test = TestLedger::with_sale(Engine::Sqlite, 10).await;
    let shop = Shop::default().then(Answer::Status(500));
    let url = shop.clone().start().await;
    test.settle_new(1, 3).await;
    // A lease counts an attempt, a retry does not.
    let fault = "CREATE TRIGGER no_retries BEFORE UPDATE OF next_at_ms ON order_outbox \
        WHEN NEW.attempts = OLD.attempts BEGIN SELECT RAISE(ABORT, 'by the test'); END";
    sqlx::query(fault)
        .execute(test.ledger.pool())
        .await
        .unwrap();
    assert!(deliverer(&test, &url, 10).round().await.is_err());
    assert_eq!(test.ledger.events_pending().await.unwrap(), 1);
}

#[tokio::test]
async fn a_shutdown_ends_the_deliverer() {
    let test = TestLedger::with_sale(Engine::Sqlite, 10).await;
    let url = Shop::default().then(Answer::Hang).start().await;
    test.settle_new(1, 1).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(deliverer(&test, &url, 10).run(shutdown.clone()));
    eventually("the event is under way", async || {
        test.ledger
            .lease_events(T0, Duration::ZERO, 10)
            .await
            .unwrap()
            .is_empty()
    })
    .await;
    shutdown.cancel();
    running.await.unwrap();
}
