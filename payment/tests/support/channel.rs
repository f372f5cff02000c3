//! A channel that does as it is told and remembers what it was asked.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use async_trait::async_trait;
use payment::channels::{Channel, ChannelOutcome, ChargeRequest, RefundRequest, Refusal};
use tokio::sync::Semaphore;

/// What the channel does with a question.
#[derive(Clone, Debug)]
pub enum Next {
    Succeed,
    Decline,
    /// Says nothing; a charge took no money.
    Silent,
    /// Says nothing, but took the money.
    TakeSilently,
    /// The process dies while it waits for the answer; the money is taken.
    Die,
}

#[derive(Default)]
struct Seen {
    charges: HashMap<String, u32>,
    queries: u32,
    refunds: HashMap<String, u32>,
    taken: HashMap<String, i64>,
    plan: VecDeque<Next>,
    refund_plan: VecDeque<Next>,
}

pub struct ScriptedChannel {
    name: &'static str,
    seen: Mutex<Seen>,
    /// A charge goes on only while this has a permit.
    gate: Semaphore,
}

impl Default for ScriptedChannel {
    fn default() -> Self {
        Self::named("simulator")
    }
}

impl ScriptedChannel {
    pub fn named(name: &'static str) -> Self {
        Self {
            name,
            seen: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }

    /// What the next charges and queries do, in order; after that all succeed.
    pub fn plan(&self, next: impl IntoIterator<Item = Next>) {
        self.seen.lock().unwrap().plan.extend(next);
    }

    /// The same for refunds.
    pub fn plan_refunds(&self, next: impl IntoIterator<Item = Next>) {
        self.seen.lock().unwrap().refund_plan.extend(next);
    }

    /// Charges wait from now on.
    pub fn close(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Charges go on.
    pub fn open(&self) {
        self.gate.add_permits(1_000);
    }

    /// How often a charge was asked for.
    pub fn charges(&self) -> u32 {
        self.seen.lock().unwrap().charges.values().sum()
    }

    /// How often it was asked what became of a charge.
    pub fn queries(&self) -> u32 {
        self.seen.lock().unwrap().queries
    }

    /// How often money was given back.
    pub fn refunds(&self) -> u32 {
        self.seen.lock().unwrap().refunds.values().sum()
    }

    /// All the money this channel has, in minor units.
    pub fn holds(&self) -> i64 {
        self.seen.lock().unwrap().taken.values().sum()
    }
}

#[async_trait]
impl Channel for ScriptedChannel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn accepts(&self, payment_method: &str) -> bool {
        payment_method.starts_with("pm_card_")
    }

    async fn charge(&self, request: &ChargeRequest) -> ChannelOutcome {
        let reference = request.reference.clone();
        {
            let mut seen = self.seen.lock().unwrap();
            *seen.charges.entry(reference.clone()).or_default() += 1;
        }
        let _permit = self.gate.acquire().await.unwrap();
        let mut seen = self.seen.lock().unwrap();
        match seen.plan.pop_front().unwrap_or(Next::Succeed) {
            Next::Succeed => {
                seen.taken.insert(reference, request.amount.minor());
                ChannelOutcome::Succeeded
            }
            Next::Decline => declined(),
            Next::Silent => ChannelOutcome::Unknown,
            Next::TakeSilently => {
                seen.taken.insert(reference, request.amount.minor());
                ChannelOutcome::Unknown
            }
            Next::Die => {
                seen.taken.insert(reference, request.amount.minor());
                drop(seen);
                panic!("the process dies here, as planned");
            }
        }
    }

    async fn query(&self, request: &ChargeRequest) -> ChannelOutcome {
        let mut seen = self.seen.lock().unwrap();
        seen.queries += 1;
        match seen.plan.pop_front() {
            Some(Next::Silent) => ChannelOutcome::Unknown,
            Some(Next::Decline) => declined(),
            _ if seen.taken.contains_key(&request.reference) => ChannelOutcome::Succeeded,
            _ => declined(),
        }
    }

    async fn refund(&self, request: &RefundRequest) -> ChannelOutcome {
        let mut seen = self.seen.lock().unwrap();
        if matches!(seen.refund_plan.pop_front(), Some(Next::Silent)) {
            return ChannelOutcome::Unknown;
        }
        let times = seen.refunds.entry(request.reference.clone()).or_default();
        *times += 1;
        if *times == 1 {
            *seen.taken.entry(request.charge.clone()).or_default() -= request.amount.minor();
        }
        ChannelOutcome::Succeeded
    }
}

fn declined() -> ChannelOutcome {
    ChannelOutcome::Declined(Refusal {
        code: Cow::Borrowed("card_declined"),
        decline_code: Some(Cow::Borrowed("generic_decline")),
        message: Cow::Borrowed("Your card was declined."),
    })
}
