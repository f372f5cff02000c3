//! Each rule with a case it must catch, and the cases it must let pass.

use std::time::Duration;

use super::*;
use crate::outcome::Outcome;
use crate::reconcile::SkuReport;
use crate::scenario::{Sale, Scenario, Shape};

/// Ten purchases of one unit of `shoe`, five on sale, two a buyer.
struct Case {
    history: History,
    ids: Identities,
    rows: Vec<LedgerRow>,
    report: SaleReport,
    rules: Rules,
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
        Case {
            history: History::new(10),
            ids: Identities::new(&scenario),
            rows: Vec::new(),
            report: SaleReport {
                skus: vec![SkuReport {
                    sku: "shoe".into(),
                    stock: 5,
                    available: 5,
                    ..SkuReport::default()
                }],
                ..SaleReport::default()
            },
            rules: Rules {
                quantity: 1,
                skus: vec!["shoe".into()],
                buyer_limit: Some(2),
                expect_returns: false,
            },
        }
    }

    fn acknowledge(&mut self, purchase: u32) {
        self.history.note_sent(purchase, false);
        let order = format!("ord_{purchase}");
        self.history
            .note_purchase(purchase, Outcome::Accepted, [order.as_str()]);
    }

    fn settle(&mut self, purchase: u32, status: OrderStatus) {
        self.rows.push(LedgerRow {
            id: format!("ord_{purchase}"),
            sku: "shoe".into(),
            buyer: format!("buyer-{purchase}"),
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

    fn judge(&self) -> Judged {
        judge(
            &self.history,
            &self.ids,
            &self.rows,
            &self.report,
            &self.rules,
        )
    }

    fn rules_broken(&self) -> Vec<String> {
        self.judge().findings.into_iter().map(|f| f.rule).collect()
    }
}

#[test]
fn a_clean_sale_has_no_finding() {
    let mut case = Case::new();
    for purchase in 0..5 {
        case.sell(purchase);
    }
    case.history.note_sent(5, false);
    case.history.note_purchase(5, Outcome::SoldOut, None);
    case.history.note_sent(6, false);
    case.history.note_purchase(6, Outcome::Timeout, None);
    assert_eq!(case.judge(), Judged::default());
}

#[test]
fn more_live_units_in_the_ledger_than_stock_is_oversold() {
    let mut case = Case::new();
    for purchase in 0..7 {
        case.sell(purchase);
    }
    let judged = case.judge();
    assert_eq!(judged.oversold, 2);
    assert_eq!(case.rules_broken(), ["oversold"]);
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
    assert_eq!(case.judge().oversold, 1);
}

#[test]
fn returned_units_may_be_sold_again_and_restocks_count() {
    let mut case = Case::new();
    for purchase in 0..7 {
        case.acknowledge(purchase);
        let status = if purchase < 1 {
            OrderStatus::Released
        } else {
            OrderStatus::Paying
        };
        case.settle(purchase, status);
    }
    assert_eq!(case.judge().oversold, 1);
    case.report.skus[0].restocked = 1;
    case.report.skus[0].available = 6;
    assert_eq!(case.judge(), Judged::default());
}

#[test]
fn stock_of_one_sku_does_not_cover_another() {
    let mut case = Case::new();
    case.sell(0);
    case.rows[0].sku = "hat".into();
    assert_eq!(case.judge().oversold, 1);
}

#[test]
fn two_order_ids_for_one_request_in_the_answers_is_a_duplicate() {
    let mut case = Case::new();
    case.sell(0);
    case.history.note_purchase(0, Outcome::Replayed, ["ord_1"]);
    case.settle(1, OrderStatus::Reserved);
    case.rows[1].request_id = None;
    assert_eq!(case.judge().duplicated, 1);
}

#[test]
fn two_rows_for_one_request_in_the_ledger_is_a_duplicate() {
    let mut case = Case::new();
    case.sell(0);
    case.settle(1, OrderStatus::Released);
    case.rows[1].request_id = Some(case.ids.request_id(0));
    assert_eq!(case.judge().duplicated, 1);
    assert_eq!(case.rules_broken(), ["duplicated"]);
}

#[test]
fn an_acknowledged_order_missing_in_the_ledger_is_lost() {
    let mut case = Case::new();
    case.acknowledge(3);
    let judged = case.judge();
    assert_eq!(judged.lost, 1);
    assert!(judged.findings[0].detail.contains("ord_3"));
    assert!(judged.may_be_in_passing());
}

#[test]
fn a_ledger_order_of_a_refused_request_is_a_phantom() {
    let mut case = Case::new();
    case.history.note_sent(0, false);
    case.history.note_purchase(0, Outcome::SoldOut, None);
    case.settle(0, OrderStatus::Reserved);
    assert_eq!(case.judge().phantom, 1);
}

#[test]
fn a_ledger_order_of_a_request_never_sent_is_a_phantom() {
    let mut case = Case::new();
    case.settle(9, OrderStatus::Reserved);
    assert_eq!(case.judge().phantom, 1);
}

#[test]
fn a_ledger_order_of_an_unanswered_request_is_no_phantom() {
    let mut case = Case::new();
    case.history.note_sent(0, false);
    case.history.note_purchase(0, Outcome::Timeout, None);
    case.history.note_sent(0, true);
    case.history.note_purchase(0, Outcome::Limited, None);
    case.settle(0, OrderStatus::Reserved);
    assert_eq!(case.judge(), Judged::default());
}

#[test]
fn orders_of_other_clients_are_no_phantoms_but_count_for_the_stock() {
    let mut case = Case::new();
    for purchase in 0..6 {
        case.settle(purchase, OrderStatus::Paid);
        case.rows[purchase as usize].request_id = Some(format!("somebody-{purchase}"));
    }
    let judged = case.judge();
    assert_eq!((judged.phantom, judged.oversold), (0, 1));
}

#[test]
fn an_order_recorded_for_another_request_is_misattributed() {
    let mut case = Case::new();
    case.sell(0);
    case.history.note_sent(1, false);
    case.history.note_purchase(1, Outcome::Timeout, None);
    case.rows[0].request_id = Some(case.ids.request_id(1));
    assert_eq!(case.judge().misattributed, 1);
}

#[test]
fn a_payment_that_succeeded_needs_a_paid_order() {
    for status in [OrderStatus::Reserved, OrderStatus::Released] {
        let mut case = Case::new();
        case.acknowledge(0);
        case.history.note_pay_sent(0);
        case.history.note_pay(0, Outcome::Paid);
        case.settle(0, status);
        assert_eq!(case.judge().paid_mismatch, 1, "{status:?}");
    }
}

#[test]
fn a_paid_order_needs_a_payment() {
    let mut case = Case::new();
    case.acknowledge(0);
    case.settle(0, OrderStatus::Paid);
    assert_eq!(case.judge().paid_mismatch, 1);

    let mut declined = Case::new();
    declined.acknowledge(0);
    declined.history.note_pay_sent(0);
    declined.history.note_pay(0, Outcome::Declined);
    declined.settle(0, OrderStatus::Paid);
    assert_eq!(declined.judge().paid_mismatch, 1);
}

#[test]
fn a_payment_without_an_answer_may_have_ended_either_way() {
    for status in [OrderStatus::Paid, OrderStatus::Released] {
        let mut case = Case::new();
        case.acknowledge(0);
        case.history.note_pay_sent(0);
        case.history.note_pay(0, Outcome::Timeout);
        case.settle(0, status);
        assert_eq!(case.judge(), Judged::default(), "{status:?}");
    }
}

#[test]
fn a_buyer_with_more_live_units_than_the_limit_is_found() {
    let mut case = Case::new();
    for purchase in 0..3 {
        case.sell(purchase);
        case.rows[purchase as usize].buyer = "greedy".into();
    }
    assert_eq!(case.judge().over_limit, 1);
    case.rows[0].status = OrderStatus::Released;
    assert_eq!(case.judge().over_limit, 0);
}

#[test]
fn an_account_that_does_not_add_up_is_found() {
    let mut case = Case::new();
    case.report.skus[0].available = 4;
    assert_eq!(case.rules_broken(), ["stock_sum"]);
}

#[test]
fn an_unfinished_settlement_is_found() {
    let mut case = Case::new();
    case.report.accepted = 5;
    case.report.settled = 4;
    assert_eq!(case.rules_broken(), ["unsettled"]);
    case.report.refused = 1;
    assert_eq!(case.judge(), Judged::default());
    case.report.queue_depth = 2;
    assert_eq!(case.rules_broken(), ["unsettled"]);
}

#[test]
fn units_still_reserved_after_the_wait_are_found_when_returns_are_expected() {
    let mut case = Case::new();
    case.report.skus[0].reserved = 1;
    case.report.skus[0].available = 4;
    assert_eq!(case.judge(), Judged::default());
    case.rules.expect_returns = true;
    assert_eq!(case.rules_broken(), ["unreturned"]);
}
