//! Events on a real NATS server with JetStream: acknowledged by the stream, recognised when they come again, and none lost when
//! the server is away, killed, stopped or without the stream.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{self, stream};
use delivery::{
    Credentials, DeliveryConfig, DeliveryError, NatsLogin, NatsOptions, Receiver, Sink,
};
use futures_util::StreamExt;

use crate::support::{
    brokers::Broker,
    memory_outbox::MemoryOutbox,
    outbox::{Received, Running, all_delivered, deliverer, impatient, judge, open, soon},
};

const TIMEOUT: Duration = Duration::from_secs(2);

fn started() -> Broker {
    let mut broker = Broker::nats(&[]);
    broker.start();
    broker
}

fn options(broker: &Broker) -> NatsOptions {
    NatsOptions {
        servers: vec![format!("nats://127.0.0.1:{}", broker.port)],
        tls: None,
        login: NatsLogin::Anonymous,
        stream: "ORDERS".to_owned(),
        subject: "shop.orders".to_owned(),
    }
}

fn sink(broker: &Broker, timeout: Duration) -> Arc<dyn Sink> {
    open(Receiver::Nats(options(broker)), timeout)
}

async fn jetstream(broker: &Broker) -> jetstream::Context {
    let url = format!("nats://127.0.0.1:{}", broker.port);
    jetstream::new(async_nats::connect(url).await.unwrap())
}

async fn create_stream(broker: &Broker, adjust: impl FnOnce(&mut stream::Config)) {
    let mut config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["shop.orders.>".to_owned()],
        ..stream::Config::default()
    };
    adjust(&mut config);
    jetstream(broker).await.create_stream(config).await.unwrap();
}

