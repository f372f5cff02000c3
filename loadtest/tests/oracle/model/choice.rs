//! What a client of the model does next.

use loadtest::history::Action;
use loadtest::history::event::Invoke;

use super::{Model, SKUS, Sent};
use crate::oracle::tale::SALE;

impl Model {
    /// What a client does next. Client 0 is the operator as well.
    pub(super) fn choose(&mut self, client: usize) -> Invoke {
        let dice = self.random.below(100);
        // A sale that stays paused shows nothing more.
        let is_last = self.clients[client].steps == 0;
        if client == 0 && self.is_paused && (is_last || self.random.percent(50)) {
            return Invoke::new(Action::Resume, SALE);
        }
        if client == 0 && dice < 20 {
            return self.operate(dice);
        }
        let earlier = self.clients[client].sent.len() as u64;
        if earlier > 0 && dice < 72 {
            let pick = self.random.below(earlier.min(5));
            let at = (earlier - 1 - pick) as usize;
            let Sent { invoke, orders } = self.clients[client].sent[at].clone();
            let order = match orders.len() as u64 {
                0 => None,
                some => Some(orders[self.random.below(some) as usize].clone()),
            };
            let about = |f: Action| Invoke {
                order: order.clone().unwrap_or_default(),
                buyer: invoke.buyer.clone(),
                ..Invoke::new(f, SALE)
            };
            match (dice, &order) {
                // The whole cart, or one order of it.
                (0..14, _) if invoke.f == Action::CartBuy && self.random.percent(50) => {
                    return Invoke {
                        f: Action::Cancel,
                        token: String::new(),
                        ..invoke
                    };
                }
                (0..14, Some(_)) => return about(Action::Cancel),
                (14..28, Some(_)) => return about(Action::Pay),
                (28..36, Some(_)) => return about(Action::Poll),
                (36..40, _) => {
                    return Invoke {
                        f: asking(&invoke),
                        token: String::new(),
                        ..invoke
                    };
                }
                (40..50, _) => {
                    let mut other = invoke;
                    other.lines[0].1 = 3 - other.lines[0].1;
                    return other;
                }
                _ => return invoke,
            }
        }
        self.new_wish(client)
    }

    pub(super) fn operate(&mut self, dice: u64) -> Invoke {
        match dice {
            0..8 => {
                let again = self.restocks.len() as u64;
                let id = self.random.below(again + 2).min(again);
                Invoke {
                    request: format!("restock-{id}"),
                    lines: vec![(SKUS[(id % 2) as usize].into(), 1 + id % 3)],
                    ..Invoke::new(Action::Restock, SALE)
                }
            }
            8..14 => Invoke::new(Action::Pause, SALE),
            _ => Invoke::new(Action::Resume, SALE),
        }
    }

    pub(super) fn new_wish(&mut self, client: usize) -> Invoke {
        let number = self.clients[client].sent.len();
        // A few buyers with several requests each, so that the limit is met.
        let buyer = format!("buyer-{client}-{}", self.random.below(5));
        let sku = usize::from(self.random.percent(75));
        let units = 1 + self.random.below(2);
        let is_cart = self.random.percent(25);
        let mut lines = vec![(SKUS[sku].to_owned(), units)];
        if is_cart {
            lines.push((SKUS[1 - sku].to_owned(), 1));
        }
        let token = match self.random.percent(30) {
            true => format!("token-{client}-{}", number / 4),
            false => String::new(),
        };
        let invoke = Invoke {
            buyer,
            request: format!("request-{client}-{number}"),
            lines,
            token,
            ..Invoke::new(
                if is_cart {
                    Action::CartBuy
                } else {
                    Action::Buy
                },
                SALE,
            )
        };
        self.clients[client].sent.push(Sent {
            invoke: invoke.clone(),
            orders: Vec::new(),
        });
        invoke
    }
}

/// How to ask what became of a purchase.
pub(super) fn asking(sent: &Invoke) -> Action {
    match sent.f {
        Action::CartBuy => Action::CartPoll,
        _ => Action::Poll,
    }
}
