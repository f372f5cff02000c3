//! Carts: an order a line, bought together; what becomes of each afterwards, and of all of them.

use loadtest::history::event::{Done, Invoke};
use loadtest::history::{Action, Event, Level};
use loadtest::ledger::OrderStatus::{Refused, Released, Reserved};
use loadtest::oracle::{Allow, Rule, judge};

use super::tale::{SALE, T0_MS, Tale, case};

fn bought() -> Tale {
    let mut tale = Tale::new();
    tale.cart_order("ann", "r1", ["o1", "o2"]);
    tale
}

fn only(tale: &Tale, rule: Rule) {
    let verdict = tale.judged();
    let broken: Vec<Rule> = verdict.violations.iter().map(|found| found.rule).collect();
    assert_eq!(broken, [rule], "{:#?}", verdict.violations);
}

fn holds(tale: &Tale) {
    let verdict = tale.judged();
    assert!(verdict.held, "{:#?}", verdict.violations);
}

fn give_back() -> Invoke {
    Invoke {
        f: Action::Cancel,
        ..Tale::cart("ann", "r1")
    }
}

#[test]
fn a_cart_is_one_operation_and_an_order_a_line() {
    let tale = bought();
    let tally = tale.judged().tally;
    assert_eq!((tally.operations, tally.ok, tally.acknowledged), (1, 1, 2));
    holds(&tale);
}

#[test]
fn one_line_may_go_back_alone_if_it_was_cancelled_or_its_time_was_over() {
    let mut tale = bought();
    tale.rows[1].status = Released;
    only(&tale, Rule::PartialCart);
    tale.cancelled(20, 30, "ann", "o2");
    holds(&tale);

    let mut tale = bought();
    tale.rows[1].status = Released;
    tale.rows[1].pay_by_ms = Some(T0_MS + 8_000);
    holds(&tale);
}

#[test]
fn a_line_that_the_ledger_refused_alone_makes_a_cart_partial() {
    let mut tale = bought();
    tale.rows[1].status = Refused;
    assert!(tale.judged().breaks(Rule::PartialCart));
}

#[test]
fn an_answer_that_leaves_a_line_out_makes_a_cart_partial() {
    let mut tale = Tale::new();
    tale.cart_told(0, 10, Tale::cart("ann", "r1"), &[("o1", Reserved)]);
    tale.row("o1", "ann", "r1", 1, Reserved);
    only(&tale, Rule::PartialCart);

    let mut tale = bought();
    let poll = Invoke {
        f: Action::CartPoll,
        ..Tale::cart("ann", "r1")
    };
    tale.cart_told(20, 30, poll.clone(), &[("o1", Reserved), ("o2", Reserved)]);
    holds(&tale);
    tale.cart_told(40, 50, poll, &[("o1", Reserved)]);
    only(&tale, Rule::PartialCart);
}

#[test]
fn an_order_for_what_was_not_in_the_cart_is_misattributed() {
    let mut tale = bought();
    let again = Tale::cart("ann", "r1");
    let told = [("o1", Reserved), ("o2", Reserved), ("o3", Reserved)];
    tale.facts.skus.push(tale.facts.skus[0].clone());
    tale.facts.skus[2].sku = "c".into();
    tale.cart_told(20, 30, again, &told);
    tale.row("o3", "ann", "r1", 1, Reserved);
    tale.rows[2].sku = "c".into();
    assert!(tale.judged().breaks(Rule::Misattributed));
}

#[test]
fn a_cart_given_back_is_given_back_whole() {
    let back = [("o1", Released), ("o2", Released)];
    let mut tale = bought();
    tale.cart_told(20, 30, give_back(), &back);
    tale.rows[0].status = Released;
    only(&tale, Rule::StatusBackwards);
    tale.rows[1].status = Released;
    holds(&tale);

    let mut tale = bought();
    tale.cart_told(20, 30, give_back(), &[("o1", Released), ("o2", Reserved)]);
    tale.rows[0].status = Released;
    assert!(tale.judged().breaks(Rule::PartialCart));
}

/// The units of a cart whose return nobody was told of count as held, and as free, as long as either may be.
#[test]
fn a_return_that_nobody_was_told_of_excuses_both_ways() {
    let tell = |asked: u64| {
        let mut tale = bought();
        tale.unknown(20, give_back());
        for row in &mut tale.rows {
            row.status = Released;
        }
        tale.order(asked, asked + 10, "bob", "r2", 2, "o3");
        tale
    };
    holds(&tell(30));
    only(&tell(5), Rule::Oversold);
}

