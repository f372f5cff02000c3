//! Each rule that a run is judged by with a case it must catch, and the cases it must let pass.

use std::time::Duration;

use super::*;
use crate::history::event::{SaleFacts, SkuFacts};
use crate::ledger::OrderStatus;
use crate::outcome::Outcome;
use crate::scenario::Shape;

/// Ten purchases of one unit of `shoe`, five on sale, two a buyer.
struct Case {
    scenario: Scenario,
    log: ClientLog,
    ids: Identities,
    facts: EndFacts,
}

impl Case {
    fn new() -> Case {
        let mut scenario = Scenario::new(
            "http://127.0.0.1:1",
            Shape::Constant {
                rate: 10.0,
                duration: Duration::from_secs(1),
            },
        );
        scenario.sale = Some(Sale {
            id: "drop".into(),
            skus: vec!["shoe".into()],
            ..Sale::default()
        });
        scenario.reconcile.returns_timeout = Duration::ZERO;
        let mut case = Case {
            log: ClientLog::new(10),
            ids: Identities::new(&scenario),
            facts: EndFacts {
                sale: SaleFacts {
                    id: "drop".into(),
                    starts_at_ms: 0,
                    ends_at_ms: u64::MAX,
                    buyer_limit: 2,
                    skus: Vec::new(),
                },
                rows: Vec::new(),
                report: SaleReport::default(),
            },
            scenario,
        };
        case.offer("shoe");
        case
    }

    /// All purchases are one buyer's, who may hold what they like.
    fn of_one_buyer() -> Case {
        let mut case = Case::new();
        case.scenario.buyers.count = 1;
        case.ids = Identities::new(&case.scenario);
        case.facts.sale.buyer_limit = 0;
        case
    }

    /// Carts of two skus, five units of each.
    fn of_carts() -> Case {
        let mut case = Case::new();
        let sale = case.scenario.sale.as_mut().unwrap();
        sale.skus.push("sock".into());
        sale.cart_percent = 100.0;
        case.ids = Identities::new(&case.scenario);
        case.offer("sock");
        case
    }

    fn offer(&mut self, sku: &str) {
        self.facts.sale.skus.push(SkuFacts {
            sku: sku.into(),
            stock: 5,
        });
        self.facts.report.skus.push(SkuReport {
            sku: sku.into(),
            stock: 5,
            ..SkuReport::default()
        });
    }

    fn refuse(&mut self, purchase: u32) {
        self.log.note_sent(purchase, false);
        self.log.note_purchase(purchase, Outcome::SoldOut, None);
    }

    fn time_out(&mut self, purchase: u32) {
        self.log.note_sent(purchase, false);
        self.log.note_purchase(purchase, Outcome::Timeout, None);
    }

    fn acknowledge(&mut self, purchase: u32) {
        self.answer(purchase, &[(0, &format!("ord_{purchase}"))]);
    }

    fn answer(&mut self, purchase: u32, orders: &[(u8, &str)]) {
        self.log.note_sent(purchase, false);
        let orders = orders.iter().copied();
        self.log.note_purchase(purchase, Outcome::Accepted, orders);
    }

    fn pay(&mut self, purchase: u32, outcome: Outcome) {
        self.log.note_pay_sent(purchase);
        self.log.note_pay(purchase, outcome);
    }

    fn settle(&mut self, purchase: u32, status: OrderStatus) {
        self.row(purchase, &format!("ord_{purchase}"), "shoe", status);
    }

    fn row(&mut self, purchase: u32, order: &str, sku: &str, status: OrderStatus) {
        self.facts.rows.push(LedgerRow {
            id: order.into(),
            sku: sku.into(),
            buyer: self.ids.buyer_id(purchase),
            quantity: 1,
            status,
            request_id: Some(self.ids.request_id(purchase)),
            created_at_ms: None,
            pay_by_ms: None,
        });
    }

    fn sell(&mut self, purchase: u32) {
        self.acknowledge(purchase);
        self.settle(purchase, OrderStatus::Reserved);
    }

