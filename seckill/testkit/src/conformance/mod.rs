//! What every stock store must do, as tests: one suite, run on the embedded store, on a Redis and on a Redis Cluster.
//!
//! A test file names its store once, and gets one test a case:
//!
//! ```text
//! async fn redis() -> Subject { Subject::new(store, now_ms) }
//! testkit::stock_store_conformance!(on_redis, redis());
//! ```
//!
//! Cases share the store they are given: each opens a sale of its own. No case sleeps; windows are set around the store's
//! clock with minutes to spare, so a clock that differs from the tests' by seconds does no harm.

#![allow(clippy::unwrap_used, reason = "the cases are tests")]

mod carts;
mod metadata;
mod model;
mod orders;
mod purchases;
mod queue;
mod rebuild;
mod refusals;
mod transfers;

use std::{any::Any, sync::Arc};

use stock::{
    Gate, Purchase, SegmentSpec, SegmentStatus, StockStore, StoredOrder, Verdict,
    clock::WallClock,
    ids::{OrderId, SaleId, SegmentId, SkuId},
};

pub use self::{
    carts::*, metadata::*, model::*, orders::*, purchases::*, queue::*, rebuild::*, refusals::*,
    transfers::*,
};

/// Far enough from now that neither a slow test nor a clock that is a little off reaches it.
const FAR_MS: u64 = 600_000;
const PAY_WITHIN_MS: u64 = 900_000;

/// A store under test.
pub struct Subject {
    store: Arc<dyn StockStore>,
    now_ms: WallClock,
    /// What must live as long as the store: a folder, a server.
    _guard: Box<dyn Any + Send + Sync>,
}

impl Subject {
    /// A store, and its clock.
    pub fn new(store: Arc<dyn StockStore>, now_ms: WallClock) -> Self {
        Self {
            store,
            now_ms,
            _guard: Box::new(()),
        }
    }

    /// The same, with something that is dropped after the store.
    pub fn keeping(self, guard: impl Any + Send + Sync) -> Self {
        Self {
            _guard: Box::new(guard),
            ..self
        }
    }
}

/// Makes one test of every case. The expression gives the [`Subject`] and is evaluated for each of them.
#[macro_export]
macro_rules! stock_store_conformance {
    ($name:ident, $subject:expr) => {
        $crate::stock_store_conformance! { @each $name, $subject;
            an_accepted_purchase_takes_its_units_and_is_remembered
            a_replay_answers_the_first_order_and_changes_nothing
            a_request_id_with_other_content_is_a_conflict
            another_buyers_request_id_is_another_request
            the_same_request_twice_in_one_batch_is_one_order
            later_orders_of_a_buyer_are_remembered_like_his_first
            a_batch_is_answered_in_the_order_of_its_items
            a_batch_of_any_size_is_answered_whole
            before_the_window_nothing_is_sold
            after_the_window_nothing_is_sold
            a_paused_sale_sells_nothing_until_it_is_resumed
            a_closed_sale_has_ended
            a_frozen_segment_is_never_sold_out
            an_old_epoch_buys_nothing
            a_replay_is_answered_even_when_nobody_can_buy
            the_buyer_limit_counts_live_units
            sold_out_tells_what_is_left
            a_quantity_of_zero_or_far_too_much_changes_nothing
            a_segment_that_was_never_opened_is_not_open
            released_units_are_sold_again_and_returned_once
            a_released_request_stays_a_tombstone
            release_after_confirm_is_refused
            a_late_confirm_finds_the_order_released
            orders_that_are_not_there_are_unknown
            the_same_order_twice_in_one_call_counts_once
            an_order_is_found_by_its_id_and_by_its_request
            a_restock_adds_its_units_once
            opening_again_never_resets_stock
            changed_rules_take_effect
            segments_do_not_touch_each_other
            the_version_grows_with_every_change
            every_accepted_order_is_handed_out_once
            what_is_not_acknowledged_is_handed_out_again
            acknowledged_entries_never_come_back
            what_a_consumer_holds_is_not_handed_out_too_early
            an_entry_shows_its_order_as_it_stands_now
            all_accepted_orders_can_be_paged_through
            depth_counts_what_is_not_acknowledged
            a_cart_takes_all_its_lines
            a_cart_with_one_refused_line_takes_nothing
            a_cart_is_replayed_whole_and_its_request_is_never_reused
            a_line_bought_alone_blocks_the_cart_of_the_same_request
            concurrent_carts_are_all_or_nothing
            metadata_comes_back_with_its_order
            metadata_does_not_hide_a_reused_request
            metadata_survives_a_rebuild
            each_order_of_a_cart_has_its_metadata
            a_withdrawal_takes_what_there_is_once
            withdrawn_units_are_not_sold
            a_frozen_segment_gives_nothing_away
            a_frozen_segment_answers_replays_and_nothing_else
            an_older_epoch_cannot_freeze_or_rebuild
            what_was_never_settled_is_read_while_frozen
            a_rebuilt_segment_holds_what_the_ledger_said
            a_rebuilt_segment_knows_the_later_orders_of_a_buyer
            a_rebuilt_segment_hands_out_no_settled_order_again
            a_rebuild_that_died_half_way_begins_anew
            a_lost_segment_is_rebuilt_from_nothing
            a_rebuild_refuses_more_orders_than_there_are_units
            late_acknowledgements_of_an_older_epoch_take_nothing_off_the_queue
            a_called_off_withdrawal_stays_called_off_after_a_rebuild
            a_random_history_follows_the_model
            concurrent_buyers_never_oversell_and_sell_everything
        }
    };
    (@each $name:ident, $subject:expr; $($case:ident)*) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::conformance::$case(&$subject.await).await;
                }
            )*
        }
    };
}

