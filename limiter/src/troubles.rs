//! What is said of a thing that fails again and again: one line when it begins, one a minute while it lasts, one when it is over, each
//! with what and how many. Every failure by itself would be thousands of lines about one receiver or one Redis that is away.

use std::{
    collections::BTreeSet,
    fmt::Display,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

/// How often it is said that the trouble lasts.
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// Parts that are kept by name. Beyond it they are counted only, and the trouble is over when the named ones are well.
const PARTS_MAX: usize = 4096;

/// One kind of work that may fail in many parts: segments, sales, events.
pub struct Troubles {
    what: &'static str,
    /// Read for each success: whether the lock has to be taken.
    is_any: AtomicBool,
    /// Held for a look into the set, never across an await.
    state: Mutex<State>,
}

struct State {
    parts: BTreeSet<String>,
    failures: u64,
    /// When it began and when it was last said.
    times: Option<(Instant, Instant)>,
}

/// What is to be said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Begins,
    Lasts { parts: usize, failures: u64 },
    Over { failures: u64, lasted: Duration },
}

impl Troubles {
    /// None yet, of this work.
    pub const fn new(what: &'static str) -> Self {
        Self {
            what,
            is_any: AtomicBool::new(false),
            state: Mutex::new(State {
                parts: BTreeSet::new(),
                failures: 0,
                times: None,
            }),
        }
    }

    /// A part has failed.
    pub fn failed(&self, part: impl Display, error: &dyn Display) {
        let part = part.to_string();
        let what = self.what;
        match self.state().failed(part.clone(), Instant::now()) {
            Some(Said::Begins) => warn!(what, part, %error, "failing, trying again"),
            Some(Said::Lasts { parts, failures }) => {
                warn!(what, parts, failures, part, %error, "still failing");
            }
            Some(Said::Over { .. }) | None => {}
        }
        self.is_any.store(true, Ordering::Release);
    }

    /// A part is well. Costs one load while nothing fails.
    pub fn works(&self, part: impl Display) {
        if !self.is_any.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        if let Some(Said::Over { failures, lasted }) =
            state.works(&part.to_string(), Instant::now())
        {
            self.is_any.store(false, Ordering::Release);
            let (what, seconds) = (self.what, lasted.as_secs());
            info!(what, failures, seconds, "works again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn failed(&mut self, part: String, now: Instant) -> Option<Said> {
        self.failures += 1;
        if self.parts.len() < PARTS_MAX {
            self.parts.insert(part);
        }
        match &mut self.times {
            None => {
                self.times = Some((now, now));
                Some(Said::Begins)
            }
            Some((_, said)) if now.duration_since(*said) >= REMIND_EVERY => {
                *said = now;
                let (parts, failures) = (self.parts.len(), self.failures);
                Some(Said::Lasts { parts, failures })
            }
            Some(_) => None,
        }
    }

    fn works(&mut self, part: &str, now: Instant) -> Option<Said> {
        self.parts.remove(part);
        if !self.parts.is_empty() {
            return None;
        }
        let (began, _) = self.times.take()?;
        Some(Said::Over {
            failures: std::mem::take(&mut self.failures),
            lasted: now.duration_since(began),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broken webhook wrote 7,885 lines in four minutes, a Redis that was away twenty a second.
    #[test]
    fn a_trouble_is_said_when_it_begins_each_minute_and_when_it_is_over() {
        let Troubles { state, .. } = Troubles::new("deliveries");
        let mut state = state.into_inner().unwrap();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut said = Vec::new();
        // Two parts, ten times a second each, for four minutes.
        for tick in 0..2_400 {
            for part in ["one", "two"] {
                said.extend(state.failed(part.to_owned(), at(tick * 100)));
            }
        }
        assert_eq!(said.len(), 4, "{said:?}");
        assert_eq!(said[0], Said::Begins);
        let lasts = Said::Lasts {
            parts: 2,
            failures: 1_201,
        };
        assert_eq!(said[1], lasts);
        assert_eq!(
            state.works("one", at(240_000)),
            None,
            "the other is not well"
        );
        let over = Said::Over {
            failures: 4_800,
            lasted: Duration::from_secs(241),
        };
        assert_eq!(state.works("two", at(241_000)), Some(over));
        assert_eq!(state.works("two", at(242_000)), None);
        assert_eq!(
            state.failed("one".to_owned(), at(243_000)),
            Some(Said::Begins)
        );
    }
}
