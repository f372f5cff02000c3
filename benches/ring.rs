//! Choosing an endpoint: the ring's lookup beside the naive remainder, which moves almost every key when an endpoint leaves,
//! and beside a ring kept in a `BTreeMap`. Building the ring is measured too: it happens at every change of the endpoints.

use std::{collections::BTreeMap, hint::black_box};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gateway::upstream::ring::{POINTS, Ring, hash64};

const ENDPOINTS: [usize; 3] = [2, 16, 128];

fn addresses(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("10.0.0.{at}:3000")).collect()
}

/// 1,024 users' keys.
fn keys() -> Vec<String> {
    (0..1024).map(|user| format!("user-{user}")).collect()
}

fn build(names: &[String]) -> Ring {
    let pairs: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    Ring::new(&pairs)
}

fn lookup(criterion: &mut Criterion) {
    let keys = keys();
    let mut group = criterion.benchmark_group("ring/lookup");
    group.throughput(Throughput::Elements(1));
    for count in ENDPOINTS {
        let names = addresses(count);
        let ring = build(&names);
        let mut next = keys.iter().cycle();
        let mut key = || next.next().expect("cycles").as_bytes();
        group.bench_function(BenchmarkId::new("penstock", count), |bencher| {
            bencher.iter(|| black_box(ring.owner(hash64(key()))));
        });

        let tree: BTreeMap<u64, usize> = (0..count * POINTS)
            .map(|point| {
                (
                    hash64(format!("{}-{point}", names[point % count]).as_bytes()),
                    point % count,
                )
            })
            .collect();
        group.bench_function(BenchmarkId::new("btree-ring", count), |bencher| {
            bencher.iter(|| {
                let hash = hash64(key());
                let point = tree.range(hash..).next().or_else(|| tree.iter().next());
                black_box(point.map(|(_, owner)| *owner))
            });
        });

        group.bench_function(BenchmarkId::new("naive-remainder", count), |bencher| {
            bencher.iter(|| black_box(hash64(key()) % count as u64));
        });
    }
    group.finish();
}

fn construction(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/build");
    for count in ENDPOINTS {
        let names = addresses(count);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| black_box(build(&names)));
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, construction);
criterion_main!(benches);
