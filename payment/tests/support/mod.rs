//! What the tests share: databases, a shop to pay for, a channel that does as it is told, and a client.

mod channel;
mod client;
mod db;
mod postgres;
mod shop;

pub use self::{
    channel::{Next, ScriptedChannel},
    client::{Api, Reply},
    db::Db,
    shop::Shop,
};

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use payment::{Config, Participant, Payments, Resolver, Setup};
use tokio_util::sync::CancellationToken;

/// The secret key of every test.
pub const KEY: &str = "sk_test_penstock";

/// Runs each named test on both engines.
macro_rules! on_both_engines {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::support::Db::sqlite().await).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::support::Db::postgres().await).await;
                }
            )*
        }
    };
}
pub(crate) use on_both_engines;

/// A whole payments stack over one database.
pub struct Stack {
    pub api: Api,
    pub resolver: Resolver,
    pub channel: Arc<ScriptedChannel>,
    pub shop: Arc<Shop>,
    pub now_ms: Arc<AtomicI64>,
    pub db: Db,
}

impl Stack {
    /// With orders in the same database.
    pub async fn new(db: Db) -> Self {
        Self::with_config(db, Config::for_key(KEY)).await
    }

    pub async fn with_config(db: Db, config: Config) -> Self {
        db.lay().await.unwrap();
        let shop = Arc::new(Shop::new(db.pool.clone()).await);
        let channel = Arc::new(ScriptedChannel::default());
        let now_ms = Arc::new(AtomicI64::new(1_760_000_000_000));
        let channels = vec![Arc::clone(&channel)];
        let payments = start(&db, config, &shop, channels, &now_ms, 1, None);
        Self {
            api: Api::new(payments.router.clone(), KEY),
            resolver: payments.resolver,
            channel,
            shop,
            now_ms,
            db,
        }
    }

    /// The same database after the process that used it died: a new service, nothing remembered.
    pub fn restart(&mut self) {
        let channel = Arc::clone(&self.channel);
        self.restart_with(vec![channel]);
    }

    /// The same, with other channels configured.
    pub fn restart_with(&mut self, channels: Vec<Arc<ScriptedChannel>>) {
        let (config, now) = (Config::for_key(KEY), &self.now_ms);
        let payments = start(&self.db, config, &self.shop, channels, now, 2, None);
        self.resolver = payments.resolver;
        self.api = Api::new(payments.router.clone(), KEY);
    }

    /// The same, as a process that does the background work until it is told to stop.
    pub fn restart_working(&mut self, config: Config, until: CancellationToken) -> Payments {
        let channels = vec![Arc::clone(&self.channel)];
        let (shop, now) = (&self.shop, &self.now_ms);
        let payments = start(&self.db, config, shop, channels, now, 3, Some(until));
        self.api = Api::new(payments.router.clone(), KEY);
        payments
    }

    /// Lets wall-clock time pass.
    pub fn advance(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// One pass of the resolver, now.
    pub async fn resolve(&self) -> usize {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        self.resolver.pass(now_ms).await.unwrap()
    }

    /// An intent of 19.99 for a new order of that price; returns its id.
    pub async fn intent_for(&self, order: &str) -> String {
        self.shop.add(order, 1999).await;
        let body =
            format!("amount=1999&currency=usd&payment_method=pm_card_visa&metadata[order]={order}");
        let reply = self.api.post("/v1/payment_intents", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        reply.text("id")
    }

    pub async fn confirm(&self, intent: &str) -> Reply {
        let path = format!("/v1/payment_intents/{intent}/confirm");
        self.api.post(&path, "").await
    }

    /// Every invariant the database can show.
    pub async fn assert_sound(&self) {
        let books = payment::Books::new(self.db.pool.clone());
        assert_eq!(books.check().await.unwrap(), []);
    }

    /// What the merchant was paid and kept, by the entries: posted, and still pending.
    pub async fn merchant_money(&self) -> (i64, i64) {
        let sum = |columns: &'static str| self.db.int(columns);
        (
            sum("SELECT CAST(COALESCE(SUM(posted_credit - posted_debit), 0) AS BIGINT) FROM pay_entries WHERE account LIKE 'merchant:%'").await,
            sum("SELECT CAST(COALESCE(SUM(pending_credit - pending_debit), 0) AS BIGINT) FROM pay_entries WHERE account LIKE 'merchant:%'").await,
        )
    }
}

fn start(
    db: &Db,
    config: Config,
    shop: &Arc<Shop>,
    channels: Vec<Arc<ScriptedChannel>>,
    now_ms: &Arc<AtomicI64>,
    seed: u8,
    work_until: Option<CancellationToken>,
) -> Payments {
    let clock = Arc::clone(now_ms);
    let setup = Setup {
        config,
        pool: db.pool.clone(),
        readers: db.pool.clone(),
        participant: Some(Arc::clone(shop) as Arc<dyn Participant>),
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        seed: [seed; 32],
        new_key: 0,
        work_until,
    };
    let channels = channels.into_iter().map(|channel| channel as _).collect();
    payment::start_with(setup, channels).unwrap()
}
