//! A fresh embedded store and purchases by the thousand, for the sequencer's and the journal's benches.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use seckill::{
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    store::{
        Purchase, SegmentSpec, StockStore, Verdict,
        embedded::{EmbeddedStore, Method, Options, Sync},
    },
};
use tokio::{runtime, time::Instant};

/// Time of the store's clock, inside the window.
const NOW_MS: u64 = 1_000;

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
    sync: Sync,
    method: Method,
    arrival: Arrival,
    rounds: u64,
) -> Duration {
    let folder = tempfile::tempdir_in(folder).expect("the target folder is writable");
    let options = Options {
        folder: folder.path().to_owned(),
        sync,
        method,
    };
    let store = EmbeddedStore::open(&options, Arc::new(|| NOW_MS)).expect("a fresh journal opens");
    block_on(async {
        let segment = SegmentId::first(
            SaleId::try_new("bench").expect("valid"),
            SkuId::try_new("shoe").expect("valid"),
        );
        let opened = store.open(&spec(&segment)).await.expect("it is new");
        // Made before the clock starts: the gateway has them parsed when it calls.
        let mut calls: Vec<Vec<Purchase>> = (0..rounds * arrival.callers as u64)
            .map(|call| purchases(&segment, call, arrival.batch))
            .collect();
        let start = Instant::now();
        for _ in 0..rounds {
            let together = calls.drain(calls.len() - arrival.callers..);
            let answers = together.map(|call| store.buy_many(&segment, opened.epoch, call));
            for answer in join_all(answers).await {
                let verdicts = answer.expect("the store is up");
                let is_accepted = |verdict| matches!(verdict, &Verdict::Accepted { .. });
                assert!(verdicts.iter().all(is_accepted), "stock is enough for all");
            }
        }
        start.elapsed()
    })
}

fn spec(segment: &SegmentId) -> SegmentSpec {
    SegmentSpec {
        id: segment.clone(),
        stock: 1 << 40,
        starts_at_ms: 0,
        // The store guards its clock: one that stands is followed by the monotonic one, so the window never ends.
        ends_at_ms: u64::MAX >> 16,
        buyer_limit: 2,
        pay_within_ms: 60_000,
        durability: None,
    }
}

/// Purchases of buyers that no other call has.
fn purchases(segment: &SegmentId, call: u64, batch: usize) -> Vec<Purchase> {
    let purchase = |at: usize| {
        let number = call * batch as u64 + at as u64;
        Purchase {
            order: OrderId::new(NOW_MS, segment.tag(), number),
            buyer: BuyerId::try_new(&format!("buyer-{number}")).expect("valid"),
            request: RequestId::try_new(&format!("request-{number}")).expect("valid"),
            fingerprint: 1,
            quantity: 1,
        }
    };
    (0..batch).map(purchase).collect()
}

/// Runs a future that needs neither timers nor sockets.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers")
        .block_on(future)
}
