//! Pages of the queue.

use super::words::{Words, unreadable};
use crate::{Position, QueueDepth, QueueEntry, StockError, StoredOrder};

/// A page of orders, and where to read on; `None` at the end.
pub(crate) struct Page {
    pub(crate) orders: Vec<(Position, StoredOrder)>,
    pub(crate) next: Option<Position>,
}

pub(crate) fn read_page(answer: &str) -> Result<Page, StockError> {
    let mut lines = answer.lines();
    let next = match lines.next() {
        Some("-") => None,
        Some(position) => Some(Words::new(position).position()?),
        None => return Err(unreadable(answer)),
    };
    let read = |line| {
        let mut words = Words::new(line);
        Ok((words.position()?, words.order()?))
    };
    let orders = lines.map(read).collect::<Result<_, _>>()?;
    Ok(Page { orders, next })
}

/// An entry whose order cannot be read is an entry all the same: settlement sets it aside and counts it.
pub(crate) fn read_entries(answer: &str) -> Result<Vec<QueueEntry>, StockError> {
    answer
        .lines()
        .map(|line| {
            let mut words = Words::new(line);
            let (position, epoch, deliveries) = (words.position()?, words.next()?, words.next()?);
            // The mark stands where the order id would: a buyer may be called "!" as well.
            let order = match line.splitn(5, ' ').collect::<Vec<_>>()[..] {
                [_, _, _, "!", reason] => Err(reason.to_owned()),
                _ => words.order().map_err(|error| error.to_string()),
            };
            Ok(QueueEntry {
                position,
                epoch,
                deliveries,
                order,
            })
        })
        .collect()
}

pub(crate) fn read_depth(answer: &str) -> Result<QueueDepth, StockError> {
    let mut words = Words::new(answer);
    Ok(QueueDepth {
        entries: words.next()?,
        oldest_age_ms: words.next()?,
    })
}