#[test]
fn a_cart_sold_out_is_explained_by_any_of_its_lines() {
    let mut tale = Tale::new();
    tale.refused(20, 30, Tale::cart("eve", "r2"), "sold_out");
    only(&tale, Rule::FalseSoldOut);
    tale.order(0, 10, "ann", "r1", 2, "o1");
    holds(&tale);
    assert_eq!(tale.judged().tally.refused, 1);
}

#[test]
fn other_content_under_a_carts_key_is_a_conflict() {
    let other = || Invoke {
        lines: vec![("a".into(), 1), ("b".into(), 2)],
        ..Tale::cart("ann", "r1")
    };
    let mut tale = bought();
    tale.refused(20, 30, other(), "key_reused");
    // The purchase of one line is another request than a cart of that line.
    tale.refused(40, 50, Tale::wish("ann", "r1", 1), "key_reused");
    holds(&tale);
    tale.refused(60, 70, Tale::cart("bob", "r1"), "key_reused");
    only(&tale, Rule::FalseConflict);

    let mut tale = bought();
    tale.cart_told(20, 30, other(), &[("o1", Reserved), ("o2", Reserved)]);
    assert!(tale.judged().breaks(Rule::ConflictAnswered));
    let mut tale = bought();
    tale.refused(20, 30, Tale::cart("ann", "r1"), "key_reused");
    assert!(tale.judged().breaks(Rule::ReplayRefused));
}

#[test]
fn whoever_asks_for_a_cart_does_not_ask_for_what_was_bought_alone_under_its_key() {
    let ask = |f: Action| Invoke {
        f,
        ..Tale::cart("ann", "r1")
    };
    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    tale.events.push(Event::Quiet { t_us: 15_000 });
    tale.refused(20, 30, ask(Action::CartPoll), "no_such_order");
    tale.refused(40, 50, ask(Action::Cancel), "no_such_order");
    holds(&tale);
    for f in [Action::CartPoll, Action::Cancel] {
        let mut tale = bought();
        tale.refused(20, 30, ask(f), "no_such_order");
        only(&tale, Rule::Unseen);
    }
}

/// A cart that was refused leaves its key to a single purchase, and the other way round.
#[test]
fn a_single_purchase_under_a_carts_key_is_no_partial_cart() {
    let mut tale = Tale::new();
    tale.unknown(0, Tale::cart("ann", "r1"));
    tale.order(20, 30, "ann", "r1", 1, "o1");
    holds(&tale);
    let mut tale = bought();
    tale.unknown(20, Tale::wish("ann", "r1", 1));
    holds(&tale);
    tale.rows.remove(0);
    assert!(tale.judged().breaks(Rule::PartialCart));
}

#[test]
fn a_cart_bought_again_is_two_orders_a_line() {
    let mut tale = bought();
    tale.cart_order("ann", "r1", ["o3", "o4"]);
    tale.facts.skus[0].stock = 9;
    tale.facts.skus[1].stock = 9;
    assert!(tale.judged().breaks(Rule::TwoOrders));
}

#[test]
fn below_durable_a_fault_may_tear_a_cart_and_nothing_else_may() {
    let tell = |fault_at: u64| {
        let mut tale = bought();
        tale.rows.pop();
        tale.fault(fault_at, fault_at + 100);
        tale.lines()
    };
    let judged = |lines: &[Event], level| judge(&case(lines, level), &Allow::nothing(level));
    let near = judged(&tell(1_000), Level::Fast);
    assert!(near.held, "{:#?}", near.violations);
    assert!(judged(&tell(3_000), Level::Fast).breaks(Rule::PartialCart));
    assert!(judged(&tell(1_000), Level::Durable).breaks(Rule::PartialCart));
}

#[test]
fn an_entitlement_used_for_another_quantity_is_a_conflict_of_its_key() {
    let with = |units: u64| Invoke {
        token: "t".into(),
        ..Tale::wish("ann", "tok_1", units)
    };
    let mut tale = Tale::new();
    tale.bought(0, 10, with(1), "o1");
    tale.row("o1", "ann", "tok_1", 1, Reserved);
    tale.refused(20, 30, with(2), "token_used");
    holds(&tale);
    tale.refused(40, 50, with(1), "token_used");
    assert!(tale.judged().breaks(Rule::ReplayRefused));
}

#[test]
fn a_carts_answer_names_its_orders_one_by_one() {
    let mut tale = Tale::new();
    let done = Done {
        status: 201,
        order: "o1".into(),
        ..Done::default()
    };
    tale.op((0, Some(10)), Tale::cart("ann", "r1"), Event::Ok, done);
    let mut builder = loadtest::oracle::case::Builder::default();
    let taken: Result<(), String> = tale
        .lines()
        .into_iter()
        .enumerate()
        .try_for_each(|(at, event)| builder.take(at as u32 + 2, event));
    assert!(taken.unwrap_err().contains("names its `orders`"), "{SALE}");
}
