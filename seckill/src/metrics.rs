//! The sale's metrics: handles resolved once, every series there at 0 from the start, labels from closed sets. Those of a sale leave with it.

use metrics::{Counter, Histogram};
use stock::{CartVerdict, Verdict};

use crate::{
    purchase::{CartOutcome, Outcome},
    series,
};

macro_rules! results {
    ($($name:ident = $label:literal,)*) => {
        /// How a purchase ended, as the `outcome` label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the label says it")]
        pub enum PurchaseResult {
            $($name,)*
        }

        const LABELS: &[&str] = &[$($label,)*];
    };
}

results! {
    Accepted = "accepted",
    Replayed = "replayed",
    SoldOut = "sold_out",
    BuyerLimit = "buyer_limit",
    NotStarted = "not_started",
    Ended = "ended",
    Paused = "paused",
    Frozen = "frozen",
    KeyReused = "key_reused",
    NotFound = "not_found",
    NotAdmitted = "not_admitted",
    Unknown = "unknown",
    Invalid = "invalid",
}

impl From<&Outcome> for PurchaseResult {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::SoldOutFromMemory => Self::SoldOut,
            Outcome::Unknown => Self::Unknown,
            Outcome::Unavailable => Self::Frozen,
            Outcome::Decided(verdict) => Self::from(verdict),
        }
    }
}

/// A cart counts once, whatever its lines.
impl From<&CartOutcome> for PurchaseResult {
    fn from(outcome: &CartOutcome) -> Self {
        match outcome {
            CartOutcome::SoldOutFromMemory { .. } => Self::SoldOut,
            CartOutcome::Unknown => Self::Unknown,
            CartOutcome::Unavailable => Self::Frozen,
            CartOutcome::Decided(CartVerdict::Accepted(_)) => Self::Accepted,
            CartOutcome::Decided(CartVerdict::Replayed(_)) => Self::Replayed,
            CartOutcome::Decided(CartVerdict::Refused { verdict, .. }) => Self::from(verdict),
        }
    }
}

impl From<&Verdict> for PurchaseResult {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Accepted { .. } => Self::Accepted,
            Verdict::Replayed(_) => Self::Replayed,
            Verdict::KeyReused => Self::KeyReused,
            Verdict::NotStarted { .. } => Self::NotStarted,
            Verdict::Ended => Self::Ended,
            Verdict::Paused => Self::Paused,
            Verdict::Frozen | Verdict::StaleEpoch { .. } => Self::Frozen,
            Verdict::BuyerLimit { .. } => Self::BuyerLimit,
            Verdict::SoldOut { .. } => Self::SoldOut,
            Verdict::InvalidQuantity => Self::Invalid,
        }
    }
}

/// Counts purchases by result.
pub struct PurchaseMetrics {
    /// Of sales that there are not, or that are over: an empty label is none.
    of_others: SaleMetrics,
    seconds: Vec<Histogram>,
}

/// The purchases of one sale, on `/metrics` until this is dropped.
pub struct SaleMetrics {
    total: Vec<Counter>,
}

impl SaleMetrics {
    /// Registers the series of a sale.
    pub fn new(sale: &str) -> Self {
        let counter = |&outcome: &&'static str| {
            let labels = [("sale", sale), ("outcome", outcome)];
            series::counter("penstock_sale_purchases_total", &labels)
        };
        Self {
            total: LABELS.iter().map(counter).collect(),
        }
    }
}

impl PurchaseMetrics {
    /// Registers all series.
    pub fn new() -> Self {
        Self {
            of_others: SaleMetrics::new(""),
            seconds: LABELS
                .iter()
                .map(|&label| metrics::histogram!("penstock_sale_purchase_duration_seconds", "outcome" => label))
                .collect(),
        }
    }

    /// Counts one purchase of a sale; `None` is one that is not going on.
    pub fn record(&self, sale: Option<&SaleMetrics>, result: PurchaseResult, seconds: f64) {
        let sale = sale.unwrap_or(&self.of_others);
        sale.total[result as usize].increment(1);
        self.seconds[result as usize].record(seconds);
    }
}

impl Default for PurchaseMetrics {
    fn default() -> Self {
        Self::new()
    }
}
