//! Carts: what is sent and what comes back.

use fred::types::Value;

use super::{
    Content, read_verdict,
    words::{Words, unreadable},
};
use crate::{CartLine, CartVerdict, StockError};

/// `buyer request fingerprint[metadata] {epoch order quantity}…`
pub(crate) fn cart_args(lines: &[CartLine]) -> Vec<Value> {
    let first = &lines[0].purchase;
    let mut args: Vec<Value> = vec![
        first.buyer.as_str().into(),
        first.request.as_str().into(),
        Content(first.fingerprint, &first.metadata)
            .to_string()
            .into(),
    ];
    for line in lines {
        args.push(line.epoch.to_string().into());
        args.push(line.purchase.order.to_string().into());
        args.push(line.purchase.quantity.to_string().into());
    }
    args
}

/// One line a line of the cart, all accepted or all replayed; or `X line verdict`.
pub(crate) fn read_cart(answer: &str, lines: &[CartLine]) -> Result<CartVerdict, StockError> {
    if let Some(refusal) = answer.strip_prefix("X ") {
        let (line, verdict) = refusal.split_once(' ').ok_or_else(|| unreadable(answer))?;
        let line: usize = line.parse().map_err(|_| unreadable(answer))?;
        let purchase = &lines.get(line).ok_or_else(|| unreadable(answer))?.purchase;
        let verdict = read_verdict(verdict, purchase)?;
        return Ok(CartVerdict::Refused { line, verdict });
    }
    if answer.lines().count() != lines.len() {
        return Err(unreadable(answer));
    }
    if answer.starts_with("A ") {
        let both = answer.lines().zip(lines);
        let verdicts = both.map(|(text, line)| match text.starts_with("A ") {
            true => read_verdict(text, &line.purchase),
            false => Err(unreadable(answer)),
        });
        return Ok(CartVerdict::Accepted(verdicts.collect::<Result<_, _>>()?));
    }
    let orders = answer.lines().map(|text| {
        let order = text.strip_prefix("R ").ok_or_else(|| unreadable(answer))?;
        Words::new(order).order()
    });
    Ok(CartVerdict::Replayed(orders.collect::<Result<_, _>>()?))
}
