//! What must hold and can only be shown with a hand on the server: faults inside a call, another server life, a clock that went back.

use std::{sync::Arc, time::Duration};

use seckill::store::{
    CartLine, CartVerdict, Gate, Position, SegmentSpec, StockError, StockMoves, StockStore,
    StoredOrder, Verdict,
};

use super::Bed;
use crate::support::{
    recovery::{rebuild, unsettled},
    redis::{now_ms, purchase, spec},
};

impl Bed {
    async fn open(&self, stock: u64, limit: u32) -> (SegmentSpec, u64) {
        let spec = spec(stock, limit);
        let epoch = self.store.open(&spec).await.unwrap().epoch;
        (spec, epoch)
    }

    async fn take(&self, spec: &SegmentSpec, epoch: u64, buyer: &str) -> StoredOrder {
        let wish = purchase(&spec.id, buyer, "r1");
        let mut verdicts = self
            .store
            .buy_many(&spec.id, epoch, vec![wish])
            .await
            .unwrap();
        match verdicts.remove(0) {
            Verdict::Accepted { order, .. } => order,
            other => panic!("{other:?}"),
        }
    }

    fn set(&self, spec: &SegmentSpec, field: &str, value: &str) {
        let meta = key(spec, "meta");
        self.server.cli(&["hset", &meta, field, value]);
    }

    async fn is_held(&self, spec: &SegmentSpec) -> bool {
        let counts = self.store.snapshot(&spec.id).await.unwrap();
        let wish = purchase(&spec.id, "zoe", "held");
        let bought = self
            .store
            .buy_many(&spec.id, counts.epoch, vec![wish])
            .await;
        counts.needs_rebuild && counts.gate == Gate::Frozen && bought.unwrap() == [Verdict::Frozen]
    }
}

fn key(spec: &SegmentSpec, part: &str) -> String {
    match spec.id.is_of_cart() {
        true => format!("penstock:{{{}}}:{}:{part}", spec.id.sale, spec.id.sku),
        false => format!("penstock:{{{}}}:{part}", spec.id),
    }
}

/// Before the last write of a function that changes counters.
const LAST_WRITE: &str = "local function write_counters(keys, meta)\n";
const DIES: &str = "local function write_counters(keys, meta)\n  if redis.call('EXISTS', 'die') == 1 then error('half way') end\n";

fn is_stale<T>(answer: Result<T, StockError>, epoch: u64) -> bool {
    matches!(answer, Err(StockError::StaleEpoch { current, .. }) if current == epoch)
}

/// INV-ORDER-2: units without their counters are never sold on.
pub async fn a_purchase_that_dies_half_way_stops_the_segment(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.patch(LAST_WRITE, DIES);
    bed.server.cli(&["set", "die", "1"]);
    let wish = purchase(&spec.id, "ann", "r1");
    let died = bed.store.buy_many(&spec.id, epoch, vec![wish]).await;
    assert!(matches!(died, Err(StockError::Corrupt(_))), "{died:?}");
    bed.server.cli(&["del", "die"]);
    assert!(bed.is_held(&spec).await);
    let mut ledger = Vec::new();
    let counts = rebuild(bed.store.as_ref(), &spec, epoch + 1, &mut ledger).await;
    assert_eq!((counts.unwrap().available, ledger.len()), (4, 1));
}

/// The same for what happens to an order later.
pub async fn a_release_that_dies_half_way_stops_the_segment(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let order = bed.take(&spec, epoch, "ann").await;
    bed.patch(LAST_WRITE, DIES);
    bed.server.cli(&["set", "die", "1"]);
    let died = bed.store.release_many(&spec.id, &[order.order]).await;
    assert!(died.is_err(), "{died:?}");
    bed.server.cli(&["del", "die"]);
    assert!(bed.is_held(&spec).await);
}

/// The same for a cart, all of its segments.
pub async fn a_cart_that_dies_half_way_stops_its_segments(bed: Arc<Bed>) {
    let (specs, lines) = cart(&bed).await;
    bed.patch(LAST_WRITE, DIES);
    bed.server.cli(&["set", "die", "1"]);
    let died = bed.store.buy_cart(lines).await;
    assert!(matches!(died, Err(StockError::Corrupt(_))), "{died:?}");
    bed.server.cli(&["del", "die"]);
    for spec in &specs {
        assert!(bed.is_held(spec).await, "{}", spec.id);
    }
}

