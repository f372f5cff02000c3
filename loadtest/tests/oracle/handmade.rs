//! For every rule a history that holds and one with the least that breaks it. The broken one breaks that rule and no other, so a
//! check that is taken out of the oracle fails its test here: `without_its_check_…` shows that nothing else would notice.

use loadtest::history::event::{Done, Invoke};
use loadtest::history::{Action, Event};
use loadtest::ledger::OrderStatus::{Paid, Released, Reserved};
use loadtest::oracle::Rule;

use super::tale::{SALE, T0_MS, Tale};

/// A rule, and its tale told rightly (`false`) or broken (`true`).
type Teller = (Rule, fn(bool) -> Tale);

macro_rules! tales {
    ($($rule:ident: $fact:ident = $tell:expr;)*) => {
        const TALES: &[Teller] = &[$((Rule::$rule, $tell),)*];

        $(#[test]
        fn $fact() {
            let tell: fn(bool) -> Tale = $tell;
            let verdict = tell(false).judged();
            assert!(verdict.held, "{:#?}", verdict.violations);
            let verdict = tell(true).judged();
            let broken: Vec<Rule> = verdict.violations.iter().map(|found| found.rule).collect();
            assert_eq!(broken, [Rule::$rule], "{:#?}", verdict.violations);
            let example = &verdict.violations[0].examples[0];
            assert!(!example.lines.is_empty(), "the lines are named: {example:?}");
        })*
    };
}

