//! What the steps of a rebuild send.

use fred::types::Value;

use super::{Content, number, open_args};
use crate::{OrderState, SegmentSpec, StockError, StoredOrder};

/// Above it the versions of an epoch would pass 2^53. A rebuild a second would need twelve days.
const MAX_EPOCH: u64 = 1 << 20;

pub(crate) fn epoch_arg(epoch: u64) -> Result<Value, StockError> {
    if epoch > MAX_EPOCH {
        return Err(StockError::Unavailable(format!(
            "epoch = {epoch} is above {MAX_EPOCH}, the highest the Redis store can count"
        )));
    }
    Ok(epoch.to_string().into())
}

pub(crate) fn begin_args(spec: &SegmentSpec, epoch: u64) -> Result<Vec<Value>, StockError> {
    let mut args = vec![epoch_arg(epoch)?];
    args.extend(open_args(spec)?);
    Ok(args)
}

/// `epoch sign {id units}…`
pub(crate) fn move_args(
    epoch: u64,
    sign: &'static str,
    moves: &[(String, u64)],
) -> Result<Vec<Value>, StockError> {
    let mut args = vec![epoch_arg(epoch)?, Value::from_static_str(sign)];
    for (id, units) in moves {
        args.push(id.as_str().into());
        args.push(number(*units, "units")?);
    }
    Ok(args)
}

/// `epoch {id state quantity created pay_by fingerprint[metadata] buyer request}…`
pub(crate) fn load_args(epoch: u64, orders: &[StoredOrder]) -> Result<Vec<Value>, StockError> {
    let mut args = vec![epoch_arg(epoch)?];
    for order in orders {
        let state = match order.state {
            OrderState::Reserved => "R",
            OrderState::Sold => "S",
            OrderState::Released => "X",
        };
        args.extend([
            order.order.to_string().into(),
            Value::from_static_str(state),
            order.quantity.to_string().into(),
            number(order.created_at_ms, "created_at_ms")?,
            number(order.pay_by_ms, "pay_by_ms")?,
            Content(order.fingerprint, &order.metadata)
                .to_string()
                .into(),
            order.buyer.as_str().into(),
            order.request.as_str().into(),
        ]);
    }
    Ok(args)
}