async fn cart(bed: &Bed) -> ([SegmentSpec; 2], Vec<CartLine>) {
    let shoe = spec(5, 5);
    let of = |sku: &str| SegmentSpec {
        id: seckill::ids::SegmentId::of_cart(shoe.id.sale.clone(), sku.parse().unwrap()),
        ..shoe.clone()
    };
    let specs = [of("shoe"), of("lace")];
    let mut lines = Vec::new();
    for spec in &specs {
        let epoch = bed.store.open(spec).await.unwrap().epoch;
        lines.push(CartLine {
            segment: spec.id.clone(),
            epoch,
            purchase: purchase(&spec.id, "ann", "r1"),
        });
    }
    (specs, lines)
}

/// A cart of one sale, whose keys the function takes apart itself.
pub async fn a_cart_sells_and_is_replayed(bed: Arc<Bed>) {
    let (_, lines) = cart(&bed).await;
    let bought = bed.store.buy_cart(lines.clone()).await.unwrap();
    assert!(matches!(bought, CartVerdict::Accepted(_)), "{bought:?}");
    let again = bed.store.buy_cart(lines).await.unwrap();
    assert!(matches!(again, CartVerdict::Replayed(_)), "{again:?}");
}

/// A cart is more than the sum of its lines, even where the request says the same.
pub async fn a_line_bought_alone_with_the_same_content_blocks_its_cart(bed: Arc<Bed>) {
    let (specs, lines) = cart(&bed).await;
    let alone = vec![purchase(&specs[1].id, "ann", "r1")];
    let bought = bed
        .store
        .buy_many(&specs[1].id, lines[1].epoch, alone)
        .await;
    assert!(matches!(bought.unwrap()[0], Verdict::Accepted { .. }));
    let refused = bed.store.buy_cart(lines).await.unwrap();
    let expected = CartVerdict::Refused {
        line: 1,
        verdict: Verdict::KeyReused,
    };
    assert_eq!(refused, expected);
    let counts = bed.store.snapshot(&specs[0].id).await.unwrap();
    assert_eq!(counts.available, 5);
}

/// What a consumer has acknowledged is in the ledger.
pub async fn what_is_settled_is_not_read_again(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.take(&spec, epoch, "ann").await;
    let (store, id) = (bed.store.as_ref(), &spec.id);
    let pulled = store.pull(id, "c1", 9, Duration::ZERO).await.unwrap();
    store.ack(id, &[pulled[0].position]).await.unwrap();
    let order = bed.take(&spec, epoch, "bob").await;
    assert_eq!(unsettled(store, &spec).await.unwrap(), [order]);
}

/// A page of orders that died is not the half of a page.
pub async fn a_load_that_dies_half_way_is_not_continued(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let order = bed.take(&spec, epoch, "ann").await;
    let (store, id, epoch) = (bed.store.as_ref(), &spec.id, epoch + 1);
    store.freeze(id, epoch).await.unwrap();
    let moves = StockMoves::default();
    store.rebuild_begin(&spec, epoch, &moves).await.unwrap();
    bed.patch(LAST_WRITE, DIES);
    bed.server.cli(&["set", "die", "1"]);
    let died = store
        .rebuild_load(id, epoch, std::slice::from_ref(&order))
        .await;
    assert!(died.is_err());
    bed.server.cli(&["del", "die"]);
    let ended = store.rebuild_finish(id, epoch, Gate::Open).await;
    assert!(
        matches!(ended, Err(StockError::AwaitsRebuild(_))),
        "{ended:?}"
    );
    let counts = rebuild(store, &spec, epoch, &mut vec![order]).await;
    assert_eq!(counts.unwrap().available, 4);
}

/// INV-EPOCH-1: what another server life has sold is not known here.
pub async fn a_segment_of_another_server_life_is_held(bed: Arc<Bed>) {
    let (spec, _) = bed.open(5, 5).await;
    bed.set(&spec, "server", "somebody:-1:0");
    assert!(bed.is_held(&spec).await);
    // Nor are its rules changed: they come with its rebuild.
    let other = SegmentSpec {
        buyer_limit: 9,
        ..spec.clone()
    };
    let opened = bed.store.open(&other).await.unwrap();
    assert!(opened.needs_rebuild);
    assert_eq!(opened.spec, spec);
}

/// Neither is what another server life has loaded.
pub async fn a_rebuild_of_another_server_life_is_not_continued(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let (store, epoch) = (bed.store.as_ref(), epoch + 1);
    store.freeze(&spec.id, epoch).await.unwrap();
    let moves = StockMoves::default();
    store.rebuild_begin(&spec, epoch, &moves).await.unwrap();
    bed.set(&spec, "server", "somebody:-1:0");
    let loaded = store.rebuild_load(&spec.id, epoch, &[]).await;
    let ended = store
        .rebuild_finish(&spec.id, epoch, Gate::Open)
        .await
        .map(drop);
    for answer in [loaded, ended] {
        assert!(
            matches!(answer, Err(StockError::AwaitsRebuild(_))),
            "{answer:?}"
        );
    }
}

