//! A sale with stock for all, purchases by the thousand, and the stores that decide them: what the sale's benches have in common.

use std::{
    future::Future,
    path::Path,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::join_all;
use seckill::sale::{NewSale, NewSku, Sale};
use stock::{
    Durability, Purchase, SegmentSpec, StockStore, Verdict,
    embedded::{EmbeddedStore, Options, SyncPolicy, WriteMode},
    ids::{BuyerId, OrderId, RequestId, SegmentId},
    redis::{RedisOptions, RedisStore},
};
use tokio::{runtime, time::Instant};

/// More than any bench buys.
const STOCK: u64 = 1 << 40;
/// The end of the window: far, and inside what an order id can say.
const ENDS_AT_MS: u64 = 1 << 47;

/// How purchases arrive: so many callers at a time, each with so many purchases in one call.
#[derive(Clone, Copy)]
pub struct Arrival {
    /// Calls that wait at the same time.
    pub callers: usize,
    /// Purchases of a call.
    pub batch: usize,
}

impl Arrival {
    /// Purchases in flight.
    pub fn purchases(self) -> usize {
        self.callers * self.batch
    }
}

/// Buys `rounds` times as the arrival says, from a store of its own in `folder`; the time from the first call to the last answer.
pub fn time_purchases(
    folder: &Path,
    sync: SyncPolicy,
    write_mode: WriteMode,
    arrival: Arrival,
    rounds: u64,
) -> Duration {
    let folder = tempfile::tempdir_in(folder).expect("the target folder is writable");
    let store = embedded(folder.path(), sync, write_mode);
    block_on(async {
        let spec = segments("bench", 1).swap_remove(0);
        let opened = store.open(&spec).await.expect("it is new");
        // Made before the clock starts: the gateway has them parsed when it calls.
        let mut calls: Vec<Vec<Purchase>> = (0..rounds * arrival.callers as u64)
            .map(|call| purchases(&spec.id, call * arrival.batch as u64, arrival.batch))
            .collect();
        let start = Instant::now();
        for _ in 0..rounds {
            let together = calls.drain(calls.len() - arrival.callers..);
            let answers = together.map(|call| buy(&*store, &spec.id, opened.epoch, call));
            join_all(answers).await;
        }
        start.elapsed()
    })
}

/// An embedded store on a journal in this folder.
pub fn embedded(folder: &Path, sync: SyncPolicy, write_mode: WriteMode) -> Arc<dyn StockStore> {
    let options = Options {
        folder: folder.to_owned(),
        sync,
        write_mode,
    };
    let store = EmbeddedStore::open(&options, Arc::new(now_ms));
    Arc::new(store.expect("a fresh journal opens"))
}

/// The store at `redis://…` or `redis-cluster://…`, at `fast`.
pub async fn redis(url: &str) -> Arc<dyn StockStore> {
    let options = RedisOptions {
        durability: Durability::Fast,
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(url, options).await;
    Arc::new(store.expect("the server is up"))
}

/// A sale that is open now and sells one unit of its `shoe` to each buyer.
pub fn sale(id: &str) -> Sale {
    let shoe = NewSku {
        sku: Some("shoe".to_owned()),
        stock: Some(STOCK.into()),
        price_minor: Some(100),
    };
    let sale = NewSale {
        id: Some(id.to_owned()),
        starts_at_ms: Some(0),
        ends_at_ms: Some(ENDS_AT_MS.into()),
        pay_within: Some("15m".to_owned()),
        buyer_limit: Some(1),
        currency: Some("usd".to_owned()),
        skus: vec![shoe],
        ..NewSale::default()
    };
    sale.check().expect("every field is in range")
}

/// The `shoe` of a sale cut into so many segments, each with enough stock.
pub fn segments(sale_id: &str, count: u16) -> Vec<SegmentSpec> {
    let whole = sale(sale_id).segment_specs().swap_remove(0);
    let part = |index| {
        let mut spec = whole.clone();
        spec.id.index = index;
        spec
    };
    (0..count).map(part).collect()
}

/// Purchases number `first` and after, each of a buyer of its own.
pub fn purchases(segment: &SegmentId, first: u64, count: usize) -> Vec<Purchase> {
    let (now_ms, tag) = (now_ms(), segment.tag());
    let purchase = |number: u64| Purchase {
        order: OrderId::new(now_ms, tag, number),
        buyer: BuyerId::try_new(&format!("buyer-{number}")).expect("valid"),
        request: RequestId::try_new(&format!("request-{number}")).expect("valid"),
        fingerprint: 1,
        quantity: 1,
        metadata: None,
    };
    (first..first + count as u64).map(purchase).collect()
}

/// One call. Anything but accepted means that the bench measures something else than it says.
pub async fn buy(store: &dyn StockStore, segment: &SegmentId, epoch: u64, call: Vec<Purchase>) {
    let verdicts = store
        .buy_many(segment, epoch, call)
        .await
        .expect("the store is up");
    let is_accepted = |verdict| matches!(verdict, &Verdict::Accepted { .. });
    assert!(
        verdicts.iter().all(is_accepted),
        "stock is enough for all: {:?}",
        verdicts.iter().find(|verdict| !is_accepted(verdict))
    );
}

/// The wall clock, as the stores want it.
pub fn now_ms() -> u64 {
    let since = UNIX_EPOCH.elapsed().expect("it is after 1970");
    u64::try_from(since.as_millis()).expect("it is before the year 500,000,000")
}

/// Runs a future that needs neither timers nor sockets.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers")
        .block_on(future)
}
