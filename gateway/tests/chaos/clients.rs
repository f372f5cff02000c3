//! Buyers and an operator: what they do follows from the seed, and from what they were told.

use std::sync::Arc;

use loadtest::history::Action;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::time::{Duration, Instant, sleep};

use crate::market::{Held, Market, Purchase, Seen};

/// A purchase that a client has sent, and the orders that it has heard of.
struct Sent {
    purchase: Purchase,
    orders: Vec<Held>,
}

struct Buyer {
    market: Arc<Market>,
    client: u32,
    random: SmallRng,
    sent: Vec<Sent>,
    number: u64,
}

/// One buyer's client, with a handful of identities, until the time is over. `only_buys`: it returns and pays nothing.
pub async fn buyer(
    market: Arc<Market>,
    client: u32,
    seed: u64,
    until: Instant,
    early: bool,
    only_buys: bool,
) {
    let mut buyer = Buyer {
        market,
        client,
        random: SmallRng::seed_from_u64(seed ^ (u64::from(client) << 32)),
        sent: Vec::new(),
        number: 0,
    };
    while Instant::now() < until {
        buyer.number += 1;
        let front = buyer.random.random_range(0..8);
        let pick = match buyer.sent.len() {
            0 => None,
            // Recent ones: their answers, and what they brought, are still on the way.
            some => Some(buyer.random.random_range(some.saturating_sub(5)..some)),
        };
        let dice = buyer
            .random
            .random_range(if only_buys { 13 } else { 0 }..100);
        match (dice, pick) {
            (0..40, Some(at)) => buyer.come_back(at, dice, front).await,
            _ => buyer.ask_for_more(front).await,
        }
        let pause = if early { 60 } else { 30 };
        let pause = buyer.random.random_range(1..pause);
        sleep(Duration::from_millis(pause)).await;
    }
}

impl Buyer {
    /// Does something about an earlier purchase.
    async fn come_back(&mut self, at: usize, dice: u32, front: usize) {
        let (market, client) = (Arc::clone(&self.market), self.client);
        let Sent { purchase, orders } = &self.sent[at];
        let purchase = purchase.clone();
        let held = match orders.len() {
            0 => None,
            // One line of a cart lives for itself.
            some => Some(orders[self.random.random_range(0..some)].clone()),
        };
        let seen = match (dice, held) {
            // The whole cart, known or not; or one order.
            (0..7, _) if purchase.is_cart && dice < 4 => {
                market.give_back(client, front, &purchase).await
            }
            (0..7, Some(held)) => {
                let (buyer, order) = (&purchase.buyer, &held.order);
                market
                    .about(client, front, Action::Cancel, buyer, order)
                    .await
            }
            (7..13, Some(held)) => {
                let number = self.number;
                market
                    .pay(client, front, &purchase.buyer, &held, number)
                    .await
            }
            (13..20, Some(held)) => {
                let (buyer, order) = (&purchase.buyer, &held.order);
                market
                    .about(client, front, Action::Poll, buyer, order)
                    .await
            }
            (20..24, _) => market.poll(client, front, &purchase).await,
            (24..28, _) => {
                let other = purchase.altered(&mut self.random);
                market.buy(client, front, &other).await
            }
            // Twice at once, through different nodes: duplicate delivery.
            (28..32, _) => {
                let both = (
                    market.buy(client, 0, &purchase),
                    market.buy(client, 1, &purchase),
                );
                tokio::join!(both.0, both.1).0
            }
            (32..34, _) if purchase.is_cart => {
                market.buy(client, front, &purchase.reworded()).await
            }
            _ => market.buy(client, front, &purchase).await,
        };
        if let (20.., Seen::Done(orders)) = (dice, seen) {
            self.sent[at].orders = orders;
        }
    }

    async fn ask_for_more(&mut self, front: usize) {
        let (market, client) = (Arc::clone(&self.market), self.client);
        let purchase = Purchase::new(&market.goods, &mut self.random, client, self.number);
        let mut seen = market.buy(client, front, &purchase).await;
        // A client that hears nothing asks again, with the same key, elsewhere.
        if seen == Seen::Unknown && self.random.random_ratio(1, 2) {
            seen = market.buy(client, front + 1, &purchase).await;
        }
        let orders = match seen {
            Seen::Done(orders) => orders,
            _ => Vec::new(),
        };
        self.sent.push(Sent { purchase, orders });
    }
}

/// Adds units, pauses and resumes, now and then.
pub async fn operator(market: Arc<Market>, client: u32, seed: u64, until: Instant) {
    let mut random = SmallRng::seed_from_u64(!seed);
    let mut restocks = 0;
    while Instant::now() < until {
        sleep(Duration::from_millis(random.random_range(100..700))).await;
        let admin = random.random_range(0..8);
        match random.random_range(0..10) {
            0..4 => {
                // The one before again, now and then: it must not count twice.
                restocks += u64::from(restocks == 0 || random.random_ratio(2, 3));
                let units = 1 + restocks % 3;
                let skus = &market.goods.skus;
                let sku = skus[(restocks % skus.len() as u64) as usize].name;
                let restock = Some((restocks, sku, units));
                market
                    .operate(client, admin, Action::Restock, restock)
                    .await;
            }
            4..6 => {
                market.operate(client, admin, Action::Pause, None).await;
                sleep(Duration::from_millis(random.random_range(50..250))).await;
                market
                    .operate(client, admin + 1, Action::Resume, None)
                    .await;
            }
            _ => {}
        }
    }
}
