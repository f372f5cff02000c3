//! One line of an answer, word by word.

use std::str::{FromStr, SplitAsciiWhitespace};

use super::FINGERPRINT;
use crate::{Metadata, OrderState, Position, StockError, StoredOrder};

/// An answer of the library that this version cannot read: another program owns the name, or the data was edited by hand.
pub(super) fn unreadable(answer: &str) -> StockError {
    StockError::Corrupt(format!(
        "unreadable answer of the stock functions: {answer:?}"
    ))
}

/// The words of one line.
pub(super) struct Words<'a> {
    line: &'a str,
    words: SplitAsciiWhitespace<'a>,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self {
            line,
            words: line.split_ascii_whitespace(),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, StockError> {
        self.words.next().ok_or_else(|| unreadable(self.line))
    }

    pub(super) fn next<T: FromStr>(&mut self) -> Result<T, StockError> {
        self.text()?.parse().map_err(|_| unreadable(self.line))
    }

    pub(super) fn position(&mut self) -> Result<Position, StockError> {
        let (major, minor) = self
            .text()?
            .split_once('-')
            .ok_or_else(|| unreadable(self.line))?;
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Position { major, minor }),
            _ => Err(unreadable(self.line)),
        }
    }

    /// `id state quantity created pay_by fingerprint[metadata] buyer request`
    pub(super) fn order(&mut self) -> Result<StoredOrder, StockError> {
        let order = self.next()?;
        let state = match self.text()? {
            "R" => OrderState::Reserved,
            "S" => OrderState::Sold,
            "X" => OrderState::Released,
            _ => return Err(unreadable(self.line)),
        };
        let quantity = self.next()?;
        let created_at_ms = self.next()?;
        let pay_by_ms = self.next()?;
        let content = self.text()?.split_at_checked(FINGERPRINT);
        let (fingerprint, metadata) = content.ok_or_else(|| unreadable(self.line))?;
        let fingerprint =
            u64::from_str_radix(fingerprint, 16).map_err(|_| unreadable(self.line))?;
        let metadata = match metadata {
            "" => None,
            text => Some(Metadata::from_stored(text).map_err(|_| unreadable(self.line))?),
        };
        Ok(StoredOrder {
            order,
            fingerprint,
            state,
            quantity,
            created_at_ms,
            pay_by_ms,
            metadata,
            buyer: self.next()?,
            request: self.next()?,
        })
    }
}
