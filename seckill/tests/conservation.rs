//! Many buyers, two nodes, a few units in many segments, returns and restocks at random: no unit is sold twice, none is lost, and
//! none stays unsold while somebody wants it. On the embedded store and on a Redis Cluster of three primaries.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use seckill::{
    engine::SaleEngine,
    ids::{BuyerId, OrderId, SegmentId},
    ledger::Restock,
    purchase::Outcome,
};
use stock::{Selling, Transition, Verdict};
use tokio_util::sync::CancellationToken;

use crate::support::{
    floor::{Cut, Floor, On, is_accepted, is_sold_out},
    ledger::Engine,
};

const SHOPPERS: u64 = 24;
const WISHES: u32 = 12;

/// What the buyers were told.
#[derive(Default)]
struct Told {
    accepted_units: AtomicU64,
    returned_units: AtomicU64,
    /// Orders that may still be returned.
    live: Mutex<Vec<(SegmentId, OrderId, u32)>>,
}

async fn a_random_sale(on: On, engine: Engine, cut: Cut) {
    let seed: u64 = rand::random();
    println!("seed {seed}, {cut:?}");
    let floor = Arc::new(Floor::open(on, engine, cut).await);
    let nodes = [floor.engine.clone(), floor.another_node().await];
    let shutdown = CancellationToken::new();
    let refreshing: Vec<_> = nodes
        .iter()
        .map(|node| tokio::spawn(node.clone().run(shutdown.clone())))
        .collect();
    let told = Arc::new(Told::default());
    let restocked = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let stirring = tokio::spawn(stir(
        floor.clone(),
        nodes.clone(),
        told.clone(),
        restocked.clone(),
        is_over.clone(),
        seed,
    ));
    let shoppers = (0..SHOPPERS).map(|number| {
        let node = nodes[number as usize % 2].clone();
        let shopper = shop(floor.clone(), node, told.clone(), seed ^ (number + 1));
        tokio::spawn(shopper)
    });
    for shopper in join_all(shoppers).await {
        shopper.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    stirring.await.unwrap();
    sell_the_rest(&floor, &nodes, &told).await;
    shutdown.cancel();
    for node in refreshing {
        node.await.unwrap();
    }

    let total = cut.stock + restocked.load(Ordering::SeqCst);
    floor.holds(total).await;
    let counts = floor.counts().await;
    let accepted = told.accepted_units.load(Ordering::SeqCst);
    let returned = told.returned_units.load(Ordering::SeqCst);
    assert_eq!(counts.reserved, accepted - returned, "seed {seed}");
    assert_eq!(
        (counts.available, counts.reserved),
        (0, total),
        "everything was wanted, so everything is sold; seed {seed}"
    );
    let open = floor.ledger.open_transfers().await.unwrap();
    let ours = open.iter().filter(|one| one.sale == floor.sale.id);
    assert_eq!(ours.count(), 0);
}

/// One buyer after another, some asking for two, some asking twice.
async fn shop(floor: Arc<Floor>, node: Arc<SaleEngine>, told: Arc<Told>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for wish in 0..WISHES {
        let buyer = BuyerId::try_new(&format!("b{seed:x}-{wish}")).unwrap();
        let quantity = rng.random_range(1..=2);
        let outcome = floor.buy_on(&node, &buyer, "r", quantity).await;
        remember(&floor, &told, &buyer, &outcome);
        if rng.random_bool(0.2) {
            let again = floor.buy_on(&node, &buyer, "r", quantity).await;
            match is_accepted(&outcome) {
                true => assert!(
                    matches!(again, Outcome::Decided(Verdict::Replayed(_))),
                    "{again:?}"
                ),
                false => remember(&floor, &told, &buyer, &again),
            }
        }
    }
}

fn remember(floor: &Floor, told: &Told, buyer: &BuyerId, outcome: &Outcome) {
    match outcome {
        Outcome::Decided(Verdict::Accepted { order, .. }) => {
            let units = u64::from(order.quantity);
            told.accepted_units.fetch_add(units, Ordering::SeqCst);
            let home = floor.segment(buyer.home(usize::from(floor.sale.segments)) as u16);
            let order = (home, order.order, order.quantity);
            told.live.lock().unwrap().push(order);
        }
        other => assert!(
            is_sold_out(other) || matches!(other, Outcome::Unavailable),
            "{other:?}"
        ),
    }
}

/// Returns orders and restocks now and then, on either node.
async fn stir(
    floor: Arc<Floor>,
    nodes: [Arc<SaleEngine>; 2],
    told: Arc<Told>,
    restocked: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    seed: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut restocks = 0;
    while !is_over.load(Ordering::SeqCst) {
        let node = &nodes[rng.random_range(0..2)];
        let returned = {
            let mut live = told.live.lock().unwrap();
            match live.len() {
                0 => None,
                orders => Some(live.swap_remove(rng.random_range(0..orders))),
            }
        };
        if let Some((home, order, units)) = returned {
            let released = floor.store.release_many(&home, &[order]).await.unwrap();
            assert_eq!(released, [Transition::Done]);
            told.returned_units
                .fetch_add(u64::from(units), Ordering::SeqCst);
            node.released(&home).await;
        }
        if restocks < 4 && rng.random_bool(0.1) {
            restocks += 1;
            let restock = Restock {
                sku: floor.sku(),
                id: format!("pallet-{restocks}"),
                units: rng.random_range(1..=5),
            };
            node.restock(&floor.sale, &restock).await.unwrap();
            restocked.fetch_add(restock.units, Ordering::SeqCst);
        }
        tokio::time::sleep(std::time::Duration::from_millis(rng.random_range(1..20))).await;
    }
}

/// Buyers of one unit come to both nodes until both say "sold out" from their second refresh on: L3, no permanent undersell.
async fn sell_the_rest(floor: &Floor, nodes: &[Arc<SaleEngine>; 2], told: &Told) {
    let mut refusals = 0;
    for number in 0..10_000 {
        let buyer = BuyerId::try_new(&format!("late-{number}")).unwrap();
        let node = &nodes[number % 2];
        node.refresh().await.unwrap();
        let outcome = floor.buy_on(node, &buyer, "r", 1).await;
        remember(floor, told, &buyer, &outcome);
        refusals = match is_sold_out(&outcome) {
            true => refusals + 1,
            false => 0,
        };
        if refusals == 4 {
            return;
        }
    }
    panic!("it never ends");
}

const SCARCE: Cut = Cut {
    segments: 8,
    stock: 5,
    buyer_limit: 2,
    carts: false,
};
const PLENTY: Cut = Cut {
    segments: 6,
    stock: 120,
    ..SCARCE
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_units_than_segments_on_the_embedded_store() {
    a_random_sale(On::Embedded, Engine::Sqlite, SCARCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_units_than_buyers_of_a_segment_on_the_embedded_store() {
    a_random_sale(On::Embedded, Engine::Postgres, PLENTY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_units_than_segments_on_a_redis_cluster() {
    a_random_sale(On::Cluster, Engine::Postgres, SCARCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_units_than_buyers_of_a_segment_on_a_redis_cluster() {
    a_random_sale(On::Cluster, Engine::Postgres, PLENTY).await;
}
