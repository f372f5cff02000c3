//! Timing one operation from several threads at once: the shared parts are called by every core of the gateway.

use std::{sync::Barrier, time::Duration};

use tokio::time::Instant;

/// Thread counts every shared part is measured at.
pub const THREADS: [u64; 3] = [1, 4, 16];

/// Splits `iterations` calls of `operation(thread, round)` over threads that start together; the time until the last one ends.
pub fn time_on_threads(
    threads: u64,
    iterations: u64,
    operation: impl Fn(u64, u64) + Sync,
) -> Duration {
    let rounds = iterations.div_ceil(threads);
    let line = Barrier::new(threads as usize + 1);
    std::thread::scope(|scope| {
        let (line, operation) = (&line, &operation);
        let runners: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    line.wait();
                    for round in 0..rounds {
                        operation(thread, round);
                    }
                })
            })
            .collect();
        line.wait();
        let start = Instant::now();
        for runner in runners {
            runner.join().expect("no operation panics");
        }
        start.elapsed()
    })
}
