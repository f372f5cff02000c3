//! The lane against the embedded store: batching, cancelled callers, a full lane, the memory of "sold out".

use std::time::Duration;

use super::*;
use stock::{
    Lookup, SegmentSpec,
    embedded::{EmbeddedStore, Method, Options, Sync, Tuning},
};

use crate::{
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    sku_stock::{LANE_DEPTH, lane},
    sold_out::SkuSoldOut,
};

struct Shop {
    segment: Arc<SegmentRuntime>,
    store: Arc<dyn StockStore>,
    work: Option<LaneWork>,
    _folder: tempfile::TempDir,
}

async fn shop(stock: u64) -> Shop {
    shop_with(stock, Arc::new(|| 1_000)).await
}

async fn shop_with(stock: u64, clock: crate::clock::WallClock) -> Shop {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        folder: folder.path().into(),
        sync: Sync::Fast,
        method: Method::Plain,
    };
    let tuning = Tuning {
        guards_clock: false,
        ..Tuning::default()
    };
    let store: Arc<dyn StockStore> =
        Arc::new(EmbeddedStore::open_with(&options, tuning, clock).unwrap());
    let id = SegmentId::first(SaleId::try_new("s").unwrap(), SkuId::try_new("k").unwrap());
    let spec = SegmentSpec {
        id: id.clone(),
        stock,
        starts_at_ms: 0,
        ends_at_ms: 9_999,
        buyer_limit: 1,
        pay_within_ms: 5,
        durability: None,
    };
    store.open(&spec).await.unwrap();
    let (lane, work) = lane();
    let segment = SegmentRuntime::new(id, Arc::new(SkuSoldOut::default()), lane);
    Shop {
        segment: Arc::new(segment),
        store,
        work: Some(work),
        _folder: folder,
    }
}

impl Shop {
    fn work(&mut self) {
        let work = self.work.take().expect("started once");
        tokio::spawn(run_lane(
            work,
            Arc::downgrade(&self.segment),
            self.store.clone(),
            || {},
        ));
    }
}

fn purchase(n: u32) -> Purchase {
    Purchase {
        order: OrderId::from_u128(u128::from(n) + 1),
        buyer: BuyerId::try_new(&format!("b{n}")).unwrap(),
        request: RequestId::try_new("r").unwrap(),
        fingerprint: 1,
        quantity: 1,
    }
}

fn long() -> Instant {
    after(10_000)
}

fn after(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

#[tokio::test]
async fn what_waits_is_decided_together_and_in_order() {
    let mut shop = shop(3).await;
    let callers: Vec<_> = (0..5)
        .map(|n| {
            let segment = shop.segment.clone();
            tokio::spawn(async move { buy(&segment, purchase(n), long()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    shop.work();
    let mut outcomes = Vec::new();
    for caller in callers {
        outcomes.push(caller.await.unwrap());
    }
    let accepted =
        |outcome: &Outcome| matches!(outcome, Outcome::Decided(Verdict::Accepted { .. }));
    assert!(outcomes[..3].iter().all(accepted), "{outcomes:?}");
    assert!(
        outcomes[3..]
            .iter()
            .all(|o| matches!(o, Outcome::Decided(Verdict::SoldOut { .. }))),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn once_empty_new_requests_are_refused_from_memory_and_retries_still_replay() {
    let mut shop = shop(1).await;
    shop.work();
    let outcome = buy(&shop.segment, purchase(0), long()).await;
    assert!(matches!(
        outcome,
        Outcome::Decided(Verdict::Accepted { .. })
    ));
    let outcome = buy(&shop.segment, purchase(1), long()).await;
    assert!(matches!(outcome, Outcome::Decided(Verdict::SoldOut { .. })));
    let refuses = |n| {
        shop.segment
            .sold_out
            .refuses(&purchase(n).buyer, &purchase(n).request)
    };
    assert!(refuses(2));
    assert!(
        !refuses(0),
        "a retry of the accepted request must reach the store"
    );
    let outcome = buy(&shop.segment, purchase(0), long()).await;
    assert!(matches!(outcome, Outcome::Decided(Verdict::Replayed(_))));
}

#[tokio::test]
async fn a_purchase_whose_caller_left_the_queue_is_never_decided() {
    let mut shop = shop(1).await;
    let segment = shop.segment.clone();
    let caller = tokio::spawn(async move { buy(&segment, purchase(0), long()).await });
    while shop.segment.lane.waiting.capacity() == LANE_DEPTH {
        tokio::task::yield_now().await;
    }
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    let outcome = buy(&shop.segment, purchase(1), after(1)).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
    shop.work();
    let outcome = buy(&shop.segment, purchase(2), long()).await;
    assert!(
        matches!(outcome, Outcome::Decided(Verdict::Accepted { .. })),
        "the unit was held for nobody: {outcome:?}"
    );
}

#[tokio::test]
async fn a_deadline_that_passes_during_the_decision_is_unknown_and_the_order_is_found_later() {
    // The sequencer reads the clock once a batch: a clock that waits for a word is a store that hangs.
    let (go_on, word) = std::sync::mpsc::channel::<()>();
    let word = std::sync::Mutex::new(word);
    let hangs = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (does_hang, clock_hangs) = (hangs.clone(), hangs);
    let clock = move || {
        if clock_hangs.load(Ordering::Relaxed) {
            // Ends with the word, or with the test.
            let _ = word.lock().unwrap().recv();
        }
        1_000
    };
    let mut shop = shop_with(1, Arc::new(clock)).await;
    does_hang.store(true, Ordering::Relaxed);
    shop.work();
    let bought = purchase(0);
    let outcome = buy(&shop.segment, bought.clone(), after(20)).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
    assert!(
        shop.segment
            .lane
            .is_deciding(&bought.buyer, &bought.request)
    );
    does_hang.store(false, Ordering::Relaxed);
    go_on.send(()).unwrap();
    let lookup = Lookup::Request(bought.buyer.clone(), bought.request.clone());
    while shop
        .store
        .find(&shop.segment.id, &lookup)
        .await
        .unwrap()
        .is_none()
    {
        tokio::task::yield_now().await;
    }
    while shop
        .segment
        .lane
        .is_deciding(&bought.buyer, &bought.request)
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_lane_refuses_at_once() {
    let shop = shop(1).await;
    let mut callers = Vec::new();
    for n in 0..LANE_DEPTH as u32 {
        let segment = shop.segment.clone();
        callers.push(tokio::spawn(async move {
            buy(&segment, purchase(n), long()).await
        }));
    }
    while shop.segment.lane.waiting.capacity() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        buy(&shop.segment, purchase(u32::MAX - 1), long()).await,
        Outcome::Unavailable
    ));
}
