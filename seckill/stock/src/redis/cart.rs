//! Which carts can be decided in one step.

use crate::{CartLine, MAX_CART_LINES, StockError};

/// A cart that no function could decide in one step is the caller's mistake; nothing is executed.
pub(super) fn check(lines: &[CartLine]) -> Result<(), StockError> {
    let bad = |why: String| {
        Err(StockError::Unavailable(format!(
            "not a cart: {why}; nothing was bought"
        )))
    };
    let Some(first) = lines.first().filter(|_| lines.len() <= MAX_CART_LINES) else {
        return bad(format!(
            "{} lines, allowed are 1 to {MAX_CART_LINES}",
            lines.len()
        ));
    };
    for (place, line) in lines.iter().enumerate() {
        let (one, other) = (&first.purchase, &line.purchase);
        if (&one.buyer, &one.request, one.fingerprint, &one.metadata)
            != (
                &other.buyer,
                &other.request,
                other.fingerprint,
                &other.metadata,
            )
        {
            return bad(format!(
                "line {place} has another buyer, request, fingerprint or metadata"
            ));
        }
        if !line.segment.is_of_cart() || line.segment.sale != first.segment.sale {
            return bad(format!(
                "{} does not live together with {}",
                line.segment, first.segment
            ));
        }
        let mut before = lines[..place].iter();
        if before.any(|other| other.segment == line.segment) {
            return bad(format!("{} stands in two lines", line.segment));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Purchase,
        ids::{OrderId, SegmentId},
    };

    fn line(sale: &str, sku: &str) -> CartLine {
        CartLine {
            segment: SegmentId::of_cart(sale.parse().unwrap(), sku.parse().unwrap()),
            epoch: 1,
            purchase: Purchase {
                order: OrderId::from_u128(1),
                buyer: "ann".parse().unwrap(),
                request: "r1".parse().unwrap(),
                fingerprint: 1,
                quantity: 1,
                metadata: None,
            },
        }
    }

    #[test]
    fn what_no_function_could_decide_in_one_step_is_refused() {
        let lines = |count: usize| -> Vec<_> {
            (0..count)
                .map(|sku| line("s", &format!("k{sku}")))
                .collect()
        };
        assert!(check(&lines(1)).is_ok() && check(&lines(MAX_CART_LINES)).is_ok());
        let mut stranger = line("s", "b");
        stranger.purchase.buyer = "bob".parse().unwrap();
        let mut elsewhere = line("s", "b");
        elsewhere.segment = SegmentId::first("s".parse().unwrap(), "b".parse().unwrap());
        for (bad, why) in [
            (vec![], "0 lines"),
            (lines(MAX_CART_LINES + 1), "1 to 16"),
            (vec![line("s", "a"), line("t", "b")], "live together"),
            (vec![line("s", "a"), elsewhere], "live together"),
            (vec![line("s", "a"), line("s", "a")], "two lines"),
            (vec![line("s", "a"), stranger], "another buyer"),
        ] {
            let refused = check(&bad);
            assert!(
                matches!(&refused, Err(StockError::Unavailable(text)) if text.contains(why)),
                "{why}: {refused:?}"
            );
        }
    }
}
