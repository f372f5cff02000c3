//! The sale's metrics: handles resolved once, every series there at 0 from the start, labels from closed sets. Those of a sale leave with it.

use metrics::{Counter, Histogram};
use stock::{CartVerdict, Verdict, words};

use crate::{purchase::Outcome, series};

words! {
    /// How a purchase ended, as the `outcome` label.
    #[allow(missing_docs, reason = "the label says it")]
    pub enum PurchaseResult {
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
}

impl PurchaseResult {
    /// How a purchase or a cart ended.
    pub fn of<V>(outcome: &Outcome<V>) -> Self
    where
        for<'a> Self: From<&'a V>,
    {
        match outcome {
            Outcome::Unknown => Self::Unknown,
            Outcome::Unavailable => Self::Frozen,
            Outcome::Decided(verdict) => Self::from(verdict),
        }
    }
}

/// A cart counts once, whatever its lines.
impl From<&CartVerdict> for PurchaseResult {
    fn from(verdict: &CartVerdict) -> Self {
        match verdict {
            CartVerdict::Accepted(_) => Self::Accepted,
            CartVerdict::Replayed(_) => Self::Replayed,
            CartVerdict::Refused { verdict, .. } => Self::from(verdict),
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
    seconds: [Histogram; PurchaseResult::ALL.len()],
}

/// The purchases of one sale, on `/metrics` until this is dropped.
pub struct SaleMetrics {
    total: [Counter; PurchaseResult::ALL.len()],
}

impl SaleMetrics {
    /// Registers the series of a sale.
    pub fn new(sale: &str) -> Self {
        let counter = |outcome: PurchaseResult| {
            let labels = [("sale", sale), ("outcome", outcome.as_str())];
            series::counter("penstock_sale_purchases_total", &labels)
        };
        Self {
            total: PurchaseResult::ALL.map(counter),
        }
    }
}

impl Default for PurchaseMetrics {
    /// Registers all series.
    fn default() -> Self {
        Self {
            of_others: SaleMetrics::new(""),
            seconds: PurchaseResult::ALL.map(|outcome| metrics::histogram!("penstock_sale_purchase_duration_seconds", "outcome" => outcome.as_str())),
        }
    }
}

impl PurchaseMetrics {
    /// Counts one purchase of a sale; `None` is one that is not going on.
    pub fn record(&self, sale: Option<&SaleMetrics>, result: PurchaseResult, seconds: f64) {
        let sale = sale.unwrap_or(&self.of_others);
        sale.total[result as usize].increment(1);
        self.seconds[result as usize].record(seconds);
    }
}
