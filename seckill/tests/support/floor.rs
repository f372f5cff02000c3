//! A sale cut into segments, on a real store and a real ledger, with one engine or several: what the tests of segments, transfers
//! and carts stand on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use seckill::{
    bells::Bells,
    clock::WallClock,
    engine::SaleEngine,
    ids::{BuyerId, RequestId, SaleId, SegmentId, SkuId},
    ledger::{self, OrderLedger},
    purchase::Outcome,
    sale::{Rules, Sale, SkuOnSale},
    sku_stock::{Stock, StockCounts},
    transfer::Transfers,
};
use stock::{Gate, SegmentStatus, Segments, StockStore, StoredOrder, Verdict, embedded::WriteMode};
use tempfile::TempDir;
use testkit::{
    embedded,
    faulty_store::FaultyStore,
    redis::{connect, shared, shared_cluster, wall_clock},
};

use super::{
    ledger::{Engine, eventually},
    postgres,
};

/// Which store a test runs on.
#[derive(Debug, Clone, Copy)]
pub enum On {
    Embedded,
    Redis,
    Cluster,
}

/// What is sold: so many units of `shoe` (and of `lace`, where there are carts) in so many segments.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub segments: u16,
    pub stock: u64,
    pub buyer_limit: u32,
    pub carts: bool,
}

/// What most facts about segments need.
pub const FOUR: Cut = Cut {
    segments: 4,
    stock: 8,
    buyer_limit: 3,
    carts: false,
};

/// A floor on the parts that start at once.
pub async fn floor(cut: Cut) -> Floor {
    Floor::open(On::Embedded, Engine::Sqlite, cut).await
}

/// The sale, its parts, and a first node.
pub struct Floor {
    pub store: Arc<FaultyStore>,
    pub ledger: OrderLedger,
    pub sale: Sale,
    pub engine: Arc<SaleEngine>,
    /// Rung by the first node for its settlement.
    pub accepted: Arc<Bells>,
    /// Added to the time of day.
    ahead_ms: Arc<AtomicU64>,
    _folder: TempDir,
}

const PAY_WITHIN_MS: u64 = 60_000;
const HALF_WINDOW_MS: u64 = 600_000;

impl Floor {
    pub async fn open(on: On, ledger: Engine, cut: Cut) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inner: Arc<dyn StockStore> = match on {
            On::Embedded => Arc::new(embedded::open(
                &folder.path().join("journal"),
                WriteMode::Auto,
            )),
            On::Redis => Arc::new(connect(&shared().url()).await),
            On::Cluster => Arc::new(connect(&shared_cluster().url()).await),
        };
        let store = FaultyStore::new(inner);
        let url = match ledger {
            Engine::Sqlite => format!("sqlite:{}", folder.path().join("ledger.db").display()),
            Engine::Postgres => postgres::new_database().await,
        };
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let accepted = Arc::default();
        let engine = node(&store, &ledger, &ahead_ms, &accepted).await;
        let sale = sale(cut);
        engine.create_sale(sale.clone()).await.unwrap();
        Self {
            store,
            ledger,
            sale,
            engine,
            accepted,
            ahead_ms,
            _folder: folder,
        }
    }

    /// Another node on the same store and ledger.
    pub async fn another_node(&self) -> Arc<SaleEngine> {
        node(&self.store, &self.ledger, &self.ahead_ms, &Arc::default()).await
    }

    /// Moves the engines' clocks.
    pub fn advance(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn clock(&self) -> WallClock {
        clock(&self.ahead_ms)
    }

    /// The transfers of a node that has no engine.
    pub fn transfers(&self) -> Transfers {
        Transfers::new(self.store.clone(), self.ledger.clone(), self.clock())
    }

    pub fn sku(&self) -> SkuId {
        self.sale.skus[0].sku.clone()
    }

    pub fn segment(&self, index: u16) -> SegmentId {
        SegmentId {
            sale: self.sale.id.clone(),
            sku: self.sku(),
            index,
        }
    }

    pub fn stock_on(&self, engine: &SaleEngine) -> Arc<Stock> {
        let open = engine.catalogue().sale(&self.sale.id).unwrap();
        open.stock(&self.sku()).unwrap().clone()
    }

    pub fn stock(&self) -> Arc<Stock> {
        self.stock_on(&self.engine)
    }

    /// Buys `quantity` of `shoe` on a node.
    pub async fn buy_on(
        &self,
        engine: &SaleEngine,
        buyer: &BuyerId,
        request: &str,
        quantity: u32,
    ) -> Outcome {
        let request = RequestId::try_new(request).unwrap();
        let stock = self.stock_on(engine);
        engine
            .purchase(&stock, buyer.clone(), request, quantity, None)
            .await
    }

    pub async fn buy(&self, buyer: &BuyerId, request: &str, quantity: u32) -> Outcome {
        self.buy_on(&self.engine, buyer, request, quantity).await
    }

    /// Buys where nothing speaks against it; comes back, as a client does, when it is told so.
    pub async fn take(&self, buyer: &BuyerId, request: &str, quantity: u32) -> StoredOrder {
        for _ in 0..5 {
            match self.buy(buyer, request, quantity).await {
                Outcome::Decided(Verdict::Accepted { order, .. }) => return order,
                Outcome::Unavailable => {}
                other => panic!("{buyer} {request} {quantity}: {other:?}"),
            }
        }
        panic!("{buyer} {request} {quantity}: never available");
    }

    /// The counts of each segment, from the store itself.
    pub async fn snapshots(&self) -> Vec<SegmentStatus> {
        let mut all = Vec::new();
        for id in self.sale.segments_of(&self.sku()) {
            let one = self.store.snapshot(&id).await.unwrap();
            assert_eq!(
                one.available + one.reserved + one.sold,
                one.capacity(),
                "INV-STOCK-2: {one:?}"
            );
            all.push(one);
        }
        all
    }

    pub async fn available(&self) -> Vec<u64> {
        let all = self.snapshots().await;
        all.iter().map(|one| one.available).collect()
    }

    pub async fn counts(&self) -> StockCounts {
        StockCounts::sum(&self.snapshots().await)
    }

    /// INV-STOCK-2 over all segments, once nothing is on its way between them: `total` units, not one more or less.
    pub async fn holds(&self, total: u64) {
        eventually("no transfer is open", async || {
            let open = self.ledger.open_transfers().await.unwrap();
            open.iter().all(|transfer| transfer.sale != self.sale.id)
        })
        .await;
        assert_eq!(self.counts().await.capacity, total);
    }
}