/// One open segment of a subject, with the few words that most cases need.
struct Counter<'a> {
    subject: &'a Subject,
    spec: SegmentSpec,
    epoch: u64,
}

impl<'a> Counter<'a> {
    /// Opens a segment of a new sale: in its window, with that stock and that buyer limit.
    async fn open(subject: &'a Subject, stock: u64, buyer_limit: u32) -> Self {
        Self::open_with(subject, Self::spec(subject, stock, buyer_limit)).await
    }

    /// Opens a segment of a sale with carts; all of one `sale` live together.
    async fn open_of_cart(subject: &'a Subject, sale: &SaleId, sku: &str, stock: u64) -> Self {
        let id = SegmentId::of_cart(sale.clone(), sku.parse().expect("cases use legal skus"));
        let spec = Self::spec(subject, stock, 3);
        Self::open_with(subject, SegmentSpec { id, ..spec }).await
    }

    async fn open_with(subject: &'a Subject, spec: SegmentSpec) -> Self {
        let snapshot = subject
            .store
            .open(&spec)
            .await
            .expect("a store opens a new segment");
        assert_eq!(snapshot.spec, spec);
        Self {
            subject,
            spec,
            epoch: snapshot.epoch,
        }
    }

    fn spec(subject: &Subject, stock: u64, buyer_limit: u32) -> SegmentSpec {
        let now_ms = (subject.now_ms)();
        let sale = format!("conformance-{:016x}", rand::random::<u64>());
        SegmentSpec {
            id: SegmentId::first(
                SaleId::try_new(&sale).expect("hex digits are allowed"),
                SkuId::try_new("shoe").expect("letters are allowed"),
            ),
            stock,
            starts_at_ms: now_ms - FAR_MS,
            ends_at_ms: now_ms + FAR_MS,
            buyer_limit,
            pay_within_ms: PAY_WITHIN_MS,
            durability: None,
        }
    }

    fn store(&self) -> &dyn StockStore {
        self.subject.store.as_ref()
    }

    fn id(&self) -> &SegmentId {
        &self.spec.id
    }

    /// A purchase with a new order id. Its fingerprint is its quantity: other content is another quantity.
    fn purchase(&self, buyer: &str, request: &str, quantity: u32) -> Purchase {
        Purchase {
            order: OrderId::new((self.subject.now_ms)(), self.id().tag(), rand::random()),
            buyer: buyer.parse().expect("cases use legal buyers"),
            request: request.parse().expect("cases use legal request ids"),
            // Above 2^53, so that a store that counts in doubles would mix fingerprints up.
            fingerprint: u64::MAX - u64::from(quantity),
            quantity,
            metadata: None,
        }
    }

    async fn buy_many(&self, purchases: Vec<Purchase>) -> Vec<Verdict> {
        let count = purchases.len();
        let verdicts = self
            .store()
            .buy_many(self.id(), self.epoch, purchases)
            .await
            .expect("a store decides");
        assert_eq!(verdicts.len(), count, "one verdict for each purchase");
        verdicts
    }

    async fn buy(&self, buyer: &str, request: &str, quantity: u32) -> Verdict {
        self.buy_many(vec![self.purchase(buyer, request, quantity)])
            .await
            .remove(0)
    }

    /// Buys, where nothing speaks against it.
    async fn take(&self, buyer: &str, request: &str, quantity: u32) -> StoredOrder {
        match self.buy(buyer, request, quantity).await {
            Verdict::Accepted { order, .. } => order,
            refused => panic!("{buyer} {request} {quantity} was not accepted: {refused:?}"),
        }
    }

    /// Counts now, with INV-STOCK-2 checked.
    async fn snapshot(&self) -> SegmentStatus {
        let counts = self
            .store()
            .snapshot(self.id())
            .await
            .expect("a store counts");
        assert_eq!(
            counts.available + counts.reserved + counts.sold,
            counts.capacity(),
            "INV-STOCK-2: {counts:?}"
        );
        counts
    }

    async fn set_gate(&self, gate: Gate) {
        let counts = self
            .store()
            .set_gate(self.id(), gate)
            .await
            .expect("a store sets its gate");
        assert_eq!(counts.gate, gate);
    }
}
