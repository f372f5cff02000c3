//! Events on the mock cluster that comes with the Kafka client: it speaks Kafka's protocol on real sockets.

use std::{sync::Arc, time::Duration};

use delivery::{DeliveryConfig, DeliveryError, KafkaOptions, Receiver, Sink};
use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer, StreamConsumer},
    message::Headers,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use crate::support::{
    brokers::free_port,
    memory_outbox::MemoryOutbox,
    outbox::{Received, Running, all_delivered, deliverer, impatient, judge, open, soon},
};

const TIMEOUT: Duration = Duration::from_secs(3);

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic("orders", 4, 3).unwrap();
    cluster
}

fn sink(brokers: String, topic: &str) -> Arc<dyn Sink> {
    let options = KafkaOptions {
        brokers,
        credentials: None,
        topic: topic.to_owned(),
    };
    open(Receiver::Kafka(options), TIMEOUT)
}

/// Reads `count` messages, each with its partition.
async fn received(brokers: &str, count: usize) -> Vec<(i32, Received)> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["orders"]).unwrap();
    let mut received = Vec::new();
    while received.len() < count {
        let message = tokio::time::timeout(Duration::from_secs(30), consumer.recv())
            .await
            .expect("a message within half a minute")
            .unwrap();
        let headers = message.headers().unwrap();
        let id = headers
            .iter()
            .find(|header| header.key == "penstock-event-id")
            .and_then(|header| header.value)
            .unwrap();
        let one = Received::new(std::str::from_utf8(id).unwrap(), message.payload().unwrap());
        assert_eq!(message.key().unwrap(), one.order().as_bytes());
        received.push((message.partition(), one));
    }
    received
}

/// Partitions are read in any order among each other, so each is judged by itself: an order lives in one of them.
fn judge_partitions(received: Vec<(i32, Received)>, orders: u64, paid: u64) -> usize {
    let mut homes = std::collections::HashMap::new();
    for (partition, message) in &received {
        let home = *homes
            .entry(message.order().to_owned())
            .or_insert(*partition);
        assert_eq!(home, *partition, "an order stays in its partition");
    }
    let used: std::collections::HashSet<_> = homes.values().collect();
    assert!(used.len() > 1, "orders are spread over partitions");
    let messages: Vec<_> = received.into_iter().map(|(_, message)| message).collect();
    judge(&messages, orders, paid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_events_of_an_order_in_one_partition_in_order() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    let test = MemoryOutbox::default();
    test.settle(0, 600);
    test.pay(0..200);
    let sink = sink(brokers.clone(), "orders");
    let running = Running::start(deliverer(&test, sink, impatient()));
    all_delivered(&test).await;
    running.stop().await;
    assert_eq!(judge_partitions(received(&brokers, 800).await, 600, 200), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_brokers_that_go_away_and_come_back_lose_nothing() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    for broker in 1..=3 {
        cluster.broker_down(broker).unwrap();
    }
    let test = MemoryOutbox::default();
    test.settle(0, 500);
    let running = Running::start(deliverer(
        &test,
        sink(brokers.clone(), "orders"),
        impatient(),
    ));
    soon("events were on their way in vain", async || {
        test.tried() > 0
    })
    .await;
    tokio::time::sleep(TIMEOUT).await;
    assert_eq!(test.pending(), 500);
    for broker in 1..=3 {
        cluster.broker_up(broker).unwrap();
    }
    // And while it goes on, requests that fail for a while.
    let transient = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    cluster.request_errors(RDKafkaApiKey::Produce, &[transient; 3]);
    test.pay(0..100);
    all_delivered(&test).await;
    running.stop().await;
    assert_eq!(judge_partitions(received(&brokers, 600).await, 500, 100), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_refuses_is_given_up_with_its_reason() {
    let cluster = cluster();
    let test = MemoryOutbox::default();
    test.settle(0, 1);
    cluster
        .topic_error(
            "orders",
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        )
        .unwrap();
    let config = DeliveryConfig {
        max_attempts: 2,
        ..impatient()
    };
    let sink = sink(cluster.bootstrap_servers(), "orders");
    let running = Running::start(deliverer(&test, sink, config));
    soon("the event is given up", async || !test.dead().is_empty()).await;
    running.stop().await;
    let dead = test.dead();
    assert_eq!(dead[0].attempts, 2);
    assert!(dead[0].reason.contains("uthorization"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_kafka_broker_no_try_is_counted() {
    let test = MemoryOutbox::default();
    test.settle(0, 2);
    let events = test.lease(2).await;
    let port = free_port();
    let outcomes = sink(format!("127.0.0.1:{port}"), "orders")
        .deliver(&events)
        .await;
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(DeliveryError::Unreachable(_))),
            "{outcome:?}"
        );
    }
}
