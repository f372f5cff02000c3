//! Orders with events to be told, and the judgement over what a receiver got of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use delivery::{Deliverer, DeliveryConfig, DownstreamConfig, Receiver, Sink};
use limiter::backoff::Backoff;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::memory_outbox::{MemoryOutbox, order_id, wall_clock};

/// One message as a consumer saw it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The id it is recognised by, as the broker carries it.
    pub id: String,
    pub body: Value,
}

impl Received {
    pub fn new(id: &str, body: &[u8]) -> Self {
        Self {
            id: id.to_owned(),
            body: serde_json::from_slice(body).unwrap(),
        }
    }

    pub fn order(&self) -> &str {
        self.body["data"]["order"]["id"].as_str().unwrap()
    }

    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }
}

/// A deliverer on the clock of the wall, with short waits.
pub fn deliverer(
    test: &MemoryOutbox,
    sink: Arc<dyn Sink>,
    config: DeliveryConfig,
) -> Deliverer<MemoryOutbox> {
    Deliverer::new(test.clone(), sink, wall_clock(), config)
}

/// The sink of a receiver.
pub fn open(receiver: Receiver, timeout: Duration) -> Arc<dyn Sink> {
    let config = DownstreamConfig { receiver, timeout };
    delivery::open(&config, wall_clock()).unwrap()
}

/// The sink of a table `[seckill.downstream]`.
pub fn configured(table: &str) -> Arc<dyn Sink> {
    let inputs = settings::Inputs {
        env: &|_| Some("a shared secret of the tests".to_owned()),
        ..settings::Inputs::of_this_machine()
    };
    let config = settings::read_at("seckill", &format!("[downstream]\n{table}"), |seckill| {
        DownstreamConfig::read(&seckill, &inputs)
    });
    delivery::open(&config.unwrap(), wall_clock()).unwrap()
}

/// Waits between tries that a test can wait for.
pub fn impatient() -> DeliveryConfig {
    DeliveryConfig {
        backoff: Backoff {
            first: Duration::from_millis(50),
            max: Duration::from_millis(500),
        },
        ..DeliveryConfig::default()
    }
}

/// A deliverer at work, until it is stopped.
pub struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(deliverer: Deliverer<MemoryOutbox>) -> Self {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(deliverer.run(shutdown.clone()));
        Self { shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// What the tests wait for: a fact about the outbox or a broker, at most three minutes: a broker starts slowly on a busy machine.
pub async fn soon(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    for _ in 0..9000 {
        if is_true().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never became true: {what}");
}

pub async fn all_delivered(test: &MemoryOutbox) {
    soon("every event is delivered", async || test.pending() == 0).await;
    assert_eq!(test.dead(), []);
}

/// Every order of `0..orders` was told as settled, those below `paid` as paid too; a repetition has the id of the first copy and
/// its content; and no order's first `paid` came before its first `settled`. Answers how many repetitions there were.
pub fn judge(received: &[Received], orders: u64, paid: u64) -> usize {
    let mut first: HashMap<&str, &Value> = HashMap::new();
    let mut settled = HashSet::new();
    let mut events = HashSet::new();
    for message in received {
        assert_eq!(message.id, message.body["id"].as_str().unwrap());
        let copy = first.entry(&message.id).or_insert(&message.body);
        assert_eq!(*copy, &message.body, "a repetition says the same");
        events.insert((message.order().to_owned(), message.kind().to_owned()));
        match message.kind() {
            "order.settled" => {
                settled.insert(message.order());
            }
            kind => assert!(
                settled.contains(message.order()),
                "{kind} of {} overtook its settlement",
                message.order()
            ),
        }
    }
    let expected: HashSet<_> = (0..orders)
        .map(|n| (order_id(n), "order.settled".to_owned()))
        .chain((0..paid).map(|n| (order_id(n), "order.paid".to_owned())))
        .collect();
    assert_eq!(events.len(), first.len(), "an event has one id");
    assert!(
        events == expected,
        "{} of {} events arrived",
        events.len(),
        expected.len()
    );
    received.len() - first.len()
}
