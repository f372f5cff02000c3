//! The life of a sale as one function: draft → scheduled → open → paused → ended.
//!
//! Nothing stores the state and no timer moves it. It follows from what the operator said (stage and gate) and from the clock
//! ([`Sale::state_at`]); purchases are decided by the window that the stock store holds, with the store's own clock. A node
//! that slept through T0 therefore neither opens late nor closes late.

use serde::{Deserialize, Serialize};
use stock::{Gate, words};

use super::{Sale, Stage};

/// How long before it takes effect a moved instant must be known: the store has taken the new window over by then, so no order
/// falls between the old window and the new one. To end a sale at once, close it.
pub const MOVE_LEAD_MS: u64 = 2_000;

words! {
    /// Where a sale stands.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum SaleState {
        /// Being prepared: buyers do not see it, the store does not know it.
        Draft = "draft",
        /// Published; its window has not begun.
        Scheduled = "scheduled",
        /// Its window is on.
        Open = "open",
        /// An operator holds it back, before or in its window.
        Paused = "paused",
        /// Its window is over, or it was closed. Final.
        Ended = "ended",
    }
}

/// What may happen to a sale. The last two come from the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleEvent {
    /// Any field is changed.
    Edit,
    /// Buyers may see it.
    Publish,
    /// `starts_at_ms` is moved. Only before the window has begun, which a paused sale does not tell: see [`check_move`].
    MoveStart,
    /// `ends_at_ms` is moved.
    MoveEnd,
    /// Purchases are refused for now.
    Pause,
    /// Purchases pass again.
    Resume,
    /// Purchases are refused for good.
    Close,
    /// `starts_at_ms` is reached.
    Begin,
    /// `ends_at_ms` is reached.
    End,
}

impl SaleState {
    /// The state after an event; `Err` gives back the state that forbids it.
    pub fn after(self, event: SaleEvent) -> Result<Self, Self> {
        use SaleEvent as E;
        use SaleState as S;
        match (self, event) {
            (S::Draft, E::Edit) => Ok(S::Draft),
            (S::Draft, E::Publish) => Ok(S::Scheduled),
            (S::Draft | S::Scheduled | S::Open | S::Paused | S::Ended, E::Close) => Ok(S::Ended),
            (S::Draft, E::MoveStart | E::MoveEnd | E::Pause | E::Resume | E::Begin | E::End) => {
                Err(self)
            }
            (S::Scheduled, E::MoveStart | E::MoveEnd | E::Resume) => Ok(S::Scheduled),
            (S::Scheduled | S::Open | S::Paused, E::Pause) => Ok(S::Paused),
            (S::Scheduled, E::Begin) => Ok(S::Open),
            (S::Scheduled, E::Edit | E::Publish | E::End) => Err(self),
            (S::Open, E::MoveEnd | E::Resume) => Ok(S::Open),
            (S::Open | S::Paused, E::End) => Ok(S::Ended),
            (S::Open, E::Edit | E::Publish | E::MoveStart | E::Begin) => Err(self),
            // A pause outlasts the start of the window.
            (S::Paused, E::MoveStart | E::MoveEnd | E::Begin) => Ok(S::Paused),
            // If the window has begun meanwhile, `Begin` follows at once.
            (S::Paused, E::Resume) => Ok(S::Scheduled),
            (S::Paused, E::Edit | E::Publish) => Err(self),
            (
                S::Ended,
                E::Edit
                | E::Publish
                | E::MoveStart
                | E::MoveEnd
                | E::Pause
                | E::Resume
                | E::Begin
                | E::End,
            ) => Err(self),
        }
    }
}

impl Sale {
    /// Where the sale stands at an instant.
    pub fn state_at(&self, now_ms: u64) -> SaleState {
        match (self.rules.stage, self.gate) {
            (_, Gate::Closed) => SaleState::Ended,
            (Stage::Draft, _) => SaleState::Draft,
            (Stage::Published, _) if now_ms >= self.ends_at_ms => SaleState::Ended,
            (Stage::Published, Gate::Paused | Gate::Frozen) => SaleState::Paused,
            (Stage::Published, Gate::Open) if now_ms < self.starts_at_ms => SaleState::Scheduled,
            (Stage::Published, Gate::Open) => SaleState::Open,
        }
    }
}

/// Why a window cannot be moved as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveRefused {
    /// The sale is a draft (edit it) or has ended.
    State(SaleState),
    /// The window has begun, or begins within [`MOVE_LEAD_MS`].
    Started,
    /// The window would not end after it begins.
    Empty,
    /// The new start lies before this instant.
    StartBefore(u64),
    /// The new end lies before this instant.
    EndBefore(u64),
}

/// Whether a published sale may get this window now.
pub fn check_move(sale: &Sale, starts: u64, ends: u64, now_ms: u64) -> Result<(), MoveRefused> {
    let state = sale.state_at(now_ms);
    let soon = now_ms + MOVE_LEAD_MS;
    if starts != sale.starts_at_ms {
        // A paused sale does not tell whether its window has begun; the clock does.
        let is_on = !matches!(state, SaleState::Draft | SaleState::Ended);
        if is_on && sale.starts_at_ms <= soon {
            return Err(MoveRefused::Started);
        }
        state
            .after(SaleEvent::MoveStart)
            .map_err(MoveRefused::State)?;
        if starts < now_ms {
            return Err(MoveRefused::StartBefore(now_ms));
        }
    }
    if ends != sale.ends_at_ms || starts == sale.starts_at_ms {
        state
            .after(SaleEvent::MoveEnd)
            .map_err(MoveRefused::State)?;
        if ends < soon {
            return Err(MoveRefused::EndBefore(soon));
        }
    }
    if starts >= ends {
        return Err(MoveRefused::Empty);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
