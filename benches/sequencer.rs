//! The embedded store's sequencer without the disk's part (`fast`): what deciding, framing and answering cost per purchase, by
//! how many arrive together. One purchase a call, one call at a time is the naive way: a thread hand-over per purchase.

use std::{path::Path, time::Duration};

use benches::purchases::{Arrival, time_purchases};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stock::embedded::{SyncPolicy, WriteMode};

const ARRIVALS: [Arrival; 5] = [
    Arrival {
        callers: 1,
        batch: 1,
    },
    Arrival {
        callers: 4,
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

fn decisions(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut group = criterion.benchmark_group("sequencer/fast");
    // Every purchase stays in memory, as in a sale; few and short measurements keep that small.
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(1));
    for arrival in ARRIVALS {
        group.throughput(Throughput::Elements(arrival.purchases() as u64));
        let name = format!("{}-callers", arrival.callers);
        group.bench_function(BenchmarkId::new(name, arrival.batch), |bencher| {
            bencher.iter_custom(|rounds| {
                time_purchases(folder, SyncPolicy::Fast, WriteMode::Plain, arrival, rounds)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
