//! One thread's arrivals in order of time: three streams computed on the fly and a heap for what follows from them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Plan;
use super::identity::{Choice, hash, percent, unit};

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A page of the shop; the number is the index of its path.
    Page,
    /// The first copy of a purchase; the number is the purchase.
    Buy,
    /// A further copy of a purchase, sent on purpose.
    BuyAgain,
    /// A payment for the order of a purchase.
    Pay,
    /// The question what became of a purchase that was answered "unknown".
    Poll,
}

/// One request to send. Ordered by the instant it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job {
    /// When it is due, from the start of the run. Latency counts from here.
    pub planned_ns: u64,
    /// Path index or purchase, by kind.
    pub number: u32,
    pub kind: Kind,
    /// How often this payment or poll was tried before.
    pub attempt: u8,
}

/// One thread's jobs in order of time.
#[derive(Debug)]
pub struct Schedule {
    plan: Plan,
    threads: u64,
    arrivals: Arrivals,
    warm_up: Stream,
    bots: Stream,
    heads: [Option<Job>; 3],
    later: BinaryHeap<Reverse<Job>>,
}

/// A stream of numbered arrivals of which this thread takes every `threads`-th.
#[derive(Debug)]
struct Stream {
    next: u64,
    end: u64,
}

/// The arrivals of the profile.
#[derive(Debug)]
struct Arrivals {
    stream: Stream,
    /// Random spacing: arrivals walked over so far and −ln(1 − share) reached, see [`Arrivals::share`].
    walked: u64,
    depth: f64,
    last_ns: u64,
}

impl Schedule {
    pub(super) fn new(plan: Plan, thread: u64, threads: u64) -> Schedule {
        let stream = |end| Stream { next: thread, end };
        let mut schedule = Schedule {
            arrivals: Arrivals {
                stream: stream(plan.arrivals),
                walked: 0,
                depth: 0.0,
                last_ns: 0,
            },
            warm_up: stream(plan.warm_up),
            bots: stream(plan.bot_purchases.into()),
            heads: [None; 3],
            later: BinaryHeap::new(),
            plan,
            threads,
        };
        schedule.heads = [
            schedule.next_arrival(),
            schedule.next_warm_up(),
            schedule.next_bot(),
        ];
        schedule
    }

    /// When the next job is due; `None` when nothing is left for now.
    pub fn next_due_ns(&self) -> Option<u64> {
        let heads = self.heads.iter().flatten().map(|job| job.planned_ns).min();
        let later = self.later.peek().map(|Reverse(job)| job.planned_ns);
        heads.into_iter().chain(later).min()
    }

    /// The next job, if it is due by `now_ns`.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<Job> {
        let head = (0..3)
            .filter_map(|at| self.heads[at].map(|job| (job, at)))
            .min();
        if let Some(Reverse(later)) = self.later.peek().copied()
            && head.is_none_or(|(job, _)| later < job)
        {
            if later.planned_ns > now_ns {
                return None;
            }
            self.later.pop();
            return Some(later);
        }
        let (job, at) = head.filter(|(job, _)| job.planned_ns <= now_ns)?;
        self.heads[at] = match at {
            0 => self.next_arrival(),
            1 => self.next_warm_up(),
            _ => self.next_bot(),
        };
        if at == 0 && job.kind == Kind::Buy {
            self.plan_copy(job);
        }
        Some(job)
    }

    /// Adds a job that follows from an answer: a payment, a poll.
    pub fn push(&mut self, job: Job) {
        self.later.push(Reverse(job));
    }

    /// Forgets everything that is not due yet.
    pub fn clear(&mut self) {
        self.heads = [None; 3];
        self.later.clear();
    }

    /// A share of the purchases is sent again on purpose, at the same instant or a little later.
    fn plan_copy(&mut self, first: Job) {
        let plan = &self.plan;
        let number = u64::from(first.number);
        if !percent(plan.seed, Choice::Retry, number, plan.retry_percent) {
            return;
        }
        let concurrent = percent(
            plan.seed,
            Choice::RetryConcurrent,
            number,
            plan.concurrent_percent,
        );
        let delay_ns = if concurrent {
            0
        } else {
            let share = unit(hash(plan.seed, Choice::RetryDelay, number));
            (share * plan.retry_within_ns as f64) as u64
        };
        self.push(Job {
            planned_ns: first.planned_ns + delay_ns,
            kind: Kind::BuyAgain,
            ..first
        });
    }

    fn next_arrival(&mut self) -> Option<Job> {
        let n = self.arrivals.stream.take(self.threads)?;
        let share = self.arrivals.share(&self.plan, n);
        let at_ns = self.plan.curve.at_ns(share).max(self.arrivals.last_ns);
        self.arrivals.last_ns = at_ns;
        let planned_ns = self.plan.t0_ns + at_ns;
        let pages = self.plan.pages_before(n);
        let is_page = self.plan.pages_before(n + 1) > pages;
        Some(if is_page {
            self.page(planned_ns, n)
        } else {
            Job {
                planned_ns,
                kind: Kind::Buy,
                number: self.plan.bot_purchases + (n - pages) as u32,
                attempt: 0,
            }
        })
    }

    fn next_warm_up(&mut self) -> Option<Job> {
        let n = self.warm_up.take(self.threads)?;
        let planned_ns = (n as f64 / self.plan.warm_up_rate * 1e9) as u64;
        Some(self.page(planned_ns, n))
    }

    fn next_bot(&mut self) -> Option<Job> {
        let n = self.bots.take(self.threads)?;
        let total = u128::from(self.plan.bot_purchases);
        let offset = u128::from(self.plan.bots_within_ns) * u128::from(n) / total;
        // Purchase n belongs to bot n mod bots, so the bots hammer side by side.
        debug_assert!(self.plan.bots > 0);
        Some(Job {
            planned_ns: self.plan.t0_ns + offset as u64,
            kind: Kind::Buy,
            number: n as u32,
            attempt: 0,
        })
    }

    fn page(&self, planned_ns: u64, n: u64) -> Job {
        let path = hash(self.plan.seed, Choice::Path, n) % u64::from(self.plan.paths);
        Job {
            planned_ns,
            kind: Kind::Page,
            number: path as u32,
            attempt: 0,
        }
    }
}

impl Stream {
    fn take(&mut self, step: u64) -> Option<u64> {
        let n = self.next;
        (n < self.end).then(|| {
            self.next += step;
            n
        })
    }
}

impl Arrivals {
    /// The share of all arrivals that has come with arrival `n`.
    ///
    /// Evenly: n / total. At random: given their number, the arrivals of a Poisson process are independent uniform
    /// shares, sorted. Sorted uniforms can be drawn one after the other: −ln(1 − share) grows by an exponential
    /// variable divided by the number of arrivals still to come. So the total stays exact and nothing is stored.
    fn share(&mut self, plan: &Plan, n: u64) -> f64 {
        if !plan.poisson {
            let total = match plan.curve {
                crate::scenario::Curve::Decay { .. } => plan.arrivals as f64,
                _ => plan.curve.total(),
            };
            return n as f64 / total;
        }
        // Every thread walks over the arrivals of all, so the plan does not depend on the number of threads.
        while self.walked <= n {
            let uniform = unit(hash(plan.seed, Choice::Poisson, self.walked));
            self.depth += -(-uniform).ln_1p() / (plan.arrivals - self.walked) as f64;
            self.walked += 1;
        }
        -(-self.depth).exp_m1()
    }
}
