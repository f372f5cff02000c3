//! Purchases against the embedded store: cancelled callers, too many at a time, the memory of "sold out".

use std::{sync::atomic::AtomicBool, time::Duration};

use super::*;
use stock::{
    Lookup, SegmentSpec, StockStore,
    embedded::{EmbeddedStore, Options, SyncPolicy, Tuning, WriteMode},
};

use crate::{
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    sku_stock::InFlight,
    sold_out::SkuSoldOut,
};

struct Shop {
    segment: Arc<SegmentRuntime>,
    store: Arc<dyn StockStore>,
    _folder: tempfile::TempDir,
}

async fn shop(stock: u64) -> Shop {
    shop_with(stock, Arc::new(|| 1_000)).await
}

async fn shop_with(stock: u64, clock: crate::clock::WallClock) -> Shop {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        folder: folder.path().into(),
        sync: SyncPolicy::Fast,
        write_mode: WriteMode::Plain,
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
    let segment = SegmentRuntime::new(id, Arc::new(SkuSoldOut::default()), Arc::default());
    Shop {
        segment: Arc::new(segment),
        store,
        _folder: folder,
    }
}

impl Shop {
    async fn buy(&self, purchase: Purchase, deadline: Instant) -> Outcome {
        buy(&self.segment, self.store.clone(), purchase, deadline).await
    }

    /// The same, by a caller that can go away.
    fn caller(&self, purchase: Purchase) -> tokio::task::JoinHandle<Outcome> {
        let (segment, store) = (self.segment.clone(), self.store.clone());
        tokio::spawn(async move { buy(&segment, store, purchase, long()).await })
    }

    fn is_deciding(&self, purchase: &Purchase) -> bool {
        let in_flight = &self.segment.in_flight;
        in_flight.is_deciding(&purchase.buyer, &purchase.request)
    }

    /// Until these are under way.
    async fn has_begun(&self, purchase: &Purchase) {
        while !self.is_deciding(purchase) {
            tokio::task::yield_now().await;
        }
    }

    /// Until this is no longer under way.
    async fn has_ended(&self, purchase: &Purchase) {
        while self.is_deciding(purchase) {
            tokio::task::yield_now().await;
        }
    }
}

/// Makes a store hang: the sequencer reads the clock once a batch, and this one waits for a word.
struct Hang {
    does: Arc<AtomicBool>,
    go_on: std::sync::mpsc::Sender<()>,
}

impl Hang {
    /// It, and the clock to give to the store.
    fn new() -> (Self, crate::clock::WallClock) {
        let (go_on, word) = std::sync::mpsc::channel::<()>();
        let word = std::sync::Mutex::new(word);
        let does = Arc::<AtomicBool>::default();
        let hangs = does.clone();
        let clock = move || {
            if hangs.load(Ordering::Relaxed) {
                // Ends with the word, or with the test.
                let _ = word.lock().unwrap().recv();
            }
            1_000
        };
        (Self { does, go_on }, Arc::new(clock))
    }

    fn begin(&self) {
        self.does.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.does.store(false, Ordering::Relaxed);
        self.go_on.send(()).unwrap();
    }
}

fn purchase(n: u32) -> Purchase {
    Purchase {
        order: OrderId::from_u128(u128::from(n) + 1),
        buyer: BuyerId::try_new(&format!("b{n}")).unwrap(),
        request: RequestId::try_new("r").unwrap(),
        fingerprint: 1,
        quantity: 1,
        metadata: None,
    }
}

fn long() -> Instant {
    after(10_000)
}