/// A step that was long on its way finds the segment selling again.
pub async fn a_step_that_comes_after_the_end_of_its_rebuild_is_refused(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let (store, epoch) = (bed.store.as_ref(), epoch + 1);
    rebuild(store, &spec, epoch, &mut Vec::new()).await.unwrap();
    bed.take(&spec, epoch, "ann").await;
    let moves = StockMoves::default();
    assert!(is_stale(store.freeze(&spec.id, epoch).await, epoch));
    assert!(is_stale(
        store.rebuild_begin(&spec, epoch, &moves).await,
        epoch
    ));
    assert!(is_stale(
        store.rebuild_load(&spec.id, epoch, &[]).await,
        epoch
    ));
    // The last step is told what it was told before, and does nothing.
    store.set_gate(&spec.id, Gate::Paused).await.unwrap();
    let ended = store
        .rebuild_finish(&spec.id, epoch, Gate::Open)
        .await
        .unwrap();
    assert_eq!((ended.gate, ended.accepted), (Gate::Paused, 1));
}

/// Its queue was not read into the ledger yet.
pub async fn a_segment_that_was_not_frozen_is_not_wiped(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.take(&spec, epoch, "ann").await;
    let begun = bed
        .store
        .rebuild_begin(&spec, epoch + 1, &StockMoves::default())
        .await;
    assert!(
        matches!(begun, Err(StockError::Unavailable(_))),
        "{begun:?}"
    );
    assert_eq!(bed.store.snapshot(&spec.id).await.unwrap().accepted, 1);
}

/// A frozen segment still has its old orders: it is not opened without being built anew.
pub async fn a_rebuild_cannot_end_before_it_has_begun(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let (store, epoch) = (bed.store.as_ref(), epoch + 1);
    store.freeze(&spec.id, epoch).await.unwrap();
    let ended = store.rebuild_finish(&spec.id, epoch, Gate::Open).await;
    assert!(
        matches!(ended, Err(StockError::AwaitsRebuild(_))),
        "{ended:?}"
    );
    assert!(bed.is_held(&spec).await);
}

/// Even where the clock went back: acknowledgements and readers that hold old positions meet no new entry.
pub async fn positions_grow_over_a_rebuild(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let far = format!("{}-7", now_ms() + 3_600_000);
    bed.server.cli(&["xsetid", &key(&spec, "stream"), &far]);
    bed.take(&spec, epoch, "ann").await;
    let (store, id) = (bed.store.as_ref(), &spec.id);
    let old = store.pull(id, "c1", 9, Duration::ZERO).await.unwrap()[0].position;
    rebuild(store, &spec, epoch + 1, &mut Vec::new())
        .await
        .unwrap();
    let order = bed.take(&spec, epoch + 1, "bob").await;
    store.ack(id, &[old]).await.unwrap();
    assert_eq!(
        unsettled(store, &spec).await.unwrap(),
        std::slice::from_ref(&order)
    );
    let after = store.accepted_after(id, old, 9).await.unwrap();
    assert_eq!(after.last().unwrap().1, order);
}

/// A replica that was behind has a lower version than the nodes have seen.
pub async fn versions_grow_over_a_rebuild_of_an_older_copy(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(50, 50).await;
    for buyer in 0..9 {
        bed.take(&spec, epoch, &format!("b{buyer}")).await;
    }
    let seen = bed.store.snapshot(&spec.id).await.unwrap().version;
    bed.set(&spec, "version", "1");
    let counts = rebuild(bed.store.as_ref(), &spec, epoch + 1, &mut Vec::new()).await;
    assert!(counts.unwrap().version > seen + 1_000);
}

/// A segment whose meta was lost is not a new one.
pub async fn orders_without_their_meta_are_never_opened_anew(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.take(&spec, epoch, "ann").await;
    bed.server
        .cli(&["del", &key(&spec, "meta"), &key(&spec, "stream")]);
    let opened = bed.store.open(&spec).await;
    assert!(matches!(opened, Err(StockError::Corrupt(_))), "{opened:?}");
}

/// INV-STOCK-2 is looked at before each sale.
pub async fn counters_that_do_not_add_up_sell_nothing(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.set(&spec, "available", "6");
    let wish = purchase(&spec.id, "ann", "r1");
    let bought = bed.store.buy_many(&spec.id, epoch, vec![wish]).await;
    assert!(matches!(bought, Err(StockError::Corrupt(_))), "{bought:?}");
}

