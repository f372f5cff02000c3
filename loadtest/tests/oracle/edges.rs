//! The other faces of a rule, and what is excused: unknowns, faults, lateness, clocks, levels.

use loadtest::history::event::{Done, Invoke};
use loadtest::history::{Action, Event, Level};
use loadtest::ledger::OrderStatus::{Refused, Released, Reserved};
use loadtest::oracle::{Allow, Rule, judge};

use super::tale::{SALE, T0_MS, Tale, case};

fn restock(id: &str, units: u64) -> Invoke {
    Invoke {
        request: id.into(),
        lines: vec![("a".into(), units)],
        ..Invoke::new(Action::Restock, SALE)
    }
}

/// The second way to break a rule, where it has one.
#[test]
fn the_other_faces_of_a_rule_are_caught_too() {
    let only = |tale: &Tale, rule: Rule| {
        let verdict = tale.judged();
        assert!(
            verdict.breaks(rule),
            "{}: {:#?}",
            rule.name(),
            verdict.violations
        );
    };

    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    tale.row("o2", "ann", "r1", 1, Reserved);
    only(&tale, Rule::TwoOrders);

    let mut tale = Tale::new();
    tale.facts.skus[0].stock = 9;
    tale.row("o1", "zoe", "r1", 2, Reserved);
    tale.row("o2", "zoe", "r2", 1, Reserved);
    only(&tale, Rule::BuyerLimit);

    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    tale.rows[0].status = Refused;
    only(&tale, Rule::Lost);

    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    tale.row("o2", "ann", "never-sent", 1, Reserved);
    only(&tale, Rule::Phantom);

    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    tale.paid(20, 30, "ann", "o1");
    only(&tale, Rule::PaidMismatch);

    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    tale.rows[0].created_at_ms = Some(T0_MS - 1);
    only(&tale, Rule::Window);

    let mut tale = Tale::new();
    tale.operator(0, 10, Action::Close);
    tale.order(20, 30, "ann", "r1", 1, "o1");
    only(&tale, Rule::GateShut);

    for code in ["not_started", "ended"] {
        let mut tale = Tale::new();
        tale.refused(20, 30, Tale::wish("ann", "r1", 1), code);
        only(&tale, Rule::FalseGate);
    }

    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    tale.order(0, 10, "bob", "r2", 1, "o1");
    tale.rows.truncate(1);
    only(&tale, Rule::Misattributed);

    let mut tale = Tale::new();
    tale.unknown(0, Tale::wish("ann", "r1", 1));
    tale.row("o1", "ann", "r1", 1, Reserved);
    tale.events.push(Event::Quiet { t_us: 100_000 });
    let poll = Invoke {
        f: Action::Poll,
        ..Tale::wish("ann", "r1", 1)
    };
    tale.refused(200, 210, poll, "no_such_order");
    only(&tale, Rule::Unresolved);

    let mut tale = Tale::new();
    tale.order(0, 10, "ann", "r1", 1, "o1");
    let poll = Invoke {
        f: Action::Poll,
        ..Tale::wish("ann", "r1", 1)
    };
    tale.refused(20, 30, poll, "no_such_order");
    only(&tale, Rule::Unseen);
}

#[test]
fn units_taken_back_by_a_fault_excuse_a_sold_out_before_it_and_not_after() {
    let tell = |asked: u64| {
        let mut tale = Tale::new();
        tale.unknown(0, Tale::wish("ann", "r1", 2));
        tale.fault(50, 100);
        tale.refused(asked, asked + 5, Tale::wish("bob", "r2", 2), "sold_out");
        tale.judged()
    };
    assert!(tell(20).held);
    assert!(tell(120).breaks(Rule::FalseSoldOut));
}

#[test]
fn without_books_an_unknown_excuses_a_sold_out() {
    let mut tale = Tale::new();
    tale.unknown(0, Tale::wish("ann", "r1", 2));
    tale.refused(20, 30, Tale::wish("bob", "r2", 1), "sold_out");
    assert!(tale.judged().breaks(Rule::FalseSoldOut));
    tale.has_books = false;
    assert!(tale.judged().held);
}

#[test]
fn a_restock_counts_from_its_first_invocation_for_selling_and_from_its_answer_for_refusing() {
    let tell = |restock_from: u64, restock_to: u64| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 2, "o1");
        let done = Done {
            status: 200,
            ..Done::default()
        };
        let span = (restock_from, Some(restock_to));
        tale.op(span, restock("x", 2), Event::Ok, done);
        tale.restocked = 2;
        tale
    };
    let mut sold = tell(15, 90);
    sold.order(20, 30, "bob", "r2", 2, "o2");
    assert!(sold.judged().held);
    let mut sold = tell(31, 90);
    sold.order(20, 30, "bob", "r2", 2, "o2");
    assert!(sold.judged().breaks(Rule::Oversold));
    let mut refused = tell(15, 40);
    refused.refused(35, 50, Tale::wish("bob", "r2", 1), "sold_out");
    assert!(refused.judged().held);
    let mut refused = tell(15, 30);
    refused.refused(35, 50, Tale::wish("bob", "r2", 1), "sold_out");
    assert!(refused.judged().breaks(Rule::FalseSoldOut));
}

