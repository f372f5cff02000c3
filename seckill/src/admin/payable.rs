//! Prices that can be paid here.

use crate::sale::{FieldProblem, Sale};

/// What orders may cost, where payments are taken too: a sale whose orders nobody can pay is refused when it is created, edited or published.
#[derive(Debug, Clone)]
pub struct Payable {
    /// Currencies that are taken, each with what one payment in it can be.
    pub currencies: Vec<PayableCurrency>,
}

/// What one payment in a currency can be, in minor units.
#[derive(Debug, Clone)]
pub struct PayableCurrency {
    /// ISO 4217, in lower case.
    pub code: String,
    /// The least; every amount is a multiple of it.
    pub step_minor: i64,
    /// The most.
    pub most_minor: i64,
}

impl Payable {
    /// What is wrong with the currency and the prices of a sale.
    pub(super) fn problems(&self, sale: &Sale) -> Vec<FieldProblem> {
        let taken = |currency: &&PayableCurrency| currency.code == sale.currency;
        let Some(currency) = self.currencies.iter().find(taken) else {
            let codes: Vec<&str> = self.currencies.iter().map(|c| &*c.code).collect();
            return vec![FieldProblem {
                field: "currency".into(),
                value: sale.currency.clone(),
                allowed: format!("one that is paid in here: {}", codes.join(", ")),
            }];
        };
        // Each line of a cart is an order of its own, so the most that is paid at once is one order.
        let units = sale.rules.order_limit.unwrap_or(sale.buyer_limit);
        let units = i64::from(units.min(sale.buyer_limit));
        let wrong = |price: i64| currency.problem(price, units);
        if let Some(slots) = &sale.rules.slots {
            // Slots have one price; one that costs nothing needs no payment.
            let allowed = wrong(slots.price_minor).filter(|_| slots.price_minor != 0);
            return allowed
                .map(|allowed| FieldProblem {
                    field: "slots.price_minor".into(),
                    value: slots.price_minor.to_string(),
                    allowed: format!("0, or {allowed}"),
                })
                .into_iter()
                .collect();
        }
        let skus = sale.skus.iter().enumerate();
        skus.filter_map(|(index, sku)| {
            Some(FieldProblem {
                field: format!("skus[{index}].price_minor"),
                value: sku.price_minor.to_string(),
                allowed: wrong(sku.price_minor)?,
            })
        })
        .collect()
    }
}

impl PayableCurrency {
    /// What a price may be, if `price` is not it: an order of 1 to `units` must be a payable amount.
    fn problem(&self, price: i64, units: i64) -> Option<String> {
        let (step, most) = (self.step_minor, self.most_minor / units.max(1));
        let most = most - most % step;
        if (step..=most).contains(&price) && price % step == 0 {
            return None;
        }
        let code = &self.code;
        if most < step {
            return Some(format!(
                "payable, which in {code} no order of {units} units is; lower the limits"
            ));
        }
        let multiple = match step {
            1 => String::new(),
            _ => format!(", a multiple of {step}, as payments in {code} are"),
        };
        Some(format!(
            "a whole number from {step} to {most}{multiple} (one payment can be {}, an order has up to {units} units)",
            self.most_minor
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::PayableCurrency;

    fn dinar(most_minor: i64) -> PayableCurrency {
        PayableCurrency {
            code: "kwd".into(),
            step_minor: 10,
            most_minor,
        }
    }

    #[test]
    fn a_price_is_a_multiple_within_what_an_order_may_cost() {
        let dinar = dinar(990);
        let is_payable = |price, units| dinar.problem(price, units).is_none();
        assert!(is_payable(10, 1) && is_payable(990, 1) && is_payable(320, 3));
        for (price, units) in [
            (0, 1),
            (-10, 1),
            (5, 1),
            (15, 1),
            (1234, 1),
            (995, 1),
            (1000, 1),
            (340, 3),
        ] {
            assert!(!is_payable(price, units), "{price} by {units}");
        }
        // 330 times 3 is payable, 331 times 3 is not; what is said to be allowed is.
        assert!(
            dinar
                .problem(331, 3)
                .is_some_and(|allowed| allowed.contains("10 to 330, a multiple of 10"))
        );
    }

    #[test]
    fn limits_under_which_nothing_is_payable_are_said_to_be_the_reason() {
        let allowed = dinar(90).problem(10, 100).unwrap_or_default();
        assert!(allowed.contains("lower the limits"), "{allowed}");
    }
}