fn after(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

#[tokio::test]
async fn of_those_that_come_together_each_is_decided() {
    let shop = shop(3).await;
    let callers: Vec<_> = (0..5).map(|n| shop.caller(purchase(n))).collect();
    let mut outcomes = Vec::new();
    for caller in callers {
        outcomes.push(caller.await.unwrap());
    }
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    let accepted = count(|o| matches!(o, Outcome::Decided(Verdict::Accepted { .. })));
    let sold_out = count(|o| matches!(o, Outcome::Decided(Verdict::SoldOut { .. })));
    assert_eq!((accepted, sold_out), (3, 2), "{outcomes:?}");
}

#[tokio::test]
async fn an_accepted_order_wakes_the_settlement() {
    let shop = shop(1).await;
    shop.buy(purchase(0), long()).await;
    let woken = shop.segment.accepted.notified();
    let woken = tokio::time::timeout(Duration::ZERO, woken).await;
    assert!(woken.is_ok());
    shop.buy(purchase(1), long()).await;
    let woken = shop.segment.accepted.notified();
    let woken = tokio::time::timeout(Duration::ZERO, woken).await;
    assert!(woken.is_err(), "a refusal is no work for it");
}

#[tokio::test]
async fn once_empty_new_requests_are_refused_from_memory_and_retries_still_replay() {
    let shop = shop(1).await;
    let outcome = shop.buy(purchase(0), long()).await;
    assert!(matches!(
        outcome,
        Outcome::Decided(Verdict::Accepted { .. })
    ));
    let outcome = shop.buy(purchase(1), long()).await;
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
    let outcome = shop.buy(purchase(0), long()).await;
    assert!(matches!(outcome, Outcome::Decided(Verdict::Replayed(_))));
}

#[tokio::test]
async fn a_purchase_whose_caller_left_before_its_turn_is_never_decided() {
    let (hang, clock) = Hang::new();
    let shop = shop_with(2, clock).await;
    hang.begin();
    // Keeps the sequencer busy, so that the next ones wait for their turn.
    let first = shop.caller(purchase(0));
    shop.has_begun(&purchase(0)).await;
    let (store, id) = (shop.store.clone(), shop.segment.id.clone());
    let left = shop.caller(purchase(1));
    shop.has_begun(&purchase(1)).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    let outcome = shop.buy(purchase(2), after(20)).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
    hang.end();
    first.await.unwrap();
    shop.has_ended(&purchase(1)).await;
    shop.has_ended(&purchase(2)).await;
    for n in [1, 2] {
        let lookup = Lookup::Request(purchase(n).buyer, purchase(n).request);
        let found = store.find(&id, &lookup).await.unwrap();
        assert!(found.is_none(), "a unit is held for nobody: {found:?}");
    }
    let outcome = shop.buy(purchase(3), long()).await;
    assert!(
        matches!(outcome, Outcome::Decided(Verdict::Accepted { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn what_is_decided_after_the_deadline_is_known_all_the_same() {
    let shop = shop(1).await;
    // Decided, and not answered before the caller has gone.
    let (store, bought) = (
        testkit::faulty_store::FaultyStore::new(shop.store.clone()),
        purchase(0),
    );
    store.stall_answers(&shop.segment.id);
    let outcome = buy(&shop.segment, store.clone(), bought.clone(), after(20)).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
    assert!(
        shop.is_deciding(&bought),
        "not said to be unknown too early"
    );
    store.resume();
    shop.has_ended(&bought).await;
    let sold_out = &shop.segment.sold_out;
    assert!(sold_out.is_known(&bought.buyer, &bought.request));
    let outcome = shop.buy(bought, long()).await;
    assert!(
        matches!(outcome, Outcome::Decided(Verdict::Replayed(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn too_many_at_a_time_are_refused_at_once() {
    let (hang, clock) = Hang::new();
    let shop = shop_with(1, clock).await;
    hang.begin();
    let callers: Vec<_> = (0..InFlight::MAX as u32)
        .map(|n| shop.caller(purchase(n)))
        .collect();
    shop.has_begun(&purchase(InFlight::MAX as u32 - 1)).await;
    let outcome = shop.buy(purchase(u32::MAX - 1), long()).await;
    assert!(matches!(outcome, Outcome::Unavailable), "{outcome:?}");
    hang.end();
    for caller in callers {
        let outcome = caller.await.unwrap();
        assert!(matches!(outcome, Outcome::Decided(_)), "{outcome:?}");
    }
}
