//! One ledger on each engine, and the same facts checked on both.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use seckill::{
    clock::WallClock,
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    ledger::{self, DeadDelivery, OrderLedger, SkuReport},
    sale::{Rules, Sale, SkuOnSale},
};
use stock::{Gate, OrderState, StoredOrder};
use tempfile::TempDir;

use super::postgres;

/// When the test sale starts.
pub const T0: u64 = 1_700_000_000_000;
/// How long its orders may stay unpaid.
pub const PAY_WITHIN_MS: u64 = 60_000;

/// Which database a test runs on.
#[derive(Debug, Clone, Copy)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// A ledger in an empty database, with a clock that the test moves.
pub struct TestLedger {
    pub ledger: OrderLedger,
    pub url: String,
    now_ms: Arc<AtomicU64>,
    _folder: TempDir,
}

impl TestLedger {
    pub async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match engine {
            Engine::Sqlite => format!(
                "sqlite:{}",
                folder.path().join("new/folder/ledger.db").display()
            ),
            Engine::Postgres => postgres::new_database().await,
        };
        let pool = ledger::connect(&url).await.unwrap();
        Self {
            ledger: OrderLedger::new(pool),
            url,
            now_ms: Arc::new(AtomicU64::new(T0)),
            _folder: folder,
        }
    }

    /// A ledger that has the test sale, with this much stock of `shoe`.
    pub async fn with_sale(engine: Engine, stock: u64) -> Self {
        let test = Self::new(engine).await;
        test.ledger.create_sale(&sale(stock), T0).await.unwrap();
        test
    }

    pub fn clock(&self) -> WallClock {
        let now_ms = self.now_ms.clone();
        Arc::new(move || now_ms.load(Ordering::SeqCst))
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    pub fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// From now on a trigger raises for a buyer's orders: an error that no list of codes knows.
    pub async fn raise_for(&self, buyer: &str) {
        let raise = if self.url.starts_with("sqlite:") {
            format!(
                "CREATE TRIGGER raises BEFORE INSERT ON order_orders WHEN NEW.buyer = '{buyer}' \
                 BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
        } else {
            format!(
                "CREATE FUNCTION raises() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$ LANGUAGE plpgsql; \
                 CREATE TRIGGER raises BEFORE INSERT ON order_orders FOR EACH ROW WHEN (NEW.buyer = '{buyer}') \
                 EXECUTE FUNCTION raises()"
            )
        };
        sqlx::raw_sql(sqlx::AssertSqlSafe(raise))
            .execute(self.ledger.pool())
            .await
            .unwrap();
    }

    /// The ledger's line of `shoe`.
    pub async fn shoe(&self) -> SkuReport {
        self.ledger
            .report(&sale_id())
            .await
            .unwrap()
            .unwrap()
            .skus
            .swap_remove(0)
    }

    /// The events of the sale that were given up.
    pub async fn dead_events(&self) -> Vec<DeadDelivery> {
        let page = self.ledger.dead_deliveries(&sale_id(), None, 100).await;
        page.unwrap().rows
    }

    /// Settles `count` orders of one unit each.
    pub async fn settle_new(&self, first: u64, count: u64) -> Vec<StoredOrder> {
        let orders: Vec<_> = (first..first + count).map(|n| order(n, 1)).collect();
        self.ledger
            .settle(&segment(), 1, &orders, self.now_ms())
            .await
            .unwrap();
        orders
    }
}

pub fn sale_id() -> SaleId {
    SaleId::try_new("spring").unwrap()
}

pub fn segment() -> SegmentId {
    SegmentId::first(sale_id(), SkuId::try_new("shoe").unwrap())
}

pub fn sale(stock: u64) -> Sale {
    let sku = |name: &str, stock| SkuOnSale {
        sku: SkuId::try_new(name).unwrap(),
        stock,
        price_minor: 1999,
    };
    Sale {
        id: sale_id(),
        starts_at_ms: T0,
        ends_at_ms: T0 + 3_600_000,
        pay_within_ms: PAY_WITHIN_MS,
        buyer_limit: 2,
        currency: "usd".to_owned(),
        skus: vec![sku("shoe", stock), sku("boot", 5)],
        gate: Gate::Open,
        segments: 1,
        carts: false,
        durability: None,
        rules: Rules::default(),
    }
}

pub fn order_id(n: u64) -> OrderId {
    OrderId::new(T0 + n, segment().tag(), n)
}

/// The nth order: its own buyer, its own request.
pub fn order(n: u64, quantity: u32) -> StoredOrder {
    StoredOrder {
        order: order_id(n),
        buyer: BuyerId::try_new(&format!("buyer-{n}")).unwrap(),
        request: RequestId::try_new(&format!("request-{n}")).unwrap(),
        quantity,
        fingerprint: n,
        state: OrderState::Reserved,
        created_at_ms: T0 + n,
        pay_by_ms: T0 + n + PAY_WITHIN_MS,
        metadata: None,
    }
}

/// Polls for a fact, at most ten seconds.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut is_true: F) {
    for _ in 0..1000 {
        if is_true().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never became true: {what}");
}

/// Makes one test of each case for each engine.
macro_rules! on_both_engines {
    ($($case:ident,)*) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::support::ledger::Engine::Sqlite).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::support::ledger::Engine::Postgres).await;
                }
            )*
        }
    };
}
pub(crate) use on_both_engines;
