//! What settlement counts; every series exists from the start.

use metrics::{Counter, Gauge, Histogram};

use crate::ledger::Settled;

/// Handles, resolved once.
#[derive(Clone)]
pub(super) struct SettlementMetrics {
    settled: Counter,
    duplicate: Counter,
    refused: Counter,
    /// Entries that were set aside.
    pub(super) dead: Counter,
    /// Batches of an epoch that the ledger has left.
    pub(super) stale_epochs: Counter,
    pub(super) batch_seconds: Histogram,
    /// What waits, over all segments.
    pub(super) queue_depth: Gauge,
    pub(super) oldest_age_seconds: Gauge,
    /// What was set aside and waits for an operator, over all sales.
    pub(super) dead_letters: Gauge,
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
    pub(super) fn settled(&self, outcome: Settled) {
        match outcome {
            Settled::Settled => self.settled.increment(1),
            Settled::Duplicate => self.duplicate.increment(1),
            Settled::Refused | Settled::SecondOrder => self.refused.increment(1),
        }
    }
}
