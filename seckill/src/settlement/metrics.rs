//! What settlement counts; every series exists from the start.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use crate::ledger::Settled;

/// Handles, resolved once.
#[derive(Clone)]
pub struct SettlementMetrics {
    settled: Counter,
    duplicate: Counter,
    refused: Counter,
    dead: Counter,
    stale_epochs: Counter,
    batch_seconds: Histogram,
    queue_depth: Gauge,
    oldest_age_seconds: Gauge,
    dead_letters: Gauge,
}

impl Default for SettlementMetrics {
    /// Registers the series.
    fn default() -> Self {
        let orders = |outcome: &'static str| metrics::counter!("penstock_settlement_orders_total", "outcome" => outcome);
        Self {
            settled: orders("settled"),
            duplicate: orders("duplicate"),
            refused: orders("refused"),
            dead: orders("dead"),
            stale_epochs: metrics::counter!("penstock_settlement_stale_epochs_total"),
            batch_seconds: metrics::histogram!("penstock_settlement_batch_seconds"),
            queue_depth: metrics::gauge!("penstock_settlement_queue_depth"),
            oldest_age_seconds: metrics::gauge!("penstock_settlement_oldest_age_seconds"),
            dead_letters: metrics::gauge!("penstock_settlement_dead_letters"),
        }
    }
}

impl SettlementMetrics {
    /// One order went through the ledger.
    pub fn settled(&self, outcome: Settled) {
        match outcome {
            Settled::Settled => self.settled.increment(1),
            Settled::Duplicate => self.duplicate.increment(1),
            Settled::Refused | Settled::SecondOrder => self.refused.increment(1),
        }
    }

    /// Entries were set aside.
    pub fn dead(&self, entries: usize) {
        self.dead.increment(entries as u64);
    }

    /// A batch was of an epoch that the ledger has left.
    pub fn stale_epoch(&self) {
        self.stale_epochs.increment(1);
    }

    /// One batch took this long.
    pub fn batch(&self, took: Duration) {
        self.batch_seconds.record(took.as_secs_f64());
    }

    /// What waits, over all segments.
    pub fn queue(&self, entries: u64, oldest_age_ms: u64) {
        self.queue_depth.set(entries as f64);
        self.oldest_age_seconds.set(oldest_age_ms as f64 / 1000.0);
    }

    /// What was set aside and waits for an operator, over all sales.
    pub fn set_aside(&self, letters: u64) {
        self.dead_letters.set(letters as f64);
    }
}
