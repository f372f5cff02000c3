//! A channel that moves no money: Stripe's test tokens, with latency, declines and lost answers drawn from a seed.
//!
//! It remembers nothing. What becomes of a charge is a function of the seed, the reference and the token, so it gives the same
//! answer after a restart, as the outside world would, and the same run again for the same seed.

mod tokens;

use std::time::Duration;

use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};

use self::tokens::{Fate, GENERIC, NEVER_SEEN, Token, token};
use super::{Channel, ChannelOutcome, ChargeRequest, RefundRequest};

/// How the simulator behaves. Tokens with a fixed outcome keep it whatever the percentages say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatorConfig {
    /// Mean time to an answer; a single answer takes between half and one and a half times as long.
    pub latency: Duration,
    /// Everything random follows from it.
    pub seed: u64,
    /// Share of charges declined, 0 to 100.
    pub decline_percent: u8,
    /// Share of charges whose answer is lost, 0 to 100. Half of those took the money.
    pub unknown_percent: u8,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            // About what card networks take at their best.
            latency: Duration::from_millis(50),
            seed: 0,
            decline_percent: 0,
            unknown_percent: 0,
        }
    }
}

/// The channel without money behind it.
#[derive(Clone, Debug)]
pub struct Simulator {
    config: SimulatorConfig,
}

impl Simulator {
    /// A simulator that behaves as `config` says.
    pub fn new(config: SimulatorConfig) -> Self {
        Self { config }
    }

    fn fate(&self, request: &ChargeRequest) -> Fate {
        match token(&request.payment_method) {
            Some(Token::Fixed(fate)) => fate,
            Some(Token::Works) => self.draw(&request.reference),
            None => Fate::Declined(&GENERIC),
        }
    }

    fn draw(&self, reference: &str) -> Fate {
        let mut rng = self.rng("fate", reference);
        let declined = rng.random_range(0..100) < self.config.decline_percent;
        if rng.random_range(0..100) < self.config.unknown_percent {
            return if rng.random::<bool>() {
                Fate::AnswerLost
            } else {
                Fate::RequestLost
            };
        }
        match declined {
            true => Fate::Declined(&GENERIC),
            false => Fate::Succeeds,
        }
    }

    async fn answer_takes(&self, what: &str, reference: &str) {
        if !self.config.latency.is_zero() {
            let share = self.rng(what, reference).random_range(0.5..1.5);
            tokio::time::sleep(self.config.latency.mul_f64(share)).await;
        }
    }

    fn rng(&self, what: &str, reference: &str) -> StdRng {
        // FNV-1a, spelt out because its value must not change between releases as std's hasher may.
        let hash = what
            .bytes()
            .chain(reference.bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        StdRng::seed_from_u64(hash ^ self.config.seed)
    }
}

#[async_trait]
impl Channel for Simulator {
    fn name(&self) -> &'static str {
        "simulator"
    }

    fn accepts(&self, payment_method: &str) -> bool {
        token(payment_method).is_some()
    }

    async fn charge(&self, request: &ChargeRequest) -> ChannelOutcome {
        self.answer_takes("charge", &request.reference).await;
        match self.fate(request) {
            Fate::Succeeds => ChannelOutcome::Succeeded,
            Fate::Declined(why) => ChannelOutcome::Declined(why.clone()),
            Fate::AnswerLost | Fate::RequestLost => ChannelOutcome::Unknown,
        }
    }

    async fn query(&self, request: &ChargeRequest) -> ChannelOutcome {
        self.answer_takes("query", &request.reference).await;
        match self.fate(request) {
            Fate::Succeeds | Fate::AnswerLost => ChannelOutcome::Succeeded,
            Fate::Declined(why) => ChannelOutcome::Declined(why.clone()),
            Fate::RequestLost => ChannelOutcome::Declined(NEVER_SEEN.clone()),
        }
    }

    async fn refund(&self, request: &RefundRequest) -> ChannelOutcome {
        self.answer_takes("refund", &request.reference).await;
        ChannelOutcome::Succeeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::{Currency, Money};

    fn request(reference: &str, payment_method: &str) -> ChargeRequest {
        ChargeRequest {
            reference: reference.to_owned(),
            amount: Money::try_new(100, Currency::from_code("usd").unwrap()).unwrap(),
            payment_method: payment_method.to_owned(),
        }
    }

    fn simulator(decline_percent: u8, unknown_percent: u8) -> Simulator {
        Simulator::new(SimulatorConfig {
            latency: Duration::ZERO,
            seed: 42,
            decline_percent,
            unknown_percent,
        })
    }

    #[tokio::test]
    async fn fixed_tokens_have_their_outcome() {
        let channel = simulator(0, 0);
        let code = async |method| match channel.charge(&request("ch_1", method)).await {
            ChannelOutcome::Declined(why) => why.code.into_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(code("pm_card_visa").await, "Succeeded");
        assert_eq!(code("pm_card_chargeDeclined").await, "card_declined");
        assert_eq!(code("pm_card_visa_chargeDeclined").await, "card_declined");
        assert_eq!(
            code("pm_card_chargeDeclinedExpiredCard").await,
            "expired_card"
        );
        assert_eq!(code("pm_card_answerLost").await, "Unknown");
        assert!(!channel.accepts("pm_card_nobody"));
        assert!(!channel.accepts("4242424242424242"));
    }

    #[tokio::test]
    async fn a_lost_answer_is_found_by_asking_and_a_lost_request_is_closed() {
        let channel = simulator(0, 0);
        let lost = channel.query(&request("ch_1", "pm_card_answerLost")).await;
        assert_eq!(lost, ChannelOutcome::Succeeded);
        let never = channel.query(&request("ch_1", "pm_card_requestLost")).await;
        assert_eq!(never, ChannelOutcome::Declined(NEVER_SEEN.clone()));
    }

    #[tokio::test]
    async fn outcomes_repeat_for_one_seed_and_follow_the_percentages() {
        let (one, two) = (simulator(30, 20), simulator(30, 20));
        let (mut declined, mut unknown) = (0, 0);
        for n in 0..1000 {
            let request = request(&format!("ch_{n}"), "pm_card_visa");
            let outcome = one.charge(&request).await;
            assert_eq!(outcome, two.charge(&request).await);
            match outcome {
                ChannelOutcome::Declined(_) => declined += 1,
                ChannelOutcome::Unknown => unknown += 1,
                ChannelOutcome::Succeeded => {
                    assert_eq!(one.query(&request).await, ChannelOutcome::Succeeded);
                }
            }
        }
        assert!((190..290).contains(&declined), "{declined}");
        assert!((150..250).contains(&unknown), "{unknown}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_takes_between_half_and_one_and_a_half_latencies() {
        let channel = Simulator::new(SimulatorConfig {
            latency: Duration::from_millis(100),
            ..SimulatorConfig::default()
        });
        let start = tokio::time::Instant::now();
        channel.charge(&request("ch_1", "pm_card_visa")).await;
        let took = start.elapsed();
        assert!((50..=150).contains(&took.as_millis()), "{took:?}");
    }
}