/// The `n`th buyer whose home is this segment.
pub fn buyer_at(home: usize, segments: u16, n: usize) -> BuyerId {
    (0..)
        .map(|number| BuyerId::try_new(&format!("buyer-{number}")).unwrap())
        .filter(|buyer| buyer.home(usize::from(segments)) == home)
        .nth(n)
        .unwrap()
}

pub fn is_accepted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Decided(Verdict::Accepted { .. }))
}

pub fn is_sold_out(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Decided(Verdict::SoldOut { .. }))
}

async fn node(
    store: &Arc<FaultyStore>,
    ledger: &OrderLedger,
    ahead_ms: &Arc<AtomicU64>,
    accepted: &Arc<Bells>,
) -> Arc<SaleEngine> {
    let patience = Duration::from_secs(10);
    SaleEngine::start(
        store.clone(),
        ledger.clone(),
        clock(ahead_ms),
        patience,
        accepted.clone(),
    )
    .await
    .unwrap()
}

fn clock(ahead_ms: &Arc<AtomicU64>) -> WallClock {
    let (wall, ahead_ms) = (wall_clock(), ahead_ms.clone());
    Arc::new(move || wall() + ahead_ms.load(Ordering::SeqCst))
}

fn sale(cut: Cut) -> Sale {
    let now_ms = wall_clock()();
    let id = SaleId::try_new(&format!("floor-{:016x}", rand::random::<u64>())).unwrap();
    let sku = |name| SkuOnSale {
        sku: SkuId::try_new(name).unwrap(),
        stock: cut.stock,
        price_minor: 500,
    };
    let names: &[&str] = if cut.carts {
        &["shoe", "lace"]
    } else {
        &["shoe"]
    };
    Sale {
        id,
        starts_at_ms: now_ms - HALF_WINDOW_MS,
        ends_at_ms: now_ms + HALF_WINDOW_MS,
        pay_within_ms: PAY_WITHIN_MS,
        buyer_limit: cut.buyer_limit,
        currency: "usd".to_owned(),
        skus: names.iter().map(|name| sku(name)).collect(),
        gate: Gate::Open,
        segments: cut.segments,
        carts: cut.carts,
        durability: None,
        rules: Rules::default(),
    }
}
