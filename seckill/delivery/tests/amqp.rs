//! Events on a real RabbitMQ: confirmed, kept on disk, recognised when they come again, and none lost when the broker is away,
//! killed, stopped, or has no place for them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use delivery::{
    AmqpOptions, AmqpTarget, Credentials, DeliveryConfig, DeliveryError, QueueType, Receiver, Sink,
};
use futures_util::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    brokers::Broker,
    memory_outbox::MemoryOutbox,
    outbox::{
        Received, Running, all_delivered, configured, deliverer, impatient, judge, open, soon,
    },
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Starting one takes its time, so the tests that do it no harm share it.
fn shared() -> &'static Mutex<Broker> {
    static BROKER: OnceLock<Mutex<Broker>> = OnceLock::new();
    BROKER.get_or_init(|| {
        let mut broker = Broker::rabbitmq();
        broker.start();
        Mutex::new(broker)
    })
}

async fn shared_port() -> u16 {
    let shared = tokio::task::spawn_blocking(shared).await.unwrap();
    shared.lock().unwrap().port
}

fn options(port: u16, target: AmqpTarget) -> AmqpOptions {
    AmqpOptions {
        host: "127.0.0.1".to_owned(),
        port,
        vhost: "/".to_owned(),
        tls: None,
        credentials: None,
        target,
    }
}

fn queue(name: &str, kind: QueueType) -> AmqpTarget {
    let name = name.to_owned();
    AmqpTarget::Queue { name, kind }
}

fn sink(port: u16, target: AmqpTarget) -> Arc<dyn Sink> {
    open(Receiver::Amqp(options(port, target)), TIMEOUT)
}

