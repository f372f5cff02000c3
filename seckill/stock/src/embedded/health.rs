//! What the store says about itself to probes, metrics and the log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::clock::Skew;

/// How often the same trouble is told again.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Whether the store can take orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// It can.
    Well = 0,
    /// There is no room for the journal: nothing is changed, lookups go on. Ends by itself when there is room.
    Full = 1,
    /// A write or a sync has failed and could not be repeated yet: nothing is answered. Ends by itself when the disk works again.
    Broken = 2,
    /// The disk has lost what it had promised to keep. Needs an operator, and a backup.
    Lost = 3,
}

/// The store's health, for others to read.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<AtomicU8>);

impl Shared {
    pub(super) fn health(&self) -> Health {
        match self.0.load(Ordering::Relaxed) {
            0 => Health::Well,
            1 => Health::Full,
            2 => Health::Broken,
            _ => Health::Lost,
        }
    }
}

/// The sequencer's side: tells changes, and troubles that last, once in a while.
pub(super) struct Reporter {
    shared: Shared,
    told_at: Option<Instant>,
    skew_told_at: Option<Instant>,
    writable: metrics::Gauge,
    errors: [metrics::Counter; 2],
    skew_seconds: metrics::Gauge,
}

impl Reporter {
    pub(super) fn new(shared: Shared) -> Self {
        let errors = |kind| metrics::counter!("penstock_journal_errors_total", "kind" => kind);
        let reporter = Self {
            shared,
            told_at: None,
            skew_told_at: None,
            writable: metrics::gauge!("penstock_journal_writable"),
            errors: [errors("full"), errors("failed")],
            skew_seconds: metrics::gauge!("penstock_store_clock_skew_seconds"),
        };
        reporter.writable.set(1.0);
        for counter in &reporter.errors {
            counter.increment(0);
        }
        reporter
    }

    pub(super) fn healthy(&self) {
        if self.set(Health::Well) {
            tracing::info!("the journal can be written again, the store goes on");
            self.writable.set(1.0);
        }
    }

    pub(super) fn degraded(&mut self, health: Health, error: &dyn std::fmt::Display) {
        let is_new = self.set(health);
        if is_new {
            self.writable.set(0.0);
            self.errors[usize::from(health != Health::Full)].increment(1);
        }
        if is_new || self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.told_at = Some(Instant::now());
            tracing::error!(%error, ?health, "the journal cannot be written: purchases are refused until it can");
        }
    }

    /// Whether that is news.
    fn set(&self, health: Health) -> bool {
        self.shared.0.swap(health as u8, Ordering::Relaxed) != health as u8
    }

    pub(super) fn clock(&mut self, skew: Skew) {
        let (skew_ms, told) = match skew {
            Skew::None => (0.0, None),
            Skew::Behind(ms) => (
                -(ms as f64),
                Some((
                    ms,
                    "the wall clock was set back: the store's time goes on slowly until it has caught up",
                )),
            ),
            Skew::Ahead(ms) => (
                ms as f64,
                Some((
                    ms,
                    "the wall clock jumped ahead: the store does not follow before it has lasted",
                )),
            ),
        };
        self.skew_seconds.set(skew_ms / 1000.0);
        if let Some((ms, text)) = told
            && self
                .skew_told_at
                .is_none_or(|at| at.elapsed() >= TELL_EVERY)
        {
            self.skew_told_at = Some(Instant::now());
            tracing::warn!(by_ms = ms, "{text}");
        }
    }
}
