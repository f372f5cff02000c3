//! What must hold and can only be shown with a hand on the server: faults inside a call, another server life, a clock that went back.

use std::{sync::Arc, time::Duration};

use stock::{
    CartLine, CartVerdict, Gate, Moves, OrderQueue, Position, SegmentSpec, Segments, Selling,
    StockError, StoredOrder, Verdict,
};
use testkit::{
    rebuild::{rebuild, unsettled},
    redis::{now_ms, purchase, spec},
};

use super::Bed;

impl Bed {
    pub(super) async fn open(&self, stock: u64, limit: u32) -> (SegmentSpec, u64) {
        let spec = spec(stock, limit);
        let epoch = self.store.open(&spec).await.unwrap().epoch;
        (spec, epoch)
    }

    pub(super) async fn take(&self, spec: &SegmentSpec, epoch: u64, buyer: &str) -> StoredOrder {
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

    pub(super) fn set(&self, spec: &SegmentSpec, field: &str, value: &str) {
        let meta = key(spec, "meta");
        self.server.cli(&["hset", &meta, field, value]);
    }

    pub(super) async fn is_held(&self, spec: &SegmentSpec) -> bool {
        let counts = self.store.snapshot(&spec.id).await.unwrap();
        let wish = purchase(&spec.id, "zoe", "held");
        let bought = self
            .store
            .buy_many(&spec.id, counts.epoch, vec![wish])
            .await;
        counts.needs_rebuild && counts.gate == Gate::Frozen && bought.unwrap() == [Verdict::Frozen]
    }
}

pub(super) fn key(spec: &SegmentSpec, part: &str) -> String {
    match spec.id.is_of_cart() {
        true => format!("penstock:{{{}}}:{}:{part}", spec.id.sale, spec.id.sku),
        false => format!("penstock:{{{}}}:{part}", spec.id),
    }
}

/// Before the last write of a function that changes counters.
pub(super) const LAST_WRITE: &str = "local function write_counters(keys, meta)\n";
pub(super) const DIES: &str = "local function write_counters(keys, meta)\n  if redis.call('EXISTS', 'die') == 1 then error('half way') end\n";

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
        id: stock::ids::SegmentId::of_cart(shoe.id.sale.clone(), sku.parse().unwrap()),
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

/// A cart of one sale, whose keys the function takes apart itself; then two more of the same buyer. Each is found by its request.
pub async fn later_carts_of_a_buyer_are_remembered_like_his_first(bed: Arc<Bed>) {
    let (specs, first) = cart(&bed).await;
    let under = |request: &str| {
        let mut lines = first.clone();
        for line in &mut lines {
            line.purchase = purchase(&line.segment, "ann", request);
        }
        lines
    };
    let carts = [first.clone(), under("r2"), under("r3")];
    for lines in &carts {
        let bought = bed.store.buy_cart(lines.clone()).await.unwrap();
        assert!(matches!(bought, CartVerdict::Accepted(_)), "{bought:?}");
    }
    for lines in carts {
        let orders: Vec<_> = lines.iter().map(|line| line.purchase.order).collect();
        let again = bed.store.buy_cart(lines).await.unwrap();
        let CartVerdict::Replayed(again) = again else {
            panic!("{again:?}")
        };
        let found: Vec<_> = again.iter().map(|order| order.order).collect();
        assert_eq!(found, orders);
    }
    for spec in &specs {
        assert_eq!(bed.store.snapshot(&spec.id).await.unwrap().available, 2);
    }
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

/// INV-ORDER-2: a request whose order somebody deleted is not a new one.
pub async fn an_order_that_is_gone_is_not_bought_again(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    let order = bed.take(&spec, epoch, "ann").await;
    let orders = key(&spec, "orders");
    bed.server.cli(&["hdel", &orders, &order.order.to_string()]);
    let wish = purchase(&spec.id, "ann", "r1");
    let bought = bed.store.buy_many(&spec.id, epoch, vec![wish]).await;
    assert!(matches!(bought, Err(StockError::Corrupt(_))), "{bought:?}");
}

/// INV-BUYER-1: nobody knows how many he has.
pub async fn a_buyer_whose_units_cannot_be_read_buys_nothing(bed: Arc<Bed>) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.server
        .cli(&["hset", &key(&spec, "buyers"), "ann", "many"]);
    let wish = purchase(&spec.id, "ann", "r1");
    let bought = bed.store.buy_many(&spec.id, epoch, vec![wish]).await;
    assert!(matches!(bought, Err(StockError::Corrupt(_))), "{bought:?}");
}

/// What is only written for some purchases is looked at before all.
pub async fn requests_of_a_foreign_type_stop_the_sale_before_a_write(bed: Arc<Bed>) {
    stops_before_a_write(&bed, "requests").await;
}

/// The same for what is never read.
pub async fn a_queue_of_a_foreign_type_stops_the_sale_before_a_write(bed: Arc<Bed>) {
    stops_before_a_write(&bed, "stream").await;
}

async fn stops_before_a_write(bed: &Bed, part: &str) {
    let (spec, epoch) = bed.open(5, 5).await;
    bed.server.cli(&["del", &key(&spec, part)]);
    bed.server.cli(&["set", &key(&spec, part), "somebody's"]);
    let wish = purchase(&spec.id, "ann", "r1");
    let bought = bed.store.buy_many(&spec.id, epoch, vec![wish]).await;
    assert!(matches!(bought, Err(StockError::Corrupt(_))), "{bought:?}");
    let counts = bed.store.snapshot(&spec.id).await.unwrap();
    assert_eq!((counts.available, counts.needs_rebuild), (5, false));
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
        let lookup = stock::Lookup::Order(order.order);
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
