//! What becomes of the stores as a sale grows: with the orders of one sale, with the size of a batch, with the segments of one hot
//! sku. One measurement a call, as lines of JSON; `peers/scale.py` starts the servers, reads their CPU time, and writes the report.

use std::path::PathBuf;

use anyhow::Context;
use benches::{
    process::resident_bytes,
    purchases::{buy, embedded, purchases, redis, segments},
};
use clap::{Args, Parser, Subcommand};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use stock::embedded::{SyncPolicy, WriteMode};
use tokio::time::Instant;

/// The longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    curve: Curve,
}

#[derive(Subcommand)]
enum Curve {
    /// Fills one sale; one line at each power of ten.
    Orders(Orders),
    /// Buys from all segments of one sku at once; one line.
    Segments(Segments),
}

#[derive(Args)]
struct Orders {
    /// `embedded:FOLDER` (durable), `embedded-fast:FOLDER` or `redis://…`.
    #[arg(long)]
    store: String,
    /// Whose memory is told: `self`, or the pid of the server.
    #[arg(long, default_value = "self")]
    memory_of: String,
    /// Orders at the end, as a power of ten.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(3..=8))]
    max_exponent: u32,
    /// Purchases of a call.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
}

#[derive(Args)]
struct Segments {
    /// `redis://…` or `redis-cluster://…`.
    #[arg(long)]
    store: String,
    /// Id of the sale: a new one for each measurement.
    #[arg(long)]
    sale: String,
    /// Segments of its one sku.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    segments: u16,
    /// Purchases in all.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    purchases: u64,
    /// Purchases of a call.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().curve {
        Curve::Orders(orders) => orders.run().await,
        Curve::Segments(segments) => segments.run().await,
    }
}

impl Orders {
    /// One caller, one call after the other: the latency is the store's own, not that of a queue before it.
    async fn run(self) -> anyhow::Result<()> {
        let (kind, place) = self
            .store
            .split_once(':')
            .context("--store must be embedded:FOLDER, embedded-fast:FOLDER or redis://…")?;
        let folder = PathBuf::from(place);
        let store = match kind {
            "embedded" => embedded(&folder, SyncPolicy::Durable, WriteMode::Auto),
            "embedded-fast" => embedded(&folder, SyncPolicy::Fast, WriteMode::Auto),
            _ => redis(&self.store).await,
        };
        let spec = segments("curve", 1).swap_remove(0);
        let opened = store.open(&spec).await?;
        let empty = resident_bytes(&self.memory_of)?;
        let mut bought = 0;
        for exponent in 3..=self.max_exponent {
            let goal = 10_u64.pow(exponent);
            let mut calls = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3)?;
            while bought < goal {
                let count = u64::from(self.batch).min(goal - bought);
                let call = purchases(&spec.id, bought, usize::try_from(count)?);
                let start = Instant::now();
                buy(&*store, &spec.id, opened.epoch, call).await;
                calls.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
                bought += count;
            }
            let micros = |quantile| calls.value_at_quantile(quantile) as f64 / 1e3;
            let line = serde_json::json!({
                "orders": goal,
                "calls": calls.len(),
                "p50_us": micros(0.5),
                "p99_us": micros(0.99),
                "max_us": calls.max() as f64 / 1e3,
                "memory_bytes": resident_bytes(&self.memory_of)?.saturating_sub(empty),
            });
            println!("{line}");
        }
        Ok(())
    }
}

impl Segments {
    /// One caller a segment, as the gateway has one lane a segment.
    async fn run(self) -> anyhow::Result<()> {
        let store = redis(&self.store).await;
        let share = self.purchases.div_ceil(u64::from(self.segments));
        let specs = segments(&self.sale, self.segments);
        let mut epochs = Vec::new();
        for spec in &specs {
            epochs.push(store.open(spec).await?.epoch);
        }
        let store = &*store;
        let lanes = specs
            .iter()
            .zip(epochs)
            .enumerate()
            .map(|(lane, (spec, epoch))| async move {
                let first = share * lane as u64;
                let mut bought = 0;
                while bought < share {
                    let count = u64::from(self.batch).min(share - bought);
                    let call = purchases(&spec.id, first + bought, usize::try_from(count)?);
                    buy(store, &spec.id, epoch, call).await;
                    bought += count;
                }
                anyhow::Ok(())
            });
        let start = Instant::now();
        try_join_all(lanes).await?;
        let seconds = start.elapsed().as_secs_f64();
        let bought = share * u64::from(self.segments);
        println!(
            "{}",
            serde_json::json!({"purchases": bought, "seconds": seconds})
        );
        Ok(())
    }
}
