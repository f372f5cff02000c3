//! Every history of the correct model holds, whatever the interleaving, the unknowns and the crashes.

use loadtest::history::{Event, Level};
use loadtest::oracle::{Allow, judge};
use proptest::prelude::*;

use super::model::{Random, SWEEP_MS, history};
use super::tale::case;

/// What the model itself is late with.
pub fn allowed() -> Allow {
    let mut allow = Allow::nothing(Level::Durable);
    allow.return_lag_ms = SWEEP_MS;
    allow
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_history_of_the_correct_model_always_holds(seed in any::<u64>()) {
        let verdict = judge(&case(&history(seed, None), Level::Durable), &allowed());
        prop_assert!(verdict.held, "seed {}: {:#?}", seed, verdict.violations);
    }

    /// Lines of different clients reach the file in any order; only an operation's own two have theirs.
    #[test]
    fn the_order_of_the_lines_does_not_matter(seed in any::<u64>()) {
        let mut events = history(seed, None);
        let ends = events.iter().position(|e| matches!(e, Event::Sale(_))).unwrap();
        let mut random = Random(seed);
        for at in 1..ends {
            let (before, after) = (&events[at - 1], &events[at]);
            let is_own = matches!((before, after),
                (Event::Invoke(i), Event::Ok(d) | Event::Fail(d) | Event::Info(d)) if i.op == d.op)
                || matches!((before, after), (Event::Fault(_), Event::Fault(_)));
            if !is_own && random.percent(50) {
                events.swap(at - 1, at);
            }
        }
        let verdict = judge(&case(&events, Level::Durable), &allowed());
        prop_assert!(verdict.held, "seed {}: {:#?}", seed, verdict.violations);
    }

    /// A client that never heard its last answers is no reason to find fault: fewer answers, fewer findings.
    #[test]
    fn answers_that_were_never_written_break_nothing(seed in any::<u64>()) {
        let mut events = history(seed, None);
        let mut random = Random(seed);
        events.retain(|event| !matches!(event, Event::Ok(d) | Event::Fail(d) if d.t_us > 0 && random.percent(10)));
        // Without every answer of the drain nobody can say that buyers came until the end.
        events.retain(|event| !matches!(event, Event::Quiet { .. }));
        if let Some(Event::End(end)) = events.last_mut() {
            end.drained = false;
        }
        let verdict = judge(&case(&events, Level::Durable), &allowed());
        prop_assert!(verdict.held, "seed {}: {:#?}", seed, verdict.violations);
    }
}
