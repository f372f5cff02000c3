//! What is sent to the functions of `library/` and what their answers mean: lines of words, see there.

mod cart;
mod queue;
mod rebuild;
mod words;

use std::fmt::{self, Write};

use bytes::Bytes;
use fred::types::Value;

use self::words::{Words, unreadable};
pub(super) use self::{
    cart::{cart_args, read_cart},
    queue::{read_depth, read_entries, read_page},
    rebuild::{begin_args, epoch_arg, load_args, move_args},
};
use crate::{
    Durability, Gate, Metadata, Purchase, SegmentSpec, SegmentStatus, StockError, StoredOrder,
    Transition, Verdict,
    ids::{OrderId, SegmentId},
    units::MAX_UNITS,
};

/// Words of one purchase among the arguments of a batch.
const ARGS_OF_PURCHASE: usize = 4;
/// Digits of a fingerprint. `library/buy.lua` has the same number.
const FINGERPRINT: usize = 16;
/// In place of a durability where the sale names none.
const STORES_OWN: &str = "-";
/// Bytes of a purchase whose buyer and request id are of usual length; a guess too small only costs a second allocation.
const TYPICAL_PURCHASE: usize = 128;

fn number(value: u64, what: &str) -> Result<Value, StockError> {
    // Lua counts in doubles, which skip integers above it.
    if value > MAX_UNITS {
        return Err(StockError::Unavailable(format!(
            "{what} = {value} is above 2^53, the most the Redis store can count"
        )));
    }
    Ok(value.to_string().into())
}

pub(super) fn open_args(spec: &SegmentSpec) -> Result<Vec<Value>, StockError> {
    Ok(vec![
        number(spec.stock, "stock")?,
        number(spec.starts_at_ms, "starts_at_ms")?,
        number(spec.ends_at_ms, "ends_at_ms")?,
        spec.buyer_limit.to_string().into(),
        number(spec.pay_within_ms, "pay_within_ms")?,
        Value::from_static_str(spec.durability.map_or(STORES_OWN, Durability::as_str)),
    ])
}

/// A restock or a withdrawal.
pub(super) fn units_args(id: &str, units: u64) -> Result<Vec<Value>, StockError> {
    Ok(vec![id.into(), number(units, "units")?])
}

/// A fingerprint, and metadata right behind it: one word, because no space stands in it. JSON spells spaces in another way too.
struct Content<'a>(u64, &'a Option<Metadata>);

impl fmt::Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0FINGERPRINT$x}", self.0)?;
        let Some(metadata) = self.1 else {
            return Ok(());
        };
        let mut parts = metadata.as_str().split(' ');
        f.write_str(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| write!(f, "\\u0020{part}"))
    }
}

/// `epoch {order buyer content quantity}…`, where content is `fingerprint[metadata] buyer request`.
pub(super) fn buy_args(epoch: u64, purchases: &[Purchase]) -> Vec<Value> {
    // One buffer for the whole batch; each argument is a piece of it, the buyer a piece of the content.
    let mut text = String::with_capacity(TYPICAL_PURCHASE * purchases.len());
    let mut pieces = Vec::with_capacity(ARGS_OF_PURCHASE * purchases.len());
    for purchase in purchases {
        let mut write = |word: std::fmt::Arguments<'_>| {
            let start = text.len();
            text.write_fmt(word).expect("a String takes any text");
            start..text.len()
        };
        let order = write(format_args!("{}", purchase.order));
        let content = Content(purchase.fingerprint, &purchase.metadata);
        let content = write(format_args!("{content} "));
        let buyer = write(format_args!("{}", purchase.buyer));
        let request = write(format_args!(" {}", purchase.request));
        let quantity = write(format_args!("{}", purchase.quantity));
        let content = content.start..request.end;
        pieces.extend([order, buyer, content, quantity]);
    }
    let text = Bytes::from(text);
    let mut args = Vec::with_capacity(1 + pieces.len());
    args.push(epoch.to_string().into());
    args.extend(pieces.into_iter().map(|piece| text.slice(piece).into()));
    args
}

pub(super) fn gate_arg(gate: Gate) -> &'static str {
    match gate {
        Gate::Open => "O",
        Gate::Paused => "P",
        Gate::Closed => "C",
        Gate::Frozen => "F",
    }
}

