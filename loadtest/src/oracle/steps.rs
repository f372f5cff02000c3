//! Levels over time: how many units are held at every instant, given when each is taken and given back.
//!
//! [`Steps`] answers "what was the highest level between these two instants" in constant time after sorting once, and
//! [`Faults`] stretches an interval of patience over the faults that fall into it.

/// A level that changes at instants.
#[derive(Debug)]
pub(super) struct Steps {
    /// Before the first change.
    base: i64,
    /// Instants of change, ascending; an instant with several changes occurs several times.
    times: Vec<u64>,
    /// `highest[k][i]`: the highest level after changes `i .. i + 2^k`.
    highest: Vec<Vec<i64>>,
}

impl Steps {
    /// From a first level and changes in any order. At one instant ups come before downs: between them the level is as high as
    /// it can have been.
    pub(super) fn new(base: i64, mut changes: Vec<(u64, i64)>) -> Steps {
        changes.sort_unstable_by_key(|(at, change)| (*at, std::cmp::Reverse(*change)));
        let mut level = base;
        let first: Vec<i64> = changes
            .iter()
            .map(|(_, change)| {
                level += change;
                level
            })
            .collect();
        let times: Vec<u64> = changes.into_iter().map(|(at, _)| at).collect();
        let mut highest = vec![first];
        let mut width = 1;
        while 2 * width <= times.len() {
            let below = &highest[highest.len() - 1];
            let row = (0..=times.len() - 2 * width)
                .map(|at| below[at].max(below[at + width]))
                .collect();
            highest.push(row);
            width *= 2;
        }
        Steps {
            base,
            times,
            highest,
        }
    }

    /// The highest level at any instant of `from ..= to`, what was reached before `from` included.
    pub(super) fn highest(&self, from: u64, to: u64) -> i64 {
        let first = self.times.partition_point(|at| *at < from);
        let end = self.times.partition_point(|at| *at <= to);
        let before = first
            .checked_sub(1)
            .map_or(self.base, |at| self.highest[0][at]);
        if first >= end {
            return before;
        }
        let power = (end - first).ilog2() as usize;
        let row = &self.highest[power];
        before.max(row[first]).max(row[end - (1 << power)])
    }
}

/// The faults of a history, merged where they overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    merged: Vec<(u64, u64)>,
}

impl Faults {
    /// From intervals in any order.
    pub(super) fn new(mut intervals: Vec<(u64, u64)>) -> Faults {
        intervals.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in intervals {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Faults { merged }
    }

    /// When something that takes `lag_us` without faults is over at the latest, if it begins at `from`.
    pub(super) fn over_by(&self, from: u64, lag_us: u64) -> u64 {
        if from == u64::MAX {
            return u64::MAX;
        }
        let mut over = from.saturating_add(lag_us);
        let first = self.merged.partition_point(|(_, end)| *end < from);
        for (start, end) in &self.merged[first..] {
            if *start > over {
                break;
            }
            over = over.max(end.saturating_add(lag_us));
        }
        over
    }

    /// How far back something told at `to` may lie, if it is told within `lag_us` without faults.
    pub(super) fn since(&self, to: u64, lag_us: u64) -> u64 {
        let mut since = to.saturating_sub(lag_us);
        let last = self.merged.partition_point(|(start, _)| *start <= to);
        for (start, end) in self.merged[..last].iter().rev() {
            if *end < since {
                break;
            }
            since = since.min(start.saturating_sub(lag_us));
        }
        since
    }

    /// Whether a fault begins at most `window_us` after `at`, or is under way then.
    pub(super) fn follows(&self, at: u64, window_us: u64) -> bool {
        let next = self.merged.partition_point(|(_, end)| *end < at);
        self.merged
            .get(next)
            .is_some_and(|(start, _)| *start <= at.saturating_add(window_us))
    }

    /// The end of the last fault; 0 if there is none.
    pub(super) fn last_end(&self) -> u64 {
        self.merged.last().map_or(0, |(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_level_of_any_interval_is_the_one_found_by_looking_everywhere() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..50 {
            let changes: Vec<(u64, i64)> = (0..random(40))
                .map(|_| (random(30), random(7) as i64 - 3))
                .collect();
            let base = random(9) as i64 - 4;
            let steps = Steps::new(base, changes.clone());
            let mut sorted = changes;
            sorted.sort_by_key(|(at, change)| (*at, -change));
            for from in 0..31 {
                for to in from..31 {
                    let mut level = base;
                    let mut at_from = base;
                    let mut best = i64::MIN;
                    for (at, change) in &sorted {
                        level += change;
                        if *at < from {
                            at_from = level;
                        } else if *at <= to {
                            best = best.max(level);
                        }
                    }
                    assert_eq!(steps.highest(from, to), best.max(at_from), "{from}..={to}");
                }
            }
        }
    }

    #[test]
    fn patience_begins_anew_after_each_fault() {
        let faults = Faults::new(vec![(100, 200), (150, 180), (230, 240), (900, u64::MAX)]);
        assert_eq!(faults.over_by(10, 50), 60);
        assert_eq!(faults.over_by(60, 50), 290);
        assert_eq!(faults.over_by(860, 50), u64::MAX);
        assert_eq!(faults.since(50, 50), 0);
        assert_eq!(faults.since(280, 50), 50);
        assert_eq!(faults.since(700, 50), 650);
        assert!(faults.follows(90, 10) && faults.follows(235, 0) && !faults.follows(300, 10));
    }
}
