//! Why the embedded store has no lanes before it ([ADR 13](../docs/adr/0013-a-purchase-goes-to-the-store-by-itself.md)): a purchase goes to the store
//! by itself, as the gateway does it, or it waits in a lane and shares a store call with others. Buyers ask again as soon as they
//! are answered; one line for each way and number of buyers, in interleaved rounds. Buyers are on a core's thread, the lane on another
//! runtime, and the sequencer has a thread of its own.
//! `cargo run --release -p benches --bin lanes -- FOLDER` (of the disk that is measured).

use std::{path::Path, sync::Arc, time::Duration};

use benches::{process, purchases};
use futures_util::future::join_all;
use seckill::{
    purchase::{self, Outcome},
    sku_stock::SegmentRuntime,
    sold_out::SkuSoldOut,
};
use stock::{
    Purchase, SegmentSpec, StockStore, Verdict,
    embedded::{SyncPolicy, WriteMode},
};
use tokio::{
    runtime::{self, Handle},
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::{Instant, sleep},
};

/// How long one way is watched.
const WATCHED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const BUYERS: [usize; 5] = [1, 8, 64, 256, 2048];
const BATCH_MAX: usize = 256;
/// A batch after one of at least so many waits for company.
const COMPANY: usize = 32;
/// Far beyond what a call takes.
const DEADLINE: Duration = Duration::from_secs(30);
const LEVELS: [(&str, SyncPolicy); 2] =
    [("durable", SyncPolicy::Durable), ("fast", SyncPolicy::Fast)];

#[derive(Clone, Copy, Debug)]
enum Way {
    Lane,
    NoLane,
}

fn main() {
    let folder = std::env::args().nth(1).expect("a folder on the disk");
    let control = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("level | buyers | way | purchases/s | CPU µs a purchase | p50 µs | p99 µs");
    for (name, level) in LEVELS {
        for buyers in BUYERS {
            for _ in 0..ROUNDS {
                for way in [Way::Lane, Way::NoLane] {
                    let line = watch(Path::new(&folder), level, way, buyers, control.handle());
                    println!("{name} | {buyers} | {way:?} | {line}");
                }
            }
        }
    }
}

fn watch(folder: &Path, level: SyncPolicy, way: Way, buyers: usize, control: &Handle) -> String {
    let folder = tempfile::tempdir_in(folder).expect("the folder is writable");
    let store = purchases::embedded(folder.path(), level, WriteMode::Auto);
    let core = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let spec = purchases::segments("lanes", 1).swap_remove(0);
    let epoch = core.block_on(store.open(&spec)).expect("it is new").epoch;
    let segment = SegmentRuntime::new(
        spec.id.clone(),
        Arc::new(SkuSoldOut::default()),
        Arc::default(),
    );
    let segment = Arc::new(segment);
    let (lane, waiting) = mpsc::channel(4096);
    control.spawn(work(store.clone(), spec.clone(), epoch, waiting));
    let (cpu, began) = (process::cpu_seconds(), Instant::now());
    let ask = |buyer: usize| {
        let (store, segment, spec) = (store.clone(), segment.clone(), spec.clone());
        let lane = lane.clone();
        async move {
            let mut latencies = Vec::new();
            for number in 0_u64.. {
                let asked = Instant::now();
                if asked - began > WATCHED {
                    break;
                }
                // A buyer each.
                let number = number << 16 | buyer as u64;
                let purchase = purchases::purchases(&spec.id, number, 1).swap_remove(0);
                let is_accepted = match way {
                    Way::Lane => with_lane(&lane, purchase).await,
                    Way::NoLane => without(&segment, &store, purchase).await,
                };
                assert!(is_accepted, "stock is enough for all");
                latencies.push(asked.elapsed());
            }
            latencies
        }
    };
    let local = LocalSet::new();
    let asking: Vec<_> = (0..buyers)
        .map(|buyer| local.spawn_local(ask(buyer)))
        .collect();
    let answered = core.block_on(local.run_until(join_all(asking)));
    let mut latencies: Vec<Duration> = Vec::new();
    for one in answered {
        latencies.extend(one.expect("buyers do not fail"));
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), process::cpu_seconds() - cpu);
    latencies.sort_unstable();
    let count = latencies.len();
    let quantile = |part: f64| latencies[((count - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    format!(
        "{:.0} | {:.2} | {:.0} | {:.0}",
        count as f64 / seconds,
        cpu * 1e6 / count as f64,
        quantile(0.5),
        quantile(0.99)
    )
}

type Waiting = (Purchase, oneshot::Sender<Verdict>);

async fn with_lane(lane: &mpsc::Sender<Waiting>, purchase: Purchase) -> bool {
    let (answer, answered) = oneshot::channel();
    lane.send((purchase, answer)).await.expect("the lane works");
    let verdict = answered.await.expect("the lane answers");
    matches!(verdict, Verdict::Accepted { .. })
}

async fn without(
    segment: &Arc<SegmentRuntime>,
    store: &Arc<dyn StockStore>,
    purchase: Purchase,
) -> bool {
    let outcome = purchase::buy(segment, store.clone(), purchase, Instant::now() + DEADLINE).await;
    matches!(outcome, Outcome::Decided(Verdict::Accepted { .. }))
}

/// A lane as the Redis store has them (`seckill/stock/src/redis/lanes.rs`).
async fn work(
    store: Arc<dyn StockStore>,
    spec: SegmentSpec,
    epoch: u64,
    mut waiting: mpsc::Receiver<Waiting>,
) {
    let (mut batch, mut last) = (Vec::new(), 0);
    loop {
        if waiting.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        if last >= COMPANY && batch.len() < BATCH_MAX {
            sleep(Duration::from_millis(1)).await;
            while batch.len() < BATCH_MAX
                && let Ok(late) = waiting.try_recv()
            {
                batch.push(late);
            }
        }
        last = batch.len();
        let (purchases, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let verdicts = store.buy_many(&spec.id, epoch, purchases).await;
        for (answer, verdict) in answers.into_iter().zip(verdicts.expect("it is up")) {
            let _ = answer.send(verdict);
        }
    }
}
