//! What the payment API takes, in the terms of a sale: asked of the wire itself, so that the two cannot differ.

use payment::{
    Currency, Money,
    money::{MAX_WIRE_AMOUNT, MoneyError},
};
use seckill::admin::{Payable, PayableCurrency};

/// The bounds of one payment in each of these currencies.
pub(super) fn payable(currencies: &[Currency]) -> Payable {
    Payable {
        currencies: currencies.iter().copied().map(bounds).collect(),
    }
}

/// The wire's least amount is its step as well; the largest multiple of it that the wire takes is the most.
fn bounds(currency: Currency) -> PayableCurrency {
    let step = match Money::from_wire(1, currency) {
        Err(MoneyError::NotMultiple { of }) => of,
        _ => 1,
    };
    let minor = |wire| Money::from_wire(wire, currency).map_or(0, Money::minor);
    PayableCurrency {
        code: currency.code().to_owned(),
        step_minor: minor(step),
        most_minor: minor(MAX_WIRE_AMOUNT - MAX_WIRE_AMOUNT % step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sale in krónur or dinars was created and sold, and could never be paid.
    #[test]
    fn what_is_payable_is_what_the_wire_takes_and_gives_back() {
        for code in ["usd", "jpy", "isk", "ugx", "kwd", "bhd", "iqd", "mga"] {
            let currency = Currency::from_code(code).unwrap();
            let bounds = bounds(currency);
            let near_most = bounds.most_minor - 120..bounds.most_minor + 2_000;
            for minor in (-1..2_000).chain(near_most) {
                let is_payable = (bounds.step_minor..=bounds.most_minor).contains(&minor)
                    && minor % bounds.step_minor == 0;
                let on_the_wire = Money::try_new(minor, currency)
                    .is_ok_and(|money| Money::from_wire(money.to_wire(), currency) == Ok(money));
                assert_eq!(is_payable, on_the_wire, "{minor} {code}");
            }
        }
    }
}