    /// Judges, with an account that says what the rows say.
    fn judged(&self) -> Reconciliation {
        let mut facts = self.facts.clone();
        let rows = |status: OrderStatus| {
            let of = facts.rows.iter().filter(|row| row.status == status);
            of.count() as u64
        };
        let report = &mut facts.report;
        report.accepted += facts.rows.len() as u64;
        report.settled += facts.rows.len() as u64;
        report.paid += rows(OrderStatus::Paid);
        report.returned += rows(OrderStatus::Released);
        for sku in &mut report.skus {
            for row in facts.rows.iter().filter(|row| row.sku == sku.sku) {
                sku.reserved += u64::from(row.status.is_live() && row.status != OrderStatus::Paid);
                sku.sold += u64::from(row.status == OrderStatus::Paid);
            }
            sku.available += (sku.stock + sku.restocked).saturating_sub(sku.reserved + sku.sold);
        }
        let sale = self.scenario.sale.as_ref().unwrap();
        judged(&self.scenario, sale, &self.log, &facts).unwrap()
    }

    fn broken(&self) -> Vec<String> {
        let found = self.judged().findings;
        found.into_iter().map(|found| found.rule).collect()
    }

    fn holds(&self) {
        let found = self.judged().findings;
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn a_clean_sale_has_no_finding() {
    let mut case = Case::new();
    for purchase in 0..5 {
        case.sell(purchase);
    }
    case.refuse(5);
    case.time_out(6);
    case.holds();
    assert_eq!(case.judged().foreign_orders, 0);
}

#[test]
fn more_live_units_in_the_ledger_than_stock_is_oversold() {
    let mut case = Case::new();
    for purchase in 0..7 {
        case.time_out(purchase);
        case.settle(purchase, OrderStatus::Reserved);
    }
    let found = case.judged();
    assert_eq!(found.oversold, 2);
    assert!(case.broken().contains(&"oversold_ledger".to_owned()));
}

#[test]
fn more_acknowledged_than_stock_is_oversold_even_if_the_ledger_hides_it() {
    let mut case = Case::new();
    for purchase in 0..6 {
        case.acknowledge(purchase);
    }
    for purchase in 0..5 {
        case.settle(purchase, OrderStatus::Reserved);
    }
    assert_eq!(case.judged().oversold, 1);
    assert_eq!(case.broken(), ["oversold", "lost"]);
}

#[test]
fn returned_units_may_be_sold_again_and_restocks_count() {
    let mut case = Case::new();
    for purchase in 0..7 {
        case.acknowledge(purchase);
        let status = match purchase {
            0 => OrderStatus::Released,
            _ => OrderStatus::Paying,
        };
        case.settle(purchase, status);
    }
    assert_eq!(case.judged().oversold, 1);
    case.facts.report.skus[0].restocked = 1;
    case.holds();
}

#[test]
fn stock_of_one_sku_does_not_cover_another() {
    let mut case = Case::new();
    case.sell(0);
    case.facts.rows[0].sku = "hat".into();
    assert_eq!(case.judged().oversold, 1);
}

#[test]
fn two_order_ids_for_one_request_in_the_answers_is_a_duplicate() {
    let mut case = Case::new();
    case.sell(0);
    case.answer(0, &[(0, "ord_1")]);
    case.row(0, "ord_1", "shoe", OrderStatus::Reserved);
    assert_eq!(case.judged().duplicated, 1);
    assert_eq!(case.broken(), ["two_orders"]);
}

#[test]
fn two_rows_for_one_request_in_the_ledger_is_a_duplicate() {
    let mut case = Case::new();
    case.sell(0);
    case.row(0, "ord_1", "shoe", OrderStatus::Released);
    assert_eq!(case.judged().duplicated, 1);
    assert_eq!(case.broken(), ["resurrected"]);
}

#[test]
fn an_acknowledged_order_missing_in_the_ledger_is_lost() {
    let mut case = Case::new();
    case.acknowledge(3);
    let found = case.judged();
    assert_eq!(found.lost, 1);
    let detail = "ord_3 was acknowledged at an unknown time and is not in the ledger";
    assert_eq!(found.findings[0].detail, detail);
}

#[test]
fn findings_beyond_the_examples_are_counted() {
    let mut case = Case::new();
    for purchase in 0..7 {
        case.acknowledge(purchase);
    }
    let lost = &case.judged().findings[1];
    assert_eq!((&*lost.rule, lost.count), ("lost", 7));
    assert!(lost.detail.ends_with("; …"), "{}", lost.detail);
}

#[test]
fn a_ledger_order_of_a_refused_request_is_a_phantom() {
    let mut case = Case::new();
    case.refuse(0);
    case.settle(0, OrderStatus::Reserved);
    assert_eq!(case.judged().phantom, 1);
    assert_eq!(case.broken(), ["phantom"]);
}

#[test]
fn a_ledger_order_of_a_request_never_sent_is_a_phantom() {
    let mut case = Case::new();
    case.settle(9, OrderStatus::Reserved);
    assert_eq!(case.judged().phantom, 1);
}

#[test]
fn a_ledger_order_of_an_unanswered_request_is_no_phantom() {
    let mut case = Case::new();
    case.time_out(0);
    case.log.note_sent(0, true);
    case.log.note_purchase(0, Outcome::Limited, None);
    case.settle(0, OrderStatus::Reserved);
    case.holds();
}

#[test]
fn a_ledger_order_of_a_request_that_an_interrupted_run_left_behind_is_no_phantom() {
    let mut case = Case::of_one_buyer();
    case.sell(1);
    case.log.note_sent(0, false);
    case.settle(0, OrderStatus::Reserved);
    case.holds();
}

#[test]
fn orders_of_other_clients_are_no_phantoms_but_count_for_the_stock() {
    let mut case = Case::new();
    for purchase in 0..6 {
        case.settle(purchase, OrderStatus::Paid);
        let row = &mut case.facts.rows[purchase as usize];
        row.request_id = Some(format!("somebody-{purchase}"));
    }
    let found = case.judged();
    assert_eq!((found.phantom, found.oversold), (0, 1));
    assert_eq!(found.foreign_orders, 6);
}

#[test]
fn an_order_recorded_for_another_request_is_misattributed() {
    let mut case = Case::new();
    case.sell(0);
    case.time_out(1);
    case.facts.rows[0].request_id = Some(case.ids.request_id(1));
    assert_eq!(case.judged().misattributed, 1);
}

#[test]
fn a_payment_that_succeeded_needs_a_paid_order() {
    for status in [OrderStatus::Reserved, OrderStatus::Released] {
        let mut case = Case::new();
        case.acknowledge(0);
        case.pay(0, Outcome::Paid);
        case.settle(0, status);
        assert_eq!(case.judged().paid_mismatch, 1, "{status:?}");
    }
}

#[test]
fn a_paid_order_needs_a_payment() {
    let mut case = Case::new();
    case.acknowledge(0);
    case.settle(0, OrderStatus::Paid);
    assert_eq!(case.broken(), ["paid_mismatch"]);

    case.pay(0, Outcome::Declined);
    assert_eq!(case.judged().paid_mismatch, 1);
    case.pay(0, Outcome::Paid);
    case.holds();
}

#[test]
fn a_payment_without_an_answer_may_have_ended_either_way() {
    for status in [OrderStatus::Paid, OrderStatus::Released] {
        let mut case = Case::new();
        case.acknowledge(0);
        case.pay(0, Outcome::Timeout);
        case.settle(0, status);
        case.holds();
    }
}

#[test]
fn a_buyer_with_more_live_units_than_the_limit_is_found_once() {
    let mut case = Case::new();
    case.facts.sale.buyer_limit = 0;
    case.sell(0);
    case.holds();
    for purchase in 1..3 {
        case.settle(purchase, OrderStatus::Reserved);
        case.facts.rows[purchase as usize].request_id = None;
        case.facts.rows[purchase as usize].buyer = "greedy".into();
    }
    case.holds();
    case.facts.sale.buyer_limit = 1;
    assert_eq!(case.judged().over_limit, 1);
    assert_eq!(case.broken(), ["buyer_limit"]);
    case.facts.rows[1].status = OrderStatus::Released;
    case.holds();

    let mut case = Case::of_one_buyer();
    for purchase in 0..3 {
        case.sell(purchase);
    }
    case.holds();
    case.facts.sale.buyer_limit = 2;
    let over = case.judged().over_limit;
    assert_eq!(over, 1, "by the answers and by the ledger");
}

#[test]
fn an_order_outside_the_window_is_found_by_the_stores_clock_and_not_by_the_answers() {
    let mut case = Case::new();
    case.facts.sale.starts_at_ms = 1_000_000;
    case.facts.sale.ends_at_ms = 2_000_000;
    case.sell(0);
    case.holds();
    case.facts.rows[0].created_at_ms = Some(999_999);
    assert_eq!(case.broken(), ["window"]);
}

#[test]
fn an_account_that_does_not_add_up_is_found() {
    let mut case = Case::new();
    case.facts.report.skus[0].available = 1;
    assert_eq!(case.broken(), ["conservation"]);
}

#[test]
fn an_account_that_counts_other_than_the_rows_is_found() {
    let mut case = Case::new();
    case.sell(0);
    case.facts.report.paid = 1;
    assert_eq!(case.broken(), ["counts"]);
}

#[test]
fn an_unfinished_settlement_is_found() {
    let mut case = Case::new();
    case.facts.report.accepted = 1;
    assert_eq!(case.broken(), ["unsettled"]);
    assert_eq!(case.judged().unsettled, 1);
    case.facts.report.refused = 1;
    case.holds();
    case.facts.report.queue_depth = 2;
    assert_eq!(case.broken(), ["unsettled"]);
}

#[test]
fn units_still_reserved_after_the_wait_are_found_when_returns_are_expected() {
    let mut case = Case::new();
    case.sell(0);
    case.holds();
    case.scenario.reconcile.returns_timeout = Duration::from_secs(1);
    assert_eq!(case.broken(), ["unreturned"]);
}

#[test]
fn a_cart_is_answered_and_recorded_with_all_its_lines_or_not_at_all() {
    let mut case = Case::of_carts();
    let skus: Vec<usize> = case.ids.skus_of(0).collect();
    let sku = |line: usize| ["shoe", "sock"][skus[line]];
    case.answer(0, &[(0, "ord_a"), (1, "ord_b")]);
    case.answer(0, &[(1, "ord_b"), (0, "ord_a")]);
    case.row(0, "ord_a", sku(0), OrderStatus::Reserved);
    case.row(0, "ord_b", sku(1), OrderStatus::Reserved);
    case.holds();

    case.facts.rows.pop();
    assert_eq!(case.broken(), ["partial_cart", "lost"]);
    case.row(0, "ord_c", sku(1), OrderStatus::Reserved);
    assert_eq!(case.judged().duplicated, 1, "{:?}", case.broken());

    let mut case = Case::of_carts();
    case.answer(0, &[(1, "ord_b")]);
    case.row(0, "ord_b", sku(1), OrderStatus::Reserved);
    assert_eq!(case.broken(), ["partial_cart"]);
    assert_eq!(case.judged().partial_carts, 2, "the answer and the rows");
}

#[test]
fn one_order_for_two_lines_of_a_cart_is_misattributed() {
    let mut case = Case::of_carts();
    case.answer(0, &[(0, "ord_a"), (1, "ord_a")]);
    for sku in ["shoe", "sock"] {
        case.row(0, "ord_a", sku, OrderStatus::Reserved);
    }
    let found = case.judged();
    assert!(found.misattributed > 0, "{:?}", found.findings);
    assert_eq!(found.partial_carts, 0, "{:?}", found.findings);
}

#[test]
fn two_orders_for_one_line_of_a_cart_are_a_duplicate_and_no_partial_cart() {
    let mut case = Case::of_carts();
    let skus: Vec<usize> = case.ids.skus_of(0).collect();
    case.answer(0, &[(0, "ord_a"), (1, "ord_b")]);
    case.answer(0, &[(0, "ord_c"), (1, "ord_b")]);
    for (order, line) in [("ord_a", 0), ("ord_b", 1)] {
        case.row(
            0,
            order,
            ["shoe", "sock"][skus[line]],
            OrderStatus::Reserved,
        );
    }
    let found = case.judged();
    assert_eq!(
        (found.duplicated, found.partial_carts, found.lost),
        (1, 0, 1)
    );
}
