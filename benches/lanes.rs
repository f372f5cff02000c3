//! Lanes before the embedded store, or none: a purchase waits in its segment's lane and shares a store call with others, or it goes
//! to the store by itself and the sequencer combines what waits for it. Buyers ask again as soon as they are answered; one line for
//! each way and number of buyers, in interleaved rounds. As in the gateway, buyers are on a core's thread, lanes on another
//! runtime, and the sequencer has a thread of its own.
//! `cargo run --release -p benches --bin lanes -- FOLDER` (of the disk that is measured).

use std::{path::Path, sync::Arc, time::Duration};

use benches::{process, purchases};
use futures_util::future::join_all;
use seckill::{
    purchase,
    sku_stock::{SegmentRuntime, lane},
    sold_out::SkuSoldOut,
};
use stock::{
    Purchase, SegmentSpec, StockStore, Verdict,
    embedded::{Method, Sync},
};
use tokio::{
    runtime::{self, Handle},
    task::LocalSet,
    time::Instant,
};

/// How long one way is watched.
const WATCHED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const BUYERS: [usize; 5] = [1, 8, 64, 256, 2048];
/// Far beyond what a call takes.
const DEADLINE: Duration = Duration::from_secs(30);
const LEVELS: [(&str, Sync); 2] = [("durable", Sync::Durable), ("fast", Sync::Fast)];

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

fn watch(folder: &Path, level: Sync, way: Way, buyers: usize, control: &Handle) -> String {
    let folder = tempfile::tempdir_in(folder).expect("the folder is writable");
    let store = purchases::embedded(folder.path(), level, Method::Auto);
    let core = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let spec = purchases::segments("lanes", 1).swap_remove(0);
    let epoch = core.block_on(store.open(&spec)).expect("it is new").epoch;
    let (lane, work) = lane();
    let segment = SegmentRuntime::new(spec.id.clone(), Arc::new(SkuSoldOut::default()), lane);
    let segment = Arc::new(segment);
    control.spawn(purchase::run_lane(
        work,
        Arc::downgrade(&segment),
        store.clone(),
        || (),
    ));
    let (cpu, began) = (process::cpu_seconds(), Instant::now());
    let ask = |buyer: usize| {
        let (store, segment, spec) = (store.clone(), segment.clone(), spec.clone());
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
                match way {
                    Way::Lane => with_lane(&segment, purchase).await,
                    Way::NoLane => without(&*store, &spec, epoch, purchase).await,
                }
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

async fn with_lane(segment: &SegmentRuntime, purchase: Purchase) {
    let outcome = purchase::buy(segment, purchase, Instant::now() + DEADLINE).await;
    let is_accepted = matches!(
        outcome,
        purchase::Outcome::Decided(Verdict::Accepted { .. })
    );
    assert!(is_accepted, "stock is enough for all: {outcome:?}");
}

async fn without(store: &dyn StockStore, spec: &SegmentSpec, epoch: u64, purchase: Purchase) {
    purchases::buy(store, &spec.id, epoch, vec![purchase]).await;
}
