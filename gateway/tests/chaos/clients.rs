//! Buyers and an operator: what they do follows from the seed, and from what they were told.

use std::sync::Arc;

use loadtest::history::Action;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::time::{Duration, Instant, sleep};

use crate::market::{Market, Seen, Wish};

/// One buyer's client, with a handful of identities, until the time is over.
pub async fn buyer(market: Arc<Market>, client: u32, seed: u64, until: Instant, early: bool) {
    let mut random = SmallRng::seed_from_u64(seed ^ (u64::from(client) << 32));
    let mut sent: Vec<(Wish, Option<String>)> = Vec::new();
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let front = random.random_range(0..8);
        let pick = match sent.len() {
            0 => None,
            // Recent ones: their answers, and what they brought, are still on the way.
            some => Some(random.random_range(some.saturating_sub(5)..some)),
        };
        let dice = random.random_range(0..100);
        match (dice, pick) {
            (0..40, Some(at)) => {
                let (wish, order) = sent[at].clone();
                let seen = match (dice, order) {
                    (0..7, Some(order)) => {
                        market
                            .about(client, front, Action::Cancel, &wish.buyer, &order)
                            .await
                    }
                    (7..13, Some(order)) => market.pay(client, front, &wish, &order, number).await,
                    (13..20, Some(order)) => {
                        market
                            .about(client, front, Action::Poll, &wish.buyer, &order)
                            .await
                    }
                    (20..24, _) => market.poll(client, front, &wish).await,
                    (24..28, _) => {
                        // Other content under the same key: a conflict, or a purchase if the first never was one.
                        let other = Wish {
                            units: 3 - wish.units,
                            ..wish
                        };
                        market.buy(client, front, &other).await
                    }
                    // Twice at once, through different nodes: duplicate delivery.
                    (28..32, _) => {
                        let both = (market.buy(client, 0, &wish), market.buy(client, 1, &wish));
                        tokio::join!(both.0, both.1).0
                    }
                    _ => market.buy(client, front, &wish).await,
                };
                if let (20.., Seen::Order(order)) = (dice, seen) {
                    sent[at].1 = Some(order);
                }
            }
            _ => {
                let wish = Wish {
                    buyer: format!("buyer-{client}-{}", random.random_range(0..40)),
                    request: format!("request-{client}-{number}"),
                    units: random.random_range(1..=2),
                };
                let mut seen = market.buy(client, front, &wish).await;
                // Whoever hears nothing asks again, with the same key, elsewhere.
                if seen == Seen::Unknown && random.random_ratio(1, 2) {
                    seen = market.buy(client, front + 1, &wish).await;
                }
                let order = match seen {
                    Seen::Order(order) => Some(order),
                    _ => None,
                };
                sent.push((wish, order));
            }
        }
        let pause = if early { 60 } else { 30 };
        sleep(Duration::from_millis(random.random_range(1..pause))).await;
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
                market
                    .operate(client, admin, Action::Restock, Some((restocks, units)))
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
