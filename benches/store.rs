//! How the embedded store grows with the orders of one sale: memory, snapshot, start, and whether a purchase gets slower.
//!
//! Not a criterion bench: each size is one sale, filled once in a process of its own, so that memory is that sale's alone.
//!
//! ```text
//! cargo bench -p benches --bench store                  10^3 … 10^6 orders
//! cargo bench -p benches --bench store -- 10000000      one size
//! ```

use std::{
    collections::HashMap,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use benches::purchases::block_on;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use stock::{
    OrderQueue, Position, Purchase, SegmentSpec, Segments, Selling, Verdict,
    embedded::{EmbeddedStore, Options, SyncPolicy, Tuning, WriteMode},
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
};
use tokio::time::Instant;

/// Purchases of one call, half of what a lane makes at most.
const BATCH: u64 = 128;
const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", folder, orders] => fill(Path::new(folder), orders.parse().expect("a number")),
        ["read", folder] => read(Path::new(folder)),
        ref sizes => {
            println!(
                "| orders | memory, bytes an order | after a restart | snapshot, bytes an order | start, s (CPU s) | buy_many of {BATCH}: p50 ms | p99 ms | max ms | a snapshot's references, ms | with the new journal file, ms |"
            );
            println!("|---|---|---|---|---|---|---|---|---|---|");
            let sizes = sizes.iter().filter_map(|size| size.parse().ok());
            let mut sizes: Vec<u64> = sizes.collect();
            if sizes.is_empty() {
                sizes = SIZES.to_vec();
            }
            sizes.into_iter().for_each(row);
        }
    }
}

fn row(orders: u64) {
    let folder =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder is writable");
    let path = folder.path().display().to_string();
    let filled = child(&["fill", &path, &orders.to_string()]);
    let read = child(&["read", &path]);
    let [memory, snapshot, p50, p99, max, references, pause] = filled[..] else {
        panic!("{filled:?}")
    };
    let [again, start, cpu] = read[..] else {
        panic!("{read:?}")
    };
    let each = |bytes: f64| bytes / orders as f64;
    println!(
        "| {orders} | {:.0} | {:.0} | {:.0} | {start:.2} ({cpu:.2}) | {p50:.3} | {p99:.3} | {max:.3} | {references:.3} | {pause:.3} |",
        each(memory),
        each(again),
        each(snapshot)
    );
}

fn child(arguments: &[&str]) -> Vec<f64> {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("it starts again");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .map(|word| word.parse().expect("numbers only"))
        .collect()
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: f64 = text
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("its second number");
    pages * 4096.0
}

fn open(folder: &Path, snapshot_every: u64) -> EmbeddedStore {
    let options = Options {
        folder: folder.to_owned(),
        // The disk's part is another bench's; this one asks whether the store itself slows down.
        sync: SyncPolicy::Fast,
        write_mode: WriteMode::Auto,
    };
    let tuning = Tuning {
        snapshot_every,
        guards_clock: false,
        ..Tuning::default()
    };
    EmbeddedStore::open_with(&options, tuning, Arc::new(|| 1_000)).expect("the folder is ours")
}

fn segment() -> SegmentId {
    SegmentId::first(
        SaleId::try_new("bench").expect("valid"),
        SkuId::try_new("shoe").expect("valid"),
    )
}

/// A buyer each, request ids as long as a UUID.
fn purchases(from: u64, to: u64) -> Vec<Purchase> {
    let purchase = |number: u64| Purchase {
        order: OrderId::new(1_000, segment().tag(), number),
        buyer: BuyerId::try_new(&format!("user-{number:08}")).expect("valid"),
        request: RequestId::try_new(&format!("{number:08x}-1b9d-4a57-9f0c-2e6f{number:08x}"))
            .expect("valid"),
        fingerprint: 1,
        quantity: 1,
        metadata: None,
    };
    (from..to).map(purchase).collect()
}

fn fill(folder: &Path, orders: u64) {
    let pauses = Pauses::install();
    let before = resident();
    // At least two snapshots at each size, as in a longer sale with the default of 256 MiB.
    let store = open(folder, (orders * 130 / 3).clamp(1 << 16, 256 << 20));
    let spec = SegmentSpec {
        id: segment(),
        stock: orders,
        starts_at_ms: 0,
        ends_at_ms: u64::MAX >> 16,
        buyer_limit: 2,
        pay_within_ms: 60_000,
        durability: None,
    };
    let mut times = Vec::new();
    block_on(async {
        store.open(&spec).await.expect("it is new");
        let mut from = 0;
        while from < orders {
            let to = orders.min(from + BATCH);
            let batch = purchases(from, to);
            let started = Instant::now();
            let verdicts = store
                .buy_many(&spec.id, 1, batch)
                .await
                .expect("the store is up");
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
            assert!(
                verdicts
                    .iter()
                    .all(|verdict| matches!(verdict, Verdict::Accepted { .. }))
            );
            let positions: Vec<Position> = (from..to)
                .map(|n| Position {
                    major: 1,
                    minor: n + 1,
                })
                .collect();
            store
                .ack(&spec.id, &positions)
                .await
                .expect("the store is up");
            from = to;
        }
    });
    // The second half: is it slower than a small sale's?
    let mut late = times.split_off(times.len() / 2);
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let memory = resident() - before;
    let (snapshot, references) = block_on(async {
        let started = Instant::now();
        let image = store.image().await.expect("the store is up");
        let taken = started.elapsed().as_secs_f64() * 1_000.0;
        let bytes = image.write(std::io::sink(), |_| Ok(()));
        (bytes.expect("a sink takes everything"), taken)
    });
    println!(
        "{memory} {snapshot} {} {} {} {references} {}",
        at(0.5),
        at(0.99),
        at(1.0),
        pauses.longest_ms()
    );
}

fn read(folder: &Path) {
    let before = resident();
    let started = Instant::now();
    let _store = open(folder, 256 << 20);
    println!(
        "{} {} {}",
        resident() - before,
        started.elapsed().as_secs_f64(),
        cpu_seconds()
    );
}

/// What this process has used of the processors: says more than the wall on a machine that does other things too.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, fields) = text.rsplit_once(')').expect("the name stands in brackets");
    let ticks = |field: usize| fields.split_whitespace().nth(field)?.parse::<f64>().ok();
    // User and system time, in hundredths of a second.
    (ticks(11).zip(ticks(12))).map_or(0.0, |(user, system)| (user + system) / 100.0)
}

/// Keeps what `penstock_snapshot_pause_seconds` is told.
#[derive(Clone, Default)]
struct Pauses(Arc<Mutex<HashMap<String, f64>>>);

impl Pauses {
    fn install() -> Self {
        let pauses = Self::default();
        metrics::set_global_recorder(pauses.clone()).expect("nobody else records here");
        pauses
    }

    fn longest_ms(&self) -> f64 {
        let longest = self.0.lock().expect("no writer panics");
        longest
            .get("penstock_snapshot_pause_seconds")
            .copied()
            .unwrap_or_default()
            * 1_000.0
    }
}

struct Longest(String, Pauses);

impl HistogramFn for Longest {
    fn record(&self, value: f64) {
        let mut longest = self.1.0.lock().expect("no writer panics");
        let entry = longest.entry(self.0.clone()).or_default();
        *entry = entry.max(value);
    }
}

impl Recorder for Pauses {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Longest(key.name().to_owned(), self.clone())))
    }
}
