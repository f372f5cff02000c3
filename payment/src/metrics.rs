//! Every metric of this crate. Each is resolved once and is there at zero before the first payment.

use std::{collections::HashMap, time::Duration};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::money::{Currency, Money};

/// How one charge ended, as `penstock_payment_attempts_total` has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttemptOutcome {
    Succeeded,
    Declined,
    /// The channel did not answer in time.
    Unknown,
    /// The channel was not asked: its breaker is open.
    Error,
}

/// What one channel does.
pub(crate) struct ChannelMetrics {
    succeeded: Counter,
    declined: Counter,
    unknown: Counter,
    error: Counter,
    duration: Histogram,
}

impl ChannelMetrics {
    pub(crate) fn new(channel: &'static str) -> Self {
        let attempts = |outcome: &'static str| {
            zeroed(
                counter!("penstock_payment_attempts_total", "channel" => channel, "outcome" => outcome),
            )
        };
        Self {
            succeeded: attempts("succeeded"),
            declined: attempts("declined"),
            unknown: attempts("unknown"),
            error: attempts("error"),
            duration: histogram!("penstock_payment_duration_seconds", "channel" => channel),
        }
    }

    pub(crate) fn attempt(&self, outcome: AttemptOutcome) {
        let counter = match outcome {
            AttemptOutcome::Succeeded => &self.succeeded,
            AttemptOutcome::Declined => &self.declined,
            AttemptOutcome::Unknown => &self.unknown,
            AttemptOutcome::Error => &self.error,
        };
        counter.increment(1);
    }

    pub(crate) fn charge_took(&self, time: Duration) {
        self.duration.record(time.as_secs_f64());
    }
}

/// What all payments do.
pub(crate) struct Metrics {
    amounts: HashMap<Currency, Counter>,
    pub(crate) idempotent_replays: Counter,
    /// Charges whose outcome is not known. Set by every pass of the resolver, moved in between.
    pub(crate) in_doubt: Gauge,
    pub(crate) late_refunds: Counter,
}

impl Metrics {
    pub(crate) fn new(currencies: &[Currency]) -> Self {
        let amounts = currencies.iter().map(|currency| {
            let counter =
                counter!("penstock_payment_amount_minor_total", "currency" => currency.code());
            (*currency, zeroed(counter))
        });
        let in_doubt = gauge!("penstock_payment_in_doubt");
        in_doubt.set(0.0);
        Self {
            amounts: amounts.collect(),
            idempotent_replays: zeroed(counter!("penstock_payment_idempotent_replays_total")),
            in_doubt,
            late_refunds: zeroed(counter!("penstock_payment_late_refunds_total")),
        }
    }

    /// Money posted and kept.
    pub(crate) fn paid(&self, amount: Money) {
        if let Some(counter) = self.amounts.get(&amount.currency()) {
            counter.increment(amount.minor().unsigned_abs());
        }
    }
}

fn zeroed(counter: Counter) -> Counter {
    counter.increment(0);
    counter
}