#[test]
fn a_lower_level_excuses_what_a_fault_took_and_nothing_else() {
    let tell = |fault_at: u64| {
        let mut tale = Tale::new();
        tale.bought(0, 10, Tale::wish("ann", "r1", 2), "o1");
        tale.fault(fault_at, fault_at + 100);
        tale.order(5_000, 5_010, "ann", "r1", 2, "o2");
        tale.lines()
    };
    let judged = |lines: &[Event], level| judge(&case(lines, level), &Allow::nothing(level));
    let near = judged(&tell(1_000), Level::Fast);
    assert!(near.held, "{:#?}", near.violations);
    assert_eq!(near.tally.lost_within_bound, 1);
    assert!(judged(&tell(3_000), Level::Fast).breaks(Rule::Lost));
    let durable = judged(&tell(1_000), Level::Durable);
    for rule in [Rule::Lost, Rule::TwoOrders, Rule::Oversold] {
        assert!(durable.breaks(rule), "{}", rule.name());
    }
}

/// The oracle once let an order be lost, and held its buyer's fruitless question against the server all the same.
#[test]
fn who_asks_for_an_order_that_may_be_lost_need_not_find_it() {
    let mut tale = Tale::new();
    tale.bought(0, 10, Tale::wish("ann", "r1", 2), "o1");
    tale.fault(1_000, 1_100);
    let asked = Invoke {
        buyer: "ann".into(),
        order: "o1".into(),
        ..Invoke::new(Action::Poll, SALE)
    };
    let denied = Done {
        status: 404,
        code: "no_such_order".into(),
        ..Done::default()
    };
    tale.op((2_000, Some(2_010)), asked, Event::Fail, denied);
    let judged = |level| judge(&case(&tale.lines(), level), &Allow::nothing(level));
    let fast = judged(Level::Fast);
    assert!(fast.held, "{:#?}", fast.violations);
    assert!(judged(Level::Durable).breaks(Rule::Unseen));
}

#[test]
fn clocks_may_differ_by_the_allowance_and_no_more() {
    let mut tale = Tale::new();
    tale.facts.ends_at_ms = T0_MS + 100;
    tale.order(300, 310, "ann", "r1", 1, "o1");
    let mut allow = Allow::nothing(Level::Durable);
    allow.skew_ms = 201;
    assert!(judge(&tale.case(), &allow).held);
    allow.skew_ms = 200;
    assert!(judge(&tale.case(), &allow).breaks(Rule::Window));
}

#[test]
fn sold_out_from_memory_is_excused_for_as_long_as_allowed_and_anew_after_a_fault() {
    let tell = |asked: u64, fault: Option<(u64, u64)>| {
        let mut tale = Tale::new();
        tale.order(0, 10, "ann", "r1", 2, "o1");
        tale.cancelled(20, 30, "ann", "o1");
        tale.rows[0].status = Released;
        if let Some((from, to)) = fault {
            tale.fault(from, to);
        }
        tale.refused(asked, asked + 5, Tale::wish("bob", "r2", 1), "sold_out");
        tale.case()
    };
    let mut allow = Allow::nothing(Level::Durable);
    allow.sold_out_lag_ms = 100;
    assert!(judge(&tell(130, None), &allow).held);
    assert!(judge(&tell(131, None), &allow).breaks(Rule::FalseSoldOut));
    assert!(judge(&tell(700, Some((120, 650))), &allow).held);
    assert!(judge(&tell(751, Some((120, 650))), &allow).breaks(Rule::FalseSoldOut));
}

#[test]
fn a_question_that_fails_is_forgiven_if_the_next_is_answered() {
    let mut tale = Tale::new();
    tale.unknown(0, Tale::wish("ann", "r1", 1));
    tale.events.push(Event::Quiet { t_us: 100_000 });
    let poll = || Invoke {
        f: Action::Poll,
        ..Tale::wish("ann", "r1", 1)
    };
    let away = || Done {
        status: 503,
        ..Done::default()
    };
    tale.op((200, Some(210)), poll(), Event::Info, away());
    assert!(tale.judged().breaks(Rule::Unresolved));
    tale.refused(300, 310, poll(), "no_such_order");
    assert!(tale.judged().held);
}