tales! {
    Oversold: more_units_held_at_one_instant_than_there_are = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 2, "o1");
        // Cancelled while bob buys: possible. Cancelled after bob has his answer: three units were held.
        tale.cancelled(if broken { 40 } else { 15 }, 50, "ann", "o1");
        tale.rows[0].status = Released;
        tale.order(20, 30, "bob", "r2", 1, "o2");
        tale
    };
    OversoldLedger: more_units_live_in_the_ledger_than_there_are = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 2, "o1");
        // An order of another client: only the ledger tells of it. Without an account nothing else could notice.
        tale.row("o2", "zoe", "r9", 1, if broken { Reserved } else { Released });
        let rows = std::mem::take(&mut tale.rows).into_iter();
        tale.events.extend(rows.map(|row| Event::Row { sale: SALE.into(), row }));
        tale.has_books = false;
        tale
    };
    Conservation: an_account_that_does_not_add_up = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        if broken {
            tale.tamper = |report| report.skus[0].available = 2;
        }
        tale
    };
    Counts: an_account_that_counts_other_than_the_rows = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        if broken {
            tale.tamper = |report| report.returned = 1;
        }
        tale
    };
    FalseSoldOut: sold_out_while_units_are_free_all_the_time = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        tale.order(if broken { 40 } else { 15 }, 50, "bob", "r2", 1, "o2");
        tale.refused(20, 30, Tale::wish("eve", "r3", 1), "sold_out");
        tale
    };
    Undersold: units_left_where_buyers_came_until_the_end = |broken| {
        let mut tale = Tale::new();
        tale.facts.skus.truncate(1);
        tale.order(0, 10, "ann", "r1", if broken { 1 } else { 2 }, "o1");
        tale.drained = true;
        tale
    };
    BuyerLimit: a_buyer_with_more_than_the_limit = |broken| {
        let mut tale = Tale::new();
        tale.facts.skus[0].stock = 9;
        tale.order(0, 10, "ann", "r1", 2, "o1");
        tale.cancelled(if broken { 40 } else { 15 }, 50, "ann", "o1");
        tale.rows[0].status = Released;
        tale.order(20, 30, "ann", "r2", 1, "o2");
        tale
    };
    FalseBuyerLimit: the_limit_told_to_a_buyer_who_is_not_at_it = |broken| {
        let mut tale = Tale::new();
        tale.facts.skus[0].stock = 9;
        tale.order(0, 10, "ann", "r1", 2, "o1");
        tale.cancelled(20, 30, "ann", "o1");
        tale.rows[0].status = Released;
        tale.refused(if broken { 40 } else { 25 }, 50, Tale::wish("ann", "r2", 1), "buyer_limit");
        tale
    };
    TwoOrders: two_orders_of_one_request = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        if broken {
            tale.order(20, 30, "ann", "r1", 1, "o2");
        } else {
            tale.replayed(20, 30, Tale::wish("ann", "r1", 1), "o1");
        }
        tale
    };
    Resurrected: a_request_bought_again_after_its_release = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        tale.cancelled(20, 30, "ann", "o1");
        tale.rows[0].status = Released;
        if broken {
            tale.order(40, 50, "ann", "r1", 1, "o2");
        } else {
            tale.replayed(40, 50, Tale::wish("ann", "r1", 1), "o1");
        }
        tale
    };
    CreatedTwice: one_order_answered_as_new_twice = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        if broken {
            tale.bought(5, 30, Tale::wish("ann", "r1", 1), "o1");
        } else {
            tale.replayed(5, 30, Tale::wish("ann", "r1", 1), "o1");
        }
        tale
    };
    ReplayRefused: a_retry_of_an_acknowledged_request_refused = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 2, "o1");
        // A copy under way at the same time may have come too late for the order's own unit.
        let from = if broken { 20 } else { 5 };
        tale.refused(from, 30, Tale::wish("ann", "r1", 2), "sold_out");
        tale
    };
    Misattributed: an_order_recorded_for_somebody_else = |broken| {
        let mut tale = Tale::new();
        tale.bought(0, 10, Tale::wish("ann", "r1", 1), "o1");
        tale.row("o1", if broken { "bob" } else { "ann" }, "r1", 1, Reserved);
        tale
    };
    ConflictAnswered: other_content_answered_with_the_first_contents_order = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        if broken {
            tale.replayed(20, 30, Tale::wish("ann", "r1", 2), "o1");
        } else {
            tale.refused(20, 30, Tale::wish("ann", "r1", 2), "key_reused");
        }
        tale
    };
    FalseConflict: key_reused_told_of_a_key_used_once = |broken| {
        let mut tale = Tale::new();
        tale.unknown(0, Tale::wish("ann", "r1", if broken { 1 } else { 2 }));
        tale.refused(20, 30, Tale::wish("ann", "r1", 1), "key_reused");
        tale
    };
    TokenReused: two_orders_for_one_entitlement = |broken| {
        let mut tale = Tale::new();
        for (at, request, order) in [(0, "r1", "o1"), (20, "r2", "o2")] {
            let token = if broken { "t" } else { order };
            let wish = Invoke { token: token.into(), ..Tale::wish("ann", request, 1) };
            tale.bought(at, at + 10, wish, order);
            tale.row(order, "ann", request, 1, Reserved);
        }
        tale
    };
    Phantom: an_order_of_a_request_that_was_refused = |broken| {
        let mut tale = Tale::new();
        if broken {
            tale.refused(0, 10, Tale::wish("ann", "r1", 1), "unavailable");
        } else {
            tale.unknown(0, Tale::wish("ann", "r1", 1));
        }
        tale.row("o1", "ann", "r1", 1, Reserved);
        tale
    };
    PartialCart: a_cart_with_a_line_missing = |broken| {
        let mut tale = Tale::new();
        tale.unknown(0, Tale::cart("ann", "r1"));
        tale.row("o1", "ann", "r1", 1, Reserved);
        if !broken {
            tale.row("o2", "ann", "r1", 1, Reserved);
            tale.rows[1].sku = "b".into();
        }
        tale
    };
    Lost: an_acknowledged_order_that_is_not_in_the_ledger = |broken| {
        let mut tale = Tale::new();
        tale.bought(0, 10, Tale::wish("ann", "r1", 1), "o1");
        if !broken {
            tale.row("o1", "ann", "r1", 1, Reserved);
        }
        tale
    };
    Unsettled: an_order_that_is_still_on_its_way_at_the_end = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        if broken {
            tale.tamper = |report| report.queue_depth = 1;
        }
        tale
    };
    Unresolved: an_unknown_that_stays_unknown_after_the_faults = |broken| {
        let mut tale = Tale::new();
        tale.unknown(0, Tale::wish("ann", "r1", 1));
        tale.events.push(Event::Quiet { t_us: 100_000 });
        let poll = Invoke { f: Action::Poll, ..Tale::wish("ann", "r1", 1) };
        if broken {
            let done = Done { status: 202, ..Done::default() };
            tale.op((200, Some(210)), poll, Event::Info, done);
        } else {
            tale.refused(200, 210, poll, "no_such_order");
        }
        tale
    };
    Unseen: an_acknowledged_order_its_buyer_does_not_find = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        let poll = Invoke {
            buyer: if broken { "ann" } else { "eve" }.into(),
            order: "o1".into(),
            ..Invoke::new(Action::Poll, SALE)
        };
        tale.refused(20, 30, poll, "no_such_order");
        tale
    };
    ReturnedAfterPaid: a_paid_order_that_was_cancelled = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        tale.paid(20, 30, "ann", "o1");
        tale.rows[0].status = Paid;
        if broken {
            tale.cancelled(25, 40, "ann", "o1");
        }
        tale
    };
    StatusBackwards: a_released_order_seen_reserved_later = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        tale.cancelled(20, 30, "ann", "o1");
        tale.rows[0].status = Released;
        let from = if broken { 35 } else { 25 };
        tale.about(from, 40, Action::Poll, "ann", "o1", Reserved);
        tale
    };
    LateReturn: an_unpaid_order_that_never_goes_back = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        tale.rows[0].pay_by_ms = Some(T0_MS + if broken { 8_000 } else { 9_500 });
        tale
    };
    Window: an_order_sold_after_the_end = |broken| {
        let mut tale = Tale::new();
        tale.facts.ends_at_ms = T0_MS + 100;
        let from = if broken { 100 } else { 99 };
        tale.order(from, 110, "ann", "r1", 1, "o1");
        tale
    };
    GateShut: an_order_sold_while_the_sale_was_paused = |broken| {
        let mut tale = Tale::new();
        tale.operator(0, 10, Action::Pause);
        tale.order(20, 30, "ann", "r1", 1, "o1");
        tale.operator(if broken { 40 } else { 25 }, 50, Action::Resume);
        tale
    };
    FalseGate: paused_told_of_a_sale_that_is_open = |broken| {
        let mut tale = Tale::new();
        tale.operator(0, 10, Action::Pause);
        tale.operator(20, 30, Action::Resume);
        let from = if broken { 40 } else { 25 };
        tale.refused(from, 50, Tale::wish("ann", "r1", 1), "paused");
        tale
    };
    PaidTwice: one_order_paid_by_two_payments = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        tale.rows[0].status = Paid;
        tale.paid(20, 30, "ann", "o1");
        if broken {
            tale.paid(40, 50, "ann", "o1");
        }
        tale
    };
    PaidMismatch: an_order_in_the_ledger_as_paid_that_nobody_paid = |broken| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 1, "o1");
        tale.rows[0].status = if broken { Paid } else { Reserved };
        tale
    };
}

#[test]
fn every_rule_has_its_tale() {
    let told: Vec<Rule> = TALES.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(told, Rule::ALL);
}

#[test]
fn without_its_check_no_broken_tale_is_noticed() {
    for (rule, tell) in TALES {
        let verdict = tell(true).judged_except(&[*rule]);
        assert!(verdict.held, "{}: {:#?}", rule.name(), verdict.violations);
    }
}

#[test]
fn every_rule_is_on_its_page() {
    let page = include_str!("../../../docs/oracle.md");
    for rule in Rule::ALL {
        let row = format!("| `{}` | {} |", rule.name(), rule.invariant());
        assert!(page.contains(&row), "docs/oracle.md: no row {row}");
    }
}
