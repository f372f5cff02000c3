//! The process's recorder: where every crate's series end up and `/metrics` is rendered from.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::{
    help,
    histogram::{self, REQUEST_SECONDS},
    process,
};

/// Edges for a journal's sync: a fast disk takes 50 µs.
const SYNC_SECONDS: [f64; 12] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0,
];

/// Edges for batches, in orders.
const BATCH_SIZE: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// How often histograms' samples are folded into buckets: bounds their memory between scrapes.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// Installs the process's recorder, once; later calls give the same handle.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    // Held while installing, so that of two callers the second waits for the first one's handle.
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let sync = Matcher::Full("penstock_journal_sync_seconds".to_owned());
    let pause = Matcher::Full("penstock_snapshot_pause_seconds".to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &REQUEST_SECONDS)?
        .set_buckets_for_metric(sync, &SYNC_SECONDS)?
        .set_buckets_for_metric(pause, &SYNC_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), &BATCH_SIZE)?
        .install_recorder()?;
    help::describe();
    gauge!("penstock_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    *installed = Some(handle.clone());
    Ok(handle)
}

/// The page that Prometheus reads: the recorder's series, behind them those of sales, the request path's histograms and what the kernel says.
pub fn page(recorder: &PrometheusHandle) -> String {
    let mut page = recorder.render();
    seckill::series::render(&mut page, help::of);
    histogram::render(&mut page);
    process::render(&mut page);
    page
}
