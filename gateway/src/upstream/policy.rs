//! The order in which a request tries the endpoints of an upstream. Pure: liveness is the caller's business.

use std::cell::Cell;

use super::ring::{Ring, Walk};
use crate::config;

/// How endpoints are chosen; shared by all cores.
#[derive(Clone, Debug)]
pub enum Policy {
    RoundRobin(Turns),
    /// By a hash of the request.
    RingHash(Ring),
}

/// Endpoints in an order in which every stretch holds each by its weight.
#[derive(Clone, Debug)]
pub struct Turns {
    order: Box<[u16]>,
    endpoints: usize,
}

/// One core's place in the turns.
#[derive(Debug, Default)]
pub struct Cursor(Cell<usize>);

/// The endpoints in the order of a request, each once.
#[derive(Debug)]
pub enum Candidates<'p> {
    /// From the cursor on.
    Turns {
        turns: &'p Turns,
        /// The next place to look at.
        at: usize,
        /// Places left to look at.
        left: usize,
        /// Endpoints already given.
        seen: u128,
    },
    /// From the hash on.
    Ring(Walk<'p>),
}

impl Policy {
    /// The policy of an upstream's configuration.
    pub fn new(upstream: &config::Upstream) -> Self {
        let endpoints: Vec<(&str, u32)> = upstream
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.address.as_str(), endpoint.weight))
            .collect();
        match upstream.policy {
            config::Policy::RoundRobin => {
                let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| *weight).collect();
                Self::RoundRobin(Turns::new(&weights))
            }
            config::Policy::RingHash(_) => Self::RingHash(Ring::new(&endpoints)),
        }
    }

    /// The candidates of a request. `hash` counts on a ring only, `cursor` in turns only.
    pub fn candidates(&self, hash: u64, cursor: &Cursor) -> Candidates<'_> {
        match self {
            Self::RingHash(ring) => Candidates::Ring(ring.walk(hash)),
            Self::RoundRobin(turns) => {
                let at = cursor.0.get() % turns.order.len().max(1);
                cursor.0.set(at + 1);
                Candidates::Turns {
                    turns,
                    at,
                    left: turns.order.len(),
                    seen: 0,
                }
            }
        }
    }
}

impl Turns {
    /// nginx's smooth weighted round-robin, run once for a whole period: in each turn everybody gains its weight, the richest
    /// goes and pays the sum.
    fn new(weights: &[u32]) -> Self {
        let sum: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        let mut credit = vec![0i64; weights.len()];
        let mut order = Vec::new();
        for _ in 0..sum {
            for (credit, weight) in credit.iter_mut().zip(weights) {
                *credit += i64::from(*weight);
            }
            let richest = (0..credit.len())
                .rev()
                .max_by_key(|at| credit[*at])
                .unwrap_or(0);
            credit[richest] -= sum;
            order.push(richest as u16);
        }
        Self {
            order: order.into(),
            endpoints: weights.len(),
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Self::Ring(walk) => walk.next(),
            Self::Turns {
                turns,
                at,
                left,
                seen,
            } => {
                while *left > 0 {
                    *left -= 1;
                    let endpoint = usize::from(turns.order[*at]);
                    *at = (*at + 1) % turns.order.len();
                    if *seen & 1 << endpoint == 0 {
                        *seen |= 1 << endpoint;
                        if seen.count_ones() as usize == turns.endpoints {
                            *left = 0;
                        }
                        return Some(endpoint);
                    }
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(weights: &[u32], requests: usize) -> Vec<usize> {
        let policy = Policy::RoundRobin(Turns::new(weights));
        let cursor = Cursor::default();
        (0..requests)
            .map(|_| policy.candidates(0, &cursor).next().unwrap())
            .collect()
    }

    #[test]
    fn turns_are_smooth() {
        assert_eq!(firsts(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(firsts(&[1, 1], 4), [0, 1, 0, 1]);
    }

    #[test]
    fn every_endpoint_is_a_candidate_once() {
        let policy = Policy::RoundRobin(Turns::new(&[3, 1, 2]));
        let cursor = Cursor::default();
        for _ in 0..12 {
            let mut all: Vec<usize> = policy.candidates(0, &cursor).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
    }
}
