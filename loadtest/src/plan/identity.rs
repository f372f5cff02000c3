//! Everything that follows from the seed and a number: who a purchase belongs to, its keys, and the choices made for it.
//!
//! Purchases are numbered: those of bots first (`0 .. bots × burst`), then those of buyers in order of arrival.

use crate::plan::Plan;
use crate::scenario::Scenario;

/// What a hash is for; one number never decides two things.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(super) enum Choice {
    Sku = 1,
    Path,
    Retry,
    RetryConcurrent,
    RetryDelay,
    Pay,
    Decline,
    PayDelay,
    Poisson,
    Cart,
}

/// Numbers → identities, request ids and choices.
#[derive(Clone, Debug)]
pub struct Identities {
    seed: u64,
    run: u64,
    purchases: u32,
    bot_purchases: u32,
    bots: u32,
    buyers: u32,
    skus: u32,
    cart_percent: f64,
    cart_skus: u32,
    pay_percent: f64,
    decline_percent: f64,
    pay_delay_ns: u64,
    pay_spread_ns: u64,
}

impl Identities {
    /// The identities of a scenario.
    pub fn new(s: &Scenario) -> Identities {
        let plan = Plan::new(s);
        let pay = s.pay.as_ref();
        Identities {
            seed: s.seed,
            run: mix(s.seed ^ 0x7065_6e73_746f_636b),
            purchases: plan.purchases(),
            bot_purchases: plan.bot_purchases,
            bots: s.bots.count,
            buyers: s.buyers.count.max(1),
            skus: s.sale.as_ref().map_or(1, |sale| sale.skus.len().max(1)) as u32,
            cart_percent: s.sale.as_ref().map_or(0.0, |sale| sale.cart_percent),
            cart_skus: s.sale.as_ref().map_or(1, |sale| sale.cart_skus) as u32,
            pay_percent: pay.map_or(0.0, |pay| pay.share_percent),
            decline_percent: pay.map_or(0.0, |pay| pay.decline_percent),
            pay_delay_ns: pay.map_or(0, |pay| pay.delay.as_nanos() as u64),
            pay_spread_ns: pay.map_or(0, |pay| pay.delay_spread.as_nanos() as u64),
        }
    }

    /// Purchases in the plan.
    pub fn purchases(&self) -> u32 {
        self.purchases
    }

    /// The buyer of a purchase; buyers count from 0, bots come after them.
    pub fn buyer_of(&self, purchase: u32) -> u32 {
        if purchase < self.bot_purchases {
            self.buyers + purchase % self.bots.max(1)
        } else {
            (purchase - self.bot_purchases) % self.buyers
        }
    }

    /// The 64-bit name of a buyer, distinct for distinct buyers.
    pub fn buyer_name(&self, buyer: u32) -> u64 {
        // Mixing is a bijection of 64-bit numbers, so distinct buyers stay distinct under one seed.
        mix(self.run.wrapping_add(u64::from(buyer)))
    }

    /// The buyer's id in headers and in the ledger.
    pub(crate) fn buyer_id(&self, purchase: u32) -> String {
        format!("buyer-{:016x}", self.buyer_name(self.buyer_of(purchase)))
    }

    /// The client address a buyer claims, when the scenario has an address header: one of 16 million in 10/8.
    pub fn address(&self, buyer: u32) -> [u8; 4] {
        let [_, a, b, c] = buyer.to_be_bytes();
        [10, a, b, c]
    }

    /// The 64-bit name of this run, the first part of every request id.
    pub fn run_name(&self) -> u64 {
        self.run
    }

    /// The request id (`Idempotency-Key`) of a purchase.
    pub fn request_id(&self, purchase: u32) -> String {
        format!("lt-{:016x}-{purchase:08x}", self.run)
    }

    /// The purchase a request id belongs to, if it is one of this run.
    pub fn purchase_of(&self, request_id: &str) -> Option<u32> {
        let (run, purchase) = request_id.strip_prefix("lt-")?.split_once('-')?;
        if run.len() != 16 || purchase.len() != 8 || u64::from_str_radix(run, 16) != Ok(self.run) {
            return None;
        }
        let purchase = u32::from_str_radix(purchase, 16).ok()?;
        (purchase < self.purchases).then_some(purchase)
    }

    /// Which of the sale's skus a purchase takes.
    pub fn sku_of(&self, purchase: u32) -> usize {
        (hash(self.seed, Choice::Sku, purchase.into()) % u64::from(self.skus)) as usize
    }