/// All that the stream holds, in its order.
async fn received(broker: &Broker) -> Vec<Received> {
    let mut stream = jetstream(broker).await.get_stream("ORDERS").await.unwrap();
    let held = stream.info().await.unwrap().state.messages as usize;
    let config = jetstream::consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut received = Vec::new();
    while received.len() < held {
        let message = messages.next().await.unwrap().unwrap();
        let headers = message.headers.as_ref().unwrap();
        let id = headers.get("Nats-Msg-Id").unwrap().as_str();
        let message = Received::new(id, &message.payload);
        assert_eq!(
            headers.get("penstock-order").unwrap().as_str(),
            message.order()
        );
        received.push(message);
    }
    received
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_acknowledged_by_the_stream_and_a_repetition_is_dropped_by_it() {
    let broker = started();
    create_stream(&broker, |_| {}).await;
    let test = MemoryOutbox::default();
    test.settle(0, 700);
    test.pay(0..300);
    let sink = sink(&broker, TIMEOUT);
    let running = Running::start(deliverer(&test, sink.clone(), impatient()));
    all_delivered(&test).await;
    running.stop().await;
    assert_eq!(judge(&received(&broker).await, 700, 300), 0);

    // As after a crash between the acknowledgement and its record: the same events once more.
    test.forget_deliveries();
    let running = Running::start(deliverer(&test, sink, impatient()));
    all_delivered(&test).await;
    running.stop().await;
    assert_eq!(judge(&received(&broker).await, 700, 300), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_at_start_and_killed_on_the_way_loses_nothing() {
    let mut broker = Broker::nats(&[]);
    let test = MemoryOutbox::default();
    test.settle(0, 500);
    let running = Running::start(deliverer(&test, sink(&broker, TIMEOUT), impatient()));
    broker.start();
    create_stream(&broker, |_| {}).await;
    soon("the server that came up is found", async || {
        test.pending() == 0
    })
    .await;

    // Under load, killed three times.
    let (mut orders, mut paid) = (500, 0);
    for _ in 0..3 {
        let before = test.pending();
        test.settle(orders, 1_000);
        test.pay(paid..orders);
        let written = 1_000 + orders - paid;
        (paid, orders) = (orders, orders + 1_000);
        soon("some of it is delivered", async || {
            test.pending() < before + written
        })
        .await;
        broker.kill();
        broker.start();
    }
    all_delivered(&test).await;
    running.stop().await;
    judge(&received(&broker).await, orders, paid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_answering_holds_events_up_and_no_more() {
    let broker = started();
    create_stream(&broker, |_| {}).await;
    let test = MemoryOutbox::default();
    broker.pause();
    test.settle(0, 2_000);
    let sink = sink(&broker, Duration::from_millis(300));
    let running = Running::start(deliverer(&test, sink, impatient()));
    soon("the first batches are leased", async || test.tried() >= 512).await;
    // Leases and calls are bounded: what waits, waits in the ledger.
    assert_eq!(test.pending(), 2_000);
    assert!(test.tried() <= 1_024, "{}", test.tried());
    broker.resume();
    all_delivered(&test).await;
    running.stop().await;
    judge(&received(&broker).await, 2_000, 0);
}

#[tokio::test]
async fn a_missing_stream_is_named_and_costs_no_try() {
    let broker = started();
    let test = MemoryOutbox::default();
    test.settle(0, 1);
    let event = test.lease(1).await;
    let outcome = sink(&broker, TIMEOUT).deliver(&event).await.remove(0);
    let Err(DeliveryError::Unreachable(why)) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        why.contains("\"ORDERS\"") && why.contains("shop.orders.>"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_stream_refuses_is_given_up_with_its_reason_and_blocks_only_its_order() {
    let broker = started();
    // It takes settlements only, and not the payments.
    create_stream(&broker, |config| {
        config.subjects = vec!["shop.orders.settled".to_owned()]
    })
    .await;
    let test = MemoryOutbox::default();
    test.settle(0, 3);
    test.pay(0..1);
    let config = DeliveryConfig {
        max_attempts: 2,
        ..impatient()
    };
    let running = Running::start(deliverer(&test, sink(&broker, TIMEOUT), config));
    soon("the payment is given up", async || !test.dead().is_empty()).await;
    let dead = test.dead();
    assert_eq!((dead[0].kind, dead[0].attempts), ("paid", 2));
    assert!(
        dead[0].reason.contains("no stream takes this subject"),
        "{dead:?}"
    );
    assert_eq!(judge(&received(&broker).await, 3, 0), 0);
    running.stop().await;
}

#[tokio::test]
async fn another_stream_with_the_same_subjects_is_not_taken_for_ours() {
    let broker = started();
    create_stream(&broker, |config| {
        config.subjects = vec!["elsewhere".to_owned()]
    })
    .await;
    let other = stream::Config {
        name: "OTHER".to_owned(),
        subjects: vec!["shop.orders.>".to_owned()],
        ..stream::Config::default()
    };
    jetstream(&broker).await.create_stream(other).await.unwrap();
    let test = MemoryOutbox::default();
    test.settle(0, 1);
    let event = test.lease(1).await;
    let outcome = sink(&broker, TIMEOUT).deliver(&event).await.remove(0);
    assert!(
        matches!(&outcome, Err(DeliveryError::Refused(why)) if why.contains("stream")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_user_logs_in_and_a_wrong_password_is_told_without_it() {
    let mut broker = Broker::nats(&["--user", "shop", "--pass", "hunter2"]);
    broker.start();
    let user = async_nats::ConnectOptions::with_user_and_password("shop".into(), "hunter2".into());
    let client = user
        .connect(format!("nats://127.0.0.1:{}", broker.port))
        .await;
    let config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["shop.orders.>".to_owned()],
        ..stream::Config::default()
    };
    let admin = jetstream::new(client.unwrap());
    admin.create_stream(config).await.unwrap();
    let test = MemoryOutbox::default();
    test.settle(0, 1);
    let event = test.lease(1).await;
    let deliver = async |password: &str| {
        let login = NatsLogin::Password(Credentials {
            username: "shop".to_owned(),
            password: password.to_owned(),
        });
        let options = NatsOptions {
            login,
            ..options(&broker)
        };
        open(Receiver::Nats(options), TIMEOUT)
            .deliver(&event)
            .await
            .remove(0)
    };
    assert_eq!(deliver("hunter2").await, Ok(()));
    let refused = deliver("swordfish").await.unwrap_err();
    let DeliveryError::Unreachable(why) = &refused else {
        panic!("{refused:?}");
    };
    assert!(
        why.contains("authorization violation") && !why.contains("swordfish"),
        "{why}"
    );
}