/// Numbers of 2^53 are counted to the unit.
pub async fn large_counts_are_exact(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(1 << 53, 5).await;
    bed.take(&spec, epoch, "ann").await;
    let counts = bed.store.snapshot(&spec.id).await.unwrap();
    assert_eq!(counts.available, (1 << 53) - 1);
    let restocked = bed.store.restock(&spec.id, "pallet", 1).await;
    assert!(
        matches!(restocked, Err(StockError::Unavailable(_))),
        "{restocked:?}"
    );
}

/// An id that is given twice would make two orders one.
pub async fn an_order_id_is_given_once(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let first = bed.take(&spec, epoch, "ann").await;
    let mut wish = purchase(&spec.id, "bob", "r1");
    wish.order = first.order;
    let bought = bed.store.buy_many(&spec.id, epoch, vec![wish]).await;
    assert!(
        matches!(bought, Err(StockError::Unavailable(_))),
        "{bought:?}"
    );
}

/// The ledger says that one request has one order.
pub async fn two_orders_of_one_request_are_not_loaded(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let order = bed.take(&spec, epoch, "ann").await;
    let other = StoredOrder {
        order: purchase(&spec.id, "ann", "r1").order,
        ..order.clone()
    };
    let loaded = rebuild(
        bed.store.as_ref(),
        &spec,
        epoch + 1,
        &mut vec![order, other],
    )
    .await;
    assert!(matches!(loaded, Err(StockError::Corrupt(_))), "{loaded:?}");
}

/// What is gone cannot have been more than there was.
pub async fn more_withdrawn_than_there_was_is_corrupt(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.store.freeze(&spec.id, epoch + 1).await.unwrap();
    let moves = StockMoves {
        restocks: Vec::new(),
        withdrawals: vec![("t1".to_owned(), 6)],
    };
    let begun = bed.store.rebuild_begin(&spec, epoch + 1, &moves).await;
    assert!(matches!(begun, Err(StockError::Corrupt(_))), "{begun:?}");
}

/// The tombstones of a sale go when nobody may ask for them any more and nothing of it is open, and not before.
pub async fn only_a_settled_sale_forgets_its_orders_and_never_sells_again(bed: Arc<Bed>) {
    const WEEK_MS: u64 = 7 * 24 * 3_600_000;
    let (spec, epoch) = bed.open(5, 5).await;
    let order = bed.take(&spec, epoch, "ann").await;
    let (store, id) = (bed.store.as_ref(), &spec.id);
    let over_for = |ms: u64| SegmentSpec {
        starts_at_ms: 1,
        ends_at_ms: now_ms() - spec.pay_within_ms - ms,
        ..spec.clone()
    };
    let idle = async || {
        let pulled = store.pull(id, "c1", 9, Duration::from_secs(60)).await;
        assert_eq!(pulled.unwrap(), []);
        let lookup = seckill::store::Lookup::Order(order.order);
        store.find(id, &lookup).await.unwrap().is_some()
    };
    store.open(&over_for(WEEK_MS + 60_000)).await.unwrap();
    let pulled = store.pull(id, "c1", 9, Duration::ZERO).await.unwrap();
    store.confirm_many(id, &[order.order]).await.unwrap();
    assert!(idle().await, "not settled");
    store.open(&over_for(WEEK_MS - 60_000)).await.unwrap();
    store.ack(id, &[pulled[0].position]).await.unwrap();
    assert!(idle().await, "too early");
    store.open(&over_for(WEEK_MS + 60_000)).await.unwrap();
    assert!(!idle().await, "kept for ever");
    let counts = store.open(&spec).await.unwrap();
    assert_eq!((counts.sold, counts.needs_rebuild), (1, false));
    assert!(counts.spec.ends_at_ms < now_ms(), "rules cannot reopen it");
    bed.set(&spec, "ends", &spec.ends_at_ms.to_string());
    let wish = purchase(id, "ann", "r1");
    let bought = store.buy_many(id, epoch, vec![wish]).await.unwrap();
    assert_eq!(bought, [Verdict::Ended]);
}

/// Units of orders that nobody paid or gave back are still owed.
pub async fn a_sale_with_reserved_units_keeps_its_orders(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let order = bed.take(&spec, epoch, "ann").await;
    let (store, id) = (bed.store.as_ref(), &spec.id);
    let pulled = store.pull(id, "c1", 9, Duration::ZERO).await.unwrap();
    store.ack(id, &[pulled[0].position]).await.unwrap();
    let over = SegmentSpec {
        starts_at_ms: 1,
        ends_at_ms: 2,
        ..spec.clone()
    };
    store.open(&over).await.unwrap();
    store.pull(id, "c1", 9, Duration::ZERO).await.unwrap();
    let found = store
        .accepted_after(id, Position::default(), 9)
        .await
        .unwrap();
    assert_eq!(found[0].1.order, order.order);
}