async fn channel(port: u16) -> (Connection, Channel) {
    let url = format!("amqp://127.0.0.1:{port}/%2f");
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Takes off a queue all that the broker says is in it, and `least` different messages if it says less.
async fn received(port: u16, queue: &str, least: usize) -> Vec<Received> {
    let (_connection, channel) = channel(port).await;
    let look = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let looked = channel.queue_declare(queue.into(), look, FieldTable::default());
    let held = looked.await.unwrap().message_count() as usize;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut consumer = channel
        .basic_consume(queue.into(), "test".into(), options, FieldTable::default())
        .await
        .unwrap();
    let (mut received, mut ids) = (Vec::new(), HashSet::new());
    // A broker that was just started may take long to hand out its first one. A silence of a few seconds once ended this too early.
    let patience = Duration::from_secs(60);
    while (received.len() < held || ids.len() < least)
        && let Ok(Some(message)) = tokio::time::timeout(patience, consumer.next()).await
    {
        let message = message.unwrap();
        let properties = &message.properties;
        assert_eq!(*properties.delivery_mode(), Some(2), "it is on disk");
        let id = properties.message_id().as_ref().unwrap().as_str();
        ids.insert(id.to_owned());
        let one = Received::new(id, &message.data);
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), one.kind());
        received.push(one);
    }
    received
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_confirmed_by_a_quorum_queue_in_order() {
    let port = shared_port().await;
    let test = MemoryOutbox::default();
    test.settle(0, 700);
    test.pay(0..300);
    let sink = sink(port, queue("quorum", QueueType::Quorum));
    let running = Running::start(deliverer(&test, sink, impatient()));
    all_delivered(&test).await;
    running.stop().await;
    assert_eq!(judge(&received(port, "quorum", 1_000).await, 700, 300), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_at_start_and_killed_on_the_way_loses_nothing() {
    let broker = Arc::new(Mutex::new(Broker::rabbitmq()));
    let port = broker.lock().unwrap().port;
    let restart = async |kill: bool| {
        let broker = broker.clone();
        let again = move || {
            let mut broker = broker.lock().unwrap();
            if kill {
                broker.kill();
            }
            broker.start();
        };
        tokio::task::spawn_blocking(again).await.unwrap();
    };
    let test = MemoryOutbox::default();
    test.settle(0, 500);
    let sink = sink(port, queue("orders", QueueType::Classic));
    let running = Running::start(deliverer(&test, sink, impatient()));
    restart(false).await;
    soon("the broker that came up is found", async || {
        test.pending() == 0
    })
    .await;

    test.settle(500, 3_000);
    test.pay(0..500);
    soon("some of it is delivered", async || test.pending() < 3_400).await;
    // However fast the rest went: these cannot be confirmed any more when it is killed.
    broker.lock().unwrap().pause();
    test.settle(3_500, 100);
    assert!(test.pending() >= 100);
    restart(true).await;
    all_delivered(&test).await;
    running.stop().await;
    judge(&received(port, "orders", 4_100).await, 3_600, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_routed_is_given_up_with_its_reason_and_blocks_only_its_order() {
    let port = shared_port().await;
    let (_connection, channel) = channel(port).await;
    let exchange = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            "events".into(),
            ExchangeKind::Topic,
            exchange,
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_declare(
            "settled".into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    // Nobody listens to payments.
    channel
        .queue_bind(
            "settled".into(),
            "events".into(),
            "order.settled".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let test = MemoryOutbox::default();
    test.settle(0, 1);
    test.pay(0..1);
    let config = DeliveryConfig {
        max_attempts: 3,
        ..impatient()
    };
    let sink = sink(port, AmqpTarget::Exchange("events".to_owned()));
    let running = Running::start(deliverer(&test, sink, config));
    // The settlement of the first order goes out, then those of others beside its payment, which comes back each time.
    soon("the payment was tried", async || test.pending() <= 1).await;
    test.settle(1, 4);
    soon("the payment is given up", async || !test.dead().is_empty()).await;
    soon("the others are not held up", async || test.pending() == 0).await;
    running.stop().await;
    let dead = test.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].kind, dead[0].attempts), ("paid", 3));
    assert!(dead[0].reason.contains("312 NO_ROUTE"), "{dead:?}");
    assert_eq!(judge(&received(port, "settled", 5).await, 5, 0), 0);
}

// The return of one message of a batch belongs to that message and to no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_batch_only_the_messages_without_a_route_fail() {
    let port = shared_port().await;
    let (_connection, channel) = channel(port).await;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            "mixed".into(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_declare(
            "mixed".into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_bind(
            "mixed".into(),
            "mixed".into(),
            "order.paid".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let test = MemoryOutbox::default();
    test.settle(0, 200);
    test.pay((0..200).filter(|n| n % 3 == 0));
    test.skip_settlements_of_paid();
    let events = test.lease(200).await;
    assert_eq!(events.len(), 200);
    let outcomes = sink(port, AmqpTarget::Exchange("mixed".to_owned()))
        .deliver(&events)
        .await;
    for (event, outcome) in events.iter().zip(outcomes) {
        match event.kind.as_str() {
            "paid" => assert_eq!(outcome, Ok(()), "{}", event.id),
            _ => assert!(
                matches!(&outcome, Err(DeliveryError::Refused(why)) if why.contains("NO_ROUTE")),
                "{outcome:?}"
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_takes_the_event_when_there_is_room() {
    let port = shared_port().await;
    let (_connection, channel) = channel(port).await;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("classic".into()),
    );
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(5));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    channel
        .queue_declare("small".into(), QueueDeclareOptions::durable(), arguments)
        .await
        .unwrap();
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            "small".into(),
            ExchangeKind::Fanout,
            durable,
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_bind(
            "small".into(),
            "small".into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let test = MemoryOutbox::default();
    test.settle(0, 20);
    let sink = sink(port, AmqpTarget::Exchange("small".to_owned()));
    let running = Running::start(deliverer(&test, sink, impatient()));
    soon("the queue is full", async || {
        let pending = test.pending();
        0 < pending && pending < 20
    })
    .await;
    let received = received(port, "small", 20).await;
    all_delivered(&test).await;
    running.stop().await;
    judge(&received, 20, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_another_kind_an_exchange_that_is_not_there_and_a_wrong_password_are_named() {
    let port = shared_port().await;
    let (_connection, channel) = channel(port).await;
    channel
        .queue_declare(
            "volatile".into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let test = MemoryOutbox::default();
    test.settle(0, 1);
    let event = test.lease(1).await;
    let why = async |options: AmqpOptions| {
        let sink = open(Receiver::Amqp(options), TIMEOUT);
        match sink.deliver(&event).await.remove(0) {
            Err(DeliveryError::Unreachable(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let not_durable = why(options(port, queue("volatile", QueueType::Classic))).await;
    assert!(
        not_durable.contains("\"volatile\" cannot be used as a durable classic queue"),
        "{not_durable}"
    );
    let missing = why(options(port, AmqpTarget::Exchange("nowhere".to_owned()))).await;
    assert!(
        missing.contains("\"nowhere\"") && missing.contains("NOT_FOUND"),
        "{missing}"
    );
    let credentials = Some(Credentials {
        username: "shop".to_owned(),
        password: "hunter2".to_owned(),
    });
    let stranger = AmqpOptions {
        credentials,
        ..options(port, queue("x", QueueType::Quorum))
    };
    let refused = why(stranger).await;
    assert!(
        refused.contains("ACCESS_REFUSED") && !refused.contains("hunter2"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_broker_must_be_the_one_that_the_certificate_names() {
    let port = shared_port().await;
    let (tls_port, certificate) = {
        let broker = shared().lock().unwrap();
        (broker.tls_port, broker.certificate())
    };
    let test = MemoryOutbox::default();
    test.settle(0, 1);
    let event = test.lease(1).await;
    let ca_file = format!("ca_file = {certificate:?}");
    let deliver = async |host: &str, ca_file: &str| {
        let url = format!("url = \"amqps://{host}:{tls_port}\"");
        let text = format!("{url}\nqueue = \"secure\"\nqueue_type = \"classic\"\n{ca_file}");
        configured(&text).deliver(&event).await.remove(0)
    };
    assert_eq!(deliver("localhost", &ca_file).await, Ok(()));
    judge(&received(port, "secure", 1).await, 1, 0);
    // Another name than the certificate has, and an authority that is not trusted.
    for (host, ca_file) in [("127.0.0.1", ca_file.as_str()), ("localhost", "")] {
        let refused = deliver(host, ca_file).await.unwrap_err().to_string();
        assert!(refused.contains("certificate"), "{refused}");
    }
}
