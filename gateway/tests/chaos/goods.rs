//! What a run sells, decided from its seed: one hot sku, whole or cut into segments; several skus that are bought by the cart; or
//! a sale for holders of tokens.

use std::fmt;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::plan::LIMIT;

/// The one sale of a run.
pub const SALE: &str = "chaos";
/// Of one unit of whatever is sold.
pub const PRICE_MINOR: u64 = 100;
/// What the skus are called, in their order.
const SKUS: [&str; 3] = ["shoe", "sock", "lace"];
/// Identities of each client that are on the block list, if there is one: the first few.
const BLOCKED: usize = 2;
/// So that goods and faults do not follow from the same numbers.
const SALT: u64 = 0x9e37_79b9_7f4a_7c15;

/// What is special about what is sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One sku, in one place.
    Plain,
    /// One sku, cut into several segments.
    Segments,
    /// Several skus, bought one by one and by the cart.
    Carts,
    /// One sku for holders of tokens.
    Tokens,
}

/// Ten seeds in a row have every kind.
const KINDS: [Kind; 10] = [
    Kind::Segments,
    Kind::Carts,
    Kind::Tokens,
    Kind::Plain,
    Kind::Segments,
    Kind::Carts,
    Kind::Segments,
    Kind::Tokens,
    Kind::Carts,
    Kind::Plain,
];

/// One sku.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sku {
    pub name: &'static str,
    pub stock: u64,
}

/// What a run sells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goods {
    pub kind: Kind,
    pub skus: Vec<Sku>,
    pub segments: u64,
    /// Most units of one sku in one order.
    pub order_limit: Option<u64>,
    /// Some of the buyers are shut out.
    pub has_block_list: bool,
}

impl Goods {
    pub fn from_seed(seed: u64) -> Goods {
        let mut random = SmallRng::seed_from_u64(seed ^ SALT);
        // Shifted with every ten, so that each kind of goods meets each kind of fault.
        let kind = KINDS[((seed % 10 + seed / 10) % 10) as usize];
        let skus = match kind {
            Kind::Carts => random.random_range(2..=3),
            _ => 1,
        };
        // Far below the demand, so that overselling and underselling both show; and one above it.
        let stocks: &[u64] = match kind {
            // Fewer units than segments, a few in each, and many.
            Kind::Segments => &[1, 2, LIMIT, 5, 8, 17, 40],
            _ => &[1, 2, LIMIT - 1, LIMIT, LIMIT + 1, 12, 40, 2_000],
        };
        let segments: &[u64] = match kind {
            Kind::Segments => &[2, 4, 8],
            Kind::Tokens => &[1, 2],
            Kind::Plain | Kind::Carts => &[1],
        };
        let names = SKUS.iter().take(skus);
        Goods {
            kind,
            skus: names
                .map(|name| Sku {
                    name,
                    stock: stocks[random.random_range(0..stocks.len())],
                })
                .collect(),
            segments: segments[random.random_range(0..segments.len())],
            order_limit: random.random_ratio(1, 6).then_some(match kind {
                // What two lines of one sku come to together.
                Kind::Carts => 2,
                _ => 1,
            }),
            has_block_list: random.random_ratio(1, 4),
        }
    }

    /// One sku in one segment, so many units of it: for runs that are about something else.
    pub fn plain(stock: u64) -> Goods {
        Goods {
            kind: Kind::Plain,
            skus: vec![Sku {
                name: SKUS[0],
                stock,
            }],
            segments: 1,
            order_limit: None,
            has_block_list: false,
        }
    }

    /// So many units of each sku.
    pub fn stock_up(&mut self, stock: u64) {
        for sku in &mut self.skus {
            sku.stock = stock;
        }
    }

    /// The sale as the admin API takes it.
    pub fn document(&self, starts_at_ms: u64, ends_at_ms: u64, pay_within_s: u64) -> Value {
        let sku =
            |sku: &Sku| json!({"sku": sku.name, "stock": sku.stock, "price_minor": PRICE_MINOR});
        let admission = match self.kind {
            Kind::Tokens => "token",
            _ => "open",
        };
        let mut sale = json!({
            "id": SALE, "starts_at_ms": starts_at_ms, "ends_at_ms": ends_at_ms, "pay_within": format!("{pay_within_s}s"),
            "buyer_limit": LIMIT, "currency": "usd", "segments": self.segments, "carts": self.kind == Kind::Carts,
            "admission": admission, "draft": self.has_block_list, "skus": self.skus.iter().map(sku).collect::<Vec<_>>(),
        });
        if let Some(limit) = self.order_limit {
            sale["order_limit"] = limit.into();
        }
        sale
    }

    /// One of the skus.
    pub fn any_sku(&self, random: &mut SmallRng) -> &'static str {
        self.skus[random.random_range(0..self.skus.len())].name
    }

    /// A client's identities, by number.
    pub fn buyer(client: u32, number: usize) -> String {
        format!("buyer-{client}-{number}")
    }

    /// Whether the block list holds a client's identity of that number.
    pub fn blocks(&self, number: usize) -> bool {
        self.has_block_list && number < BLOCKED
    }

    /// Who is on the block list of a run with so many clients.
    pub fn blocked(&self, clients: usize) -> Vec<String> {
        let of = |client| {
            let numbers = (0..BLOCKED).filter(|number| self.blocks(*number));
            numbers.map(move |number| Goods::buyer(client, number))
        };
        (0..clients as u32).flat_map(of).collect()
    }
}

impl fmt::Display for Goods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        for Sku { name, stock } in &self.skus {
            write!(f, " {name}={stock}")?;
        }
        if self.segments > 1 {
            write!(f, " segments={}", self.segments)?;
        }
        if let Some(limit) = self.order_limit {
            write!(f, " order_limit={limit}")?;
        }
        if self.has_block_list {
            write!(f, " block_list")?;
        }
        Ok(())
    }
}

#[test]
fn ten_seeds_in_a_row_sell_carts_tokens_and_several_segments() {
    let first: Vec<Goods> = (1..=crate::RUNS).map(Goods::from_seed).collect();
    for kind in [Kind::Plain, Kind::Segments, Kind::Carts, Kind::Tokens] {
        assert!(first.iter().any(|goods| goods.kind == kind), "{kind:?}");
    }
    for goods in &first {
        assert_eq!(goods.kind == Kind::Carts, goods.skus.len() > 1, "{goods}");
        assert!(
            goods.kind != Kind::Segments || goods.segments > 1,
            "{goods}"
        );
    }
}

#[test]
fn two_hundred_seeds_have_every_kind_of_goods_on_every_topology() {
    let plans: Vec<crate::plan::Plan> = (1..=200).map(crate::plan::Plan::from_seed).collect();
    for kind in [Kind::Plain, Kind::Segments, Kind::Carts, Kind::Tokens] {
        for topology in plans.iter().map(|plan| plan.topology) {
            let both =
                |plan: &&crate::plan::Plan| plan.goods.kind == kind && plan.topology == topology;
            assert!(
                plans.iter().any(|plan| both(&plan)),
                "{kind:?} {topology:?}"
            );
        }
    }
    let cuts = |segments: u64| plans.iter().any(|plan| plan.goods.segments == segments);
    assert!([1, 2, 4, 8].into_iter().all(cuts));
    assert!(plans.iter().any(|plan| plan.goods.order_limit.is_some()));
    assert!(plans.iter().any(|plan| plan.goods.has_block_list));
}