/// `available version created pay_by` before the first purchase, then one line a purchase, in order.
pub(super) fn read_verdicts(
    answer: &str,
    purchases: &[Purchase],
) -> Result<Vec<Verdict>, StockError> {
    let mut lines = answer.lines();
    let mut words = Words::new(lines.next().ok_or_else(|| unreadable(answer))?);
    let (mut available, mut version): (u64, u64) = (words.next()?, words.next()?);
    let (created_at_ms, pay_by_ms) = (words.next()?, words.next()?);
    let read = |(line, purchase): (&str, &Purchase)| {
        if line != "A" {
            return read_verdict(line, purchase);
        }
        available = available
            .checked_sub(purchase.quantity.into())
            .ok_or_else(|| unreadable(answer))?;
        version += 1;
        Ok(Verdict::Accepted {
            order: purchase.reserved(created_at_ms, pay_by_ms),
            remaining: available,
            version,
        })
    };
    let verdicts: Vec<_> = lines.zip(purchases).map(read).collect::<Result<_, _>>()?;
    if verdicts.len() != purchases.len() {
        return Err(unreadable(answer));
    }
    Ok(verdicts)
}

fn read_verdict(line: &str, purchase: &Purchase) -> Result<Verdict, StockError> {
    let mut words = Words::new(line);
    Ok(match words.text()? {
        "A" => {
            let (remaining, version) = (words.next()?, words.next()?);
            Verdict::Accepted {
                order: purchase.reserved(words.next()?, words.next()?),
                remaining,
                version,
            }
        }
        "R" => Verdict::Replayed(words.order()?),
        "K" => Verdict::KeyReused,
        "N" => Verdict::NotStarted {
            starts_at_ms: words.next()?,
            now_ms: words.next()?,
        },
        "E" => Verdict::Ended,
        "P" => Verdict::Paused,
        "F" => Verdict::Frozen,
        "S" => Verdict::StaleEpoch {
            current: words.next()?,
        },
        "L" => Verdict::BuyerLimit {
            held: words.next()?,
            limit: words.next()?,
        },
        "O" => Verdict::SoldOut {
            remaining: words.next()?,
            version: words.next()?,
            accepted: words.next()?,
        },
        "Q" => Verdict::InvalidQuantity,
        _ => return Err(unreadable(line)),
    })
}

/// One character an order.
pub(super) fn read_transitions(
    answer: &str,
    orders: &[OrderId],
) -> Result<Vec<Transition>, StockError> {
    let transitions: Option<Vec<_>> = answer
        .bytes()
        .map(|state| match state {
            b'+' => Some(Transition::Done),
            b'X' => Some(Transition::AlreadyReleased),
            b'S' => Some(Transition::AlreadySold),
            b'-' => Some(Transition::Unknown),
            _ => None,
        })
        .collect();
    transitions
        .filter(|transitions| transitions.len() == orders.len())
        .ok_or_else(|| unreadable(answer))
}

/// `numbers… gate doubt durability`
pub(super) fn read_snapshot(
    answer: &str,
    segment: &SegmentId,
) -> Result<SegmentStatus, StockError> {
    let mut words = Words::new(answer);
    let mut counts = SegmentStatus {
        spec: SegmentSpec {
            id: segment.clone(),
            stock: words.next()?,
            starts_at_ms: words.next()?,
            ends_at_ms: words.next()?,
            buyer_limit: words.next()?,
            pay_within_ms: words.next()?,
            durability: None,
        },
        epoch: words.next()?,
        version: words.next()?,
        available: words.next()?,
        reserved: words.next()?,
        sold: words.next()?,
        restocked: words.next()?,
        withdrawn: words.next()?,
        accepted: words.next()?,
        gate: match words.text()? {
            "O" => Gate::Open,
            "P" => Gate::Paused,
            "C" => Gate::Closed,
            "F" => Gate::Frozen,
            _ => return Err(unreadable(answer)),
        },
        needs_rebuild: match words.text()? {
            "0" => false,
            "1" => true,
            _ => return Err(unreadable(answer)),
        },
    };
    counts.spec.durability = match words.text()? {
        STORES_OWN => None,
        name => Some(name.parse().map_err(|_| unreadable(answer))?),
    };
    Ok(counts)
}

pub(super) fn read_units(answer: &str) -> Result<u64, StockError> {
    Words::new(answer).next()
}

pub(super) fn read_found(answer: &str) -> Result<Option<StoredOrder>, StockError> {
    if answer.is_empty() {
        Ok(None)
    } else {
        Words::new(answer).order().map(Some)
    }
}

pub(super) fn order_args(orders: &[OrderId]) -> Vec<Value> {
    orders
        .iter()
        .map(|order| order.to_string().into())
        .collect()
}

#[cfg(test)]
mod tests;