    /// Whether a purchase is a cart.
    pub fn is_cart(&self, purchase: u32) -> bool {
        percent(self.seed, Choice::Cart, purchase.into(), self.cart_percent)
    }

    /// All skus that a purchase takes, in the order of its lines.
    pub fn skus_of(&self, purchase: u32) -> impl Iterator<Item = usize> + use<> {
        let (first, skus) = (self.sku_of(purchase), self.skus as usize);
        let lines = match self.is_cart(purchase) {
            true => self.cart_skus as usize,
            false => 1,
        };
        (first..first + lines).map(move |sku| sku % skus)
    }

    /// Whether the order of this purchase is paid; the others are abandoned, those of carts among them.
    pub fn pays(&self, purchase: u32) -> bool {
        !self.is_cart(purchase)
            && percent(self.seed, Choice::Pay, purchase.into(), self.pay_percent)
    }

    /// Whether its payment uses a card that is declined.
    pub fn declines(&self, purchase: u32) -> bool {
        percent(
            self.seed,
            Choice::Decline,
            purchase.into(),
            self.decline_percent,
        )
    }

    /// How long after its order the payment starts.
    pub fn pay_delay_ns(&self, purchase: u32) -> u64 {
        let spread = unit(hash(self.seed, Choice::PayDelay, purchase.into()));
        self.pay_delay_ns + (spread * self.pay_spread_ns as f64) as u64
    }
}

/// A bijective mixer (the finaliser of splitmix64).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The random number of one choice about one thing.
pub(super) fn hash(seed: u64, choice: Choice, number: u64) -> u64 {
    mix(mix(seed ^ mix(choice as u64)).wrapping_add(number))
}

/// A hash as a number in [0, 1).
pub(super) fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// Whether a thing falls within a percentage.
pub(super) fn percent(seed: u64, choice: Choice, number: u64, percent: f64) -> bool {
    unit(hash(seed, choice, number)) * 100.0 < percent
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::scenario::{Sale, Shape};

    fn identities(seed: u64) -> Identities {
        let mut s = Scenario::new(
            "http://127.0.0.1:1",
            Shape::Constant {
                rate: 5000.0,
                duration: Duration::from_secs(1),
            },
        );
        s.seed = seed;
        s.sale = Some(Sale {
            id: "s".into(),
            skus: vec!["a".into(), "b".into()],
            ..Sale::default()
        });
        s.bots.count = 3;
        s.bots.burst = 10;
        Identities::new(&s)
    }

    #[test]
    fn request_ids_read_back_and_those_of_another_run_do_not() {
        let (mine, other) = (identities(1), identities(2));
        for purchase in [0, 1, 29, 30, 4_999] {
            let id = mine.request_id(purchase);
            assert_eq!(mine.purchase_of(&id), Some(purchase));
            assert_eq!(other.purchase_of(&id), None);
        }
        for strange in [
            "",
            "lt-",
            "lt-1-2",
            "a key of somebody else",
            "lt-+00000000000000-00000000",
        ] {
            assert_eq!(mine.purchase_of(strange), None);
        }
    }

    #[test]
    fn buyers_and_bots_are_distinct_people() {
        let ids = identities(7);
        let names: HashSet<u64> = (0..ids.purchases())
            .map(|purchase| ids.buyer_name(ids.buyer_of(purchase)))
            .collect();
        assert_eq!(names.len(), 1000 + 3);
    }

    #[test]
    fn a_share_of_the_purchases_are_carts_of_skus_that_follow_each_other() {
        let mut ids = identities(7);
        (ids.cart_percent, ids.cart_skus, ids.skus) = (40.0, 3, 4);
        let carts = (0..1000).filter(|p| ids.is_cart(*p)).count();
        assert!((350..450).contains(&carts), "{carts}");
        for purchase in 0..1000 {
            let skus: Vec<usize> = ids.skus_of(purchase).collect();
            assert_eq!(skus.len(), if ids.is_cart(purchase) { 3 } else { 1 });
            assert_eq!(skus[0], ids.sku_of(purchase));
            assert!(skus.windows(2).all(|two| two[1] == (two[0] + 1) % 4));
        }
    }

    #[test]
    fn both_skus_are_bought() {
        let ids = identities(7);
        let first = (0..1000).filter(|p| ids.sku_of(*p) == 0).count();
        assert!((400..600).contains(&first), "{first}");
    }
}
