//! How a lane should call Redis: one call at a time, two in flight, or one after a millisecond's wait for company, and how large the
//! batch before must have been for that wait. Buyers ask again as soon as they are answered; one line for each way and number of
//! buyers, in interleaved rounds, with the server's CPU time for a reservation.
//! `cargo run --release -p benches --bin combining -- redis://127.0.0.1:6379` (a server that does nothing else).

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use stock::{
    Durability, Purchase, SegmentSpec, StockStore, Verdict,
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    redis::{RedisOptions, RedisStore},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

/// As in `seckill/src/purchase/mod.rs`.
const BATCH_MAX: usize = 256;
/// As in `seckill/src/purchase/combiner.rs`.
const WAIT: Duration = Duration::from_millis(1);
/// How long one way is watched.
const WATCHED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
const BUYERS: [usize; 6] = [1, 8, 16, 64, 256, 2048];
const NEVER: usize = usize::MAX;
const WAYS: [Way; 7] = [
    Way::new("one call", 1, NEVER, BATCH_MAX),
    Way::new("two calls", 2, NEVER, BATCH_MAX),
    Way::new("one call, 1 ms wait after 4", 1, 4, BATCH_MAX),
    Way::new("one call, 1 ms wait after 16", 1, 16, BATCH_MAX),
    Way::new("one call, 1 ms wait after 32", 1, 32, BATCH_MAX),
    Way::new("one call of 128, 1 ms wait after 4", 1, 4, 128),
    Way::new("two calls, 1 ms wait after 32", 2, 32, BATCH_MAX),
];

/// How a lane calls.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// Calls in flight at most.
    calls: usize,
    /// A batch that is not full waits for company after one of at least so many.
    company: usize,
    /// Purchases in one call at most.
    most: usize,
}

impl Way {
    const fn new(name: &'static str, calls: usize, company: usize, most: usize) -> Self {
        Self {
            name,
            calls,
            company,
            most,
        }
    }
}

type Waiting = (Purchase, oneshot::Sender<Verdict>);

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1);
    let url = url.expect("the address of a Redis server, as in redis://127.0.0.1:6379");
    let host = url.trim_start_matches("redis://").to_owned();
    let options = RedisOptions {
        durability: Durability::Fast,
        ..RedisOptions::default()
    };
    let store: Arc<dyn StockStore> =
        Arc::new(RedisStore::connect(&url, options).await.expect("it is up"));
    println!(
        "buyers | way | reservations/s | batch | Redis CPU µs a reservation | p50 ms | p99 ms"
    );
    for buyers in BUYERS {
        for _ in 0..ROUNDS {
            for way in WAYS {
                let told = watch(&store, &host, way, buyers).await;
                println!("{buyers} | {} | {told}", way.name);
            }
        }
    }
}

async fn watch(store: &Arc<dyn StockStore>, host: &str, way: Way, buyers: usize) -> String {
    let segment = SegmentId::first(
        SaleId::try_new(&format!("combining-{:016x}", rand_number())).expect("valid"),
        SkuId::try_new("shoe").expect("valid"),
    );
    let spec = SegmentSpec {
        id: segment.clone(),
        stock: 1 << 40,
        starts_at_ms: 0,
        ends_at_ms: 1 << 47,
        buyer_limit: 2,
        pay_within_ms: 60_000,
        durability: None,
    };
    let epoch = store.open(&spec).await.expect("it is new").epoch;
    let (sender, waiting) = mpsc::channel(4096);
    let lane = tokio::spawn(work(store.clone(), segment.clone(), epoch, way, waiting));
    let (before, began) = (cpu_seconds(host), Instant::now());
    let asking = (0..buyers).map(|buyer| tokio::spawn(ask(sender.clone(), segment.clone(), buyer)));
    let mut latencies: Vec<Duration> = Vec::new();
    for asked in join_all(asking).await {
        latencies.extend(asked.expect("buyers do not fail"));
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds(host) - before);
    drop(sender);
    let calls = lane.await.expect("the lane does not fail");
    latencies.sort_unstable();
    let count = latencies.len();
    let quantile = |part: f64| latencies[((count - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    format!(
        "{:.0} | {:.1} | {:.2} | {:.2} | {:.2}",
        count as f64 / seconds,
        count as f64 / calls as f64,
        cpu * 1e6 / count as f64,
        quantile(0.5),
        quantile(0.99)
    )
}

/// One buyer after another in one place; how long each waited.
async fn ask(lane: mpsc::Sender<Waiting>, segment: SegmentId, place: usize) -> Vec<Duration> {
    let (ends, mut latencies) = (Instant::now() + WATCHED, Vec::new());
    for number in 0_u64.. {
        let began = Instant::now();
        if began > ends {
            break;
        }
        let purchase = Purchase {
            order: OrderId::new(number, segment.tag(), place as u64),
            buyer: BuyerId::try_new(&format!("buyer-{place}-{number}")).expect("valid"),
            request: RequestId::try_new("r").expect("valid"),
            fingerprint: 1,
            quantity: 1,
            metadata: None,
        };
        let (answer, answered) = oneshot::channel();
        lane.send((purchase, answer)).await.expect("the lane works");
        let verdict = answered.await.expect("the lane answers");
        assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
        latencies.push(began.elapsed());
    }
    latencies
}

/// A lane: batches in the way that is watched; how many calls it made.
async fn work(
    store: Arc<dyn StockStore>,
    segment: SegmentId,
    epoch: u64,
    way: Way,
    mut waiting: mpsc::Receiver<Waiting>,
) -> usize {
    let (mut in_flight, mut calls, mut last) = (FuturesUnordered::new(), 0, 0);
    loop {
        while in_flight.len() >= way.calls {
            in_flight.next().await;
        }
        let mut next = Vec::new();
        tokio::select! {
            count = waiting.recv_many(&mut next, way.most) => if count == 0 { break },
            Some(()) = in_flight.next() => continue,
        }
        if last >= way.company && next.len() < way.most {
            sleep(WAIT).await;
            while next.len() < way.most
                && let Ok(late) = waiting.try_recv()
            {
                next.push(late);
            }
        }
        last = next.len();
        let batch = next;
        let (store, segment) = (store.clone(), segment.clone());
        calls += 1;
        in_flight.push(async move {
            let (purchases, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let verdicts = store.buy_many(&segment, epoch, purchases).await;
            for (answer, verdict) in answers.into_iter().zip(verdicts.expect("it is up")) {
                let _ = answer.send(verdict);
            }
        });
    }
    while in_flight.next().await.is_some() {}
    calls
}

/// CPU time that the server has used, by its own word.
fn cpu_seconds(host: &str) -> f64 {
    let mut stream = TcpStream::connect(host).expect("it is up");
    stream.write_all(b"INFO cpu\r\n").expect("it reads");
    let mut text = String::new();
    let mut page = [0; 4096];
    while !text.contains("used_cpu_user_children") {
        let count = stream.read(&mut page).expect("it answers");
        text.push_str(&String::from_utf8_lossy(&page[..count]));
    }
    let of = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.parse().ok())
            .expect("a number")
    };
    of("used_cpu_sys:") + of("used_cpu_user:")
}

/// A number that no other measurement on this server has.
fn rand_number() -> u128 {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_nanos()
}
