//! What a buyer asks for: made anew from the goods of the run, or changed to other content under the same key.

use rand::{Rng, rngs::SmallRng};

use super::tokens::{Token, Worth};
use crate::goods::{Goods, Kind};

/// A purchase as it was sent, to be sent again.
#[derive(Debug, Clone)]
pub struct Purchase {
    pub buyer: String,
    /// The idempotency key; in a sale for holders of tokens, what follows from the token.
    pub request: String,
    /// Skus and units; of a cart several, and one sku twice now and then.
    pub lines: Vec<(&'static str, u64)>,
    pub is_cart: bool,
    pub token: Option<Token>,
    /// A gateway that sells to it does wrong, whatever its books say.
    pub must_fail: bool,
}

impl Purchase {
    /// Something that a client has not asked for yet.
    pub fn new(goods: &Goods, random: &mut SmallRng, client: u32, number: u64) -> Purchase {
        let buyer = random.random_range(0..40);
        let mut purchase = Purchase {
            buyer: Goods::buyer(client, buyer),
            request: format!("request-{client}-{number}"),
            lines: vec![(goods.any_sku(random), random.random_range(1..=2))],
            is_cart: goods.kind == Kind::Carts && random.random_ratio(3, 4),
            token: None,
            must_fail: goods.blocks(buyer),
        };
        if purchase.is_cart {
            purchase.fill(goods, random);
        } else if goods.kind == Kind::Tokens {
            purchase.entitle(random, client, number);
        }
        purchase
    }

    /// One unit of a sku, for a buyer that nobody has seen.
    pub fn late(goods: &Goods, sku: &'static str, number: u64) -> Purchase {
        let buyer = format!("late-{sku}-{number}");
        let token = (goods.kind == Kind::Tokens)
            .then(|| Token::sign(&buyer, sku, format!("late-{number}"), Worth::Good));
        Purchase {
            request: match &token {
                Some(token) => token.request.clone(),
                None => "late".to_owned(),
            },
            buyer,
            lines: vec![(sku, 1)],
            is_cart: false,
            token,
            must_fail: false,
        }
    }

    /// One unit of every sku, as a cart.
    pub fn late_cart(goods: &Goods, number: u64) -> Purchase {
        Purchase {
            lines: goods.skus.iter().map(|sku| (sku.name, 1)).collect(),
            is_cart: true,
            request: "late-cart".to_owned(),
            ..Purchase::late(goods, "cart", number)
        }
    }

    /// More lines: all skus or two of them, and one twice now and then.
    fn fill(&mut self, goods: &Goods, random: &mut SmallRng) {
        let most = random.random_range(2..=goods.skus.len());
        for sku in &goods.skus {
            if self.lines.len() < most && self.lines[0].0 != sku.name {
                self.lines.push((sku.name, random.random_range(1..=2)));
            }
        }
        if random.random_ratio(1, 5) {
            self.lines.push((self.lines[0].0, 1));
        }
    }

    /// A token: good, or good for nothing.
    fn entitle(&mut self, random: &mut SmallRng, client: u32, number: u64) {
        let id = format!("token-{client}-{number}");
        let (worth, owner) = match random.random_range(0..100) {
            0..70 => (Worth::Good, self.buyer.clone()),
            70..78 => (Worth::Ending, self.buyer.clone()),
            78..85 => (Worth::Expired, self.buyer.clone()),
            85..90 => (Worth::Forged, self.buyer.clone()),
            // None at all.
            90..93 => {
                self.must_fail = true;
                return;
            }
            _ => (Worth::Good, format!("owner-{client}")),
        };
        self.must_fail |= owner != self.buyer || matches!(worth, Worth::Expired | Worth::Forged);
        let token = Token::sign(&owner, self.lines[0].0, id, worth);
        self.request.clone_from(&token.request);
        self.token = Some(token);
    }

    /// The same in other words: the order of a cart's lines says nothing.
    pub fn reworded(mut self) -> Purchase {
        self.lines.reverse();
        self
    }

    /// Other content under the same key: a conflict, or a purchase if the first never was one. Of a cart a sku stays, so that both
    /// meet in one place.
    pub fn altered(mut self, random: &mut SmallRng) -> Purchase {
        match (self.is_cart, random.random_range(0..3)) {
            (true, 0) => self.lines.truncate(1),
            (true, 1) => {
                self.is_cart = false;
                self.lines.truncate(1);
            }
            _ => self.lines[0].1 = 3 - self.lines[0].1,
        }
        self
    }
}
