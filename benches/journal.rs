//! The journal at `durable`: purchases per second that are on the disk before the answer leaves, through io_uring and through
//! `pwrite` + `fdatasync`, by how many share one sync. One at a time is the naive way: a sync per order.
//!
//! The figures are the disk's as much as ours; compare within one run only.

use std::{path::Path, time::Duration};

use benches::purchases::{Arrival, time_purchases};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stock::embedded::{SyncPolicy, WriteMode};

/// `Auto` is io_uring where the kernel allows it.
const METHODS: [(&str, WriteMode); 2] = [("auto", WriteMode::Auto), ("plain", WriteMode::Plain)];

const ARRIVALS: [Arrival; 4] = [
    Arrival {
        callers: 1,
        batch: 1,
    },
    Arrival {
        callers: 16,
        batch: 1,
    },
    Arrival {
        callers: 1,
        batch: 64,
    },
    Arrival {
        callers: 16,
        batch: 64,
    },
];

fn durable(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut group = criterion.benchmark_group("journal/durable");
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(2));
    for arrival in ARRIVALS {
        group.throughput(Throughput::Elements(arrival.purchases() as u64));
        for (method_name, write_mode) in METHODS {
            let name = format!("{method_name}/{}-callers", arrival.callers);
            group.bench_function(BenchmarkId::new(name, arrival.batch), |bencher| {
                bencher.iter_custom(|rounds| {
                    time_purchases(folder, SyncPolicy::Durable, write_mode, arrival, rounds)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, durable);
criterion_main!(benches);
