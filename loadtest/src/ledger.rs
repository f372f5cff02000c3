//! What the admin API says about a sale: its own account, and the rows of the order ledger.

use serde::{Deserialize, Serialize};

/// One row of the order ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    pub id: String,
    pub sku: String,
    pub buyer: String,
    pub quantity: u64,
    /// Where the order stands.
    pub status: OrderStatus,
    /// The request that made it.
    pub request_id: Option<String>,
    /// When the store accepted it, by the store's clock, unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at_ms: Option<u64>,
    /// When it is returned unless it is paid, unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay_by_ms: Option<u64>,
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Holds units, not paid.
    Reserved,
    /// Holds units, being paid.
    Paying,
    Paid,
    Released,
    /// Never held units in the ledger.
    Refused,
}

impl OrderStatus {
    /// Whether the order holds units.
    pub fn is_live(self) -> bool {
        !matches!(self, OrderStatus::Released | OrderStatus::Refused)
    }

    /// Whether nothing leaves this status.
    pub fn is_final(self) -> bool {
        !matches!(self, OrderStatus::Reserved | OrderStatus::Paying)
    }

    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            OrderStatus::Reserved => "reserved",
            OrderStatus::Paying => "paying",
            OrderStatus::Paid => "paid",
            OrderStatus::Released => "released",
            OrderStatus::Refused => "refused",
        }
    }
}

/// The sale's own account (`/admin/v1/sales/{sale}/report`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaleReport {
    pub skus: Vec<SkuReport>,
    /// Orders the store accepted.
    pub accepted: u64,
    /// Orders inserted into the ledger, ever.
    pub settled: u64,
    pub paid: u64,
    /// Orders whose units were returned.
    pub returned: u64,
    /// Orders the settlement refused.
    #[serde(default)]
    pub refused: u64,
    #[serde(default)]
    pub dead_letters: u64,
    /// Orders waiting for settlement.
    #[serde(default)]
    pub queue_depth: u64,
}

/// One sku of the account, in units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkuReport {
    pub sku: String,
    /// At the start.
    pub stock: u64,
    /// Added later.
    #[serde(default)]
    pub restocked: u64,
    pub available: u64,
    /// Held by unpaid orders.
    pub reserved: u64,
    /// Held by paid orders.
    pub sold: u64,
    /// Held by live orders, as the ledger's own counter has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_sold: Option<u64>,
}

impl SaleReport {
    /// Orders neither in the ledger nor set aside. Whether refused orders count as settled is the ledger's choice, so they
    /// are not missed either way.
    pub fn unsettled(&self) -> u64 {
        self.accepted
            .saturating_sub(self.settled + self.refused + self.dead_letters)
    }
}
