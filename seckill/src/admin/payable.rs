//! Prices that can be paid here.

use crate::sale::{FieldProblem, Sale, SkuOnSale};

/// What orders may cost, where payments are taken too: a sale whose orders nobody can pay is refused when it is created or edited.
#[derive(Debug, Clone)]
pub struct Payable {
    /// Currencies that are taken, ISO 4217 in lower case.
    pub currencies: Vec<String>,
    /// The most one payment can be, in minor units.
    pub most_minor: i64,
}

impl Payable {
    /// What is wrong with the prices of a sale.
    pub(super) fn problems(&self, sale: &Sale) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut bad = |field: String, value: String, allowed: String| {
            problems.push(FieldProblem {
                field,
                value,
                allowed,
            })
        };
        if !self.currencies.contains(&sale.currency) {
            bad(
                "currency".into(),
                sale.currency.clone(),
                format!("one that is paid in here: {}", self.currencies.join(", ")),
            );
        }
        // One order may hold as many units as its buyer.
        let most = self.most_minor / i64::from(sale.buyer_limit);
        // A slot that costs nothing needs no payment.
        let is_free = |sku: &SkuOnSale| sale.rules.slots.is_some() && sku.price_minor == 0;
        for (index, sku) in sale.skus.iter().enumerate() {
            if is_free(sku) {
                continue;
            }
            if !(1..=most).contains(&sku.price_minor) {
                let allowed = format!(
                    "a whole number from 1 to {most} (what one payment can be, by the buyer limit)"
                );
                bad(
                    format!("skus[{index}].price_minor"),
                    sku.price_minor.to_string(),
                    allowed,
                );
            }
        }
        problems
    }
}
