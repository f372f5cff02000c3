//! The state machine against the state that follows from operator and clock.

use proptest::prelude::*;

use super::*;
use crate::sale::{NewSale, Sale};

const EVENTS: [SaleEvent; 9] = [
    SaleEvent::Edit,
    SaleEvent::Publish,
    SaleEvent::MoveStart,
    SaleEvent::MoveEnd,
    SaleEvent::Pause,
    SaleEvent::Resume,
    SaleEvent::Close,
    SaleEvent::Begin,
    SaleEvent::End,
];

fn draft() -> Sale {
    let document = serde_json::json!({
        "id": "spring", "starts_at_ms": 100_000, "ends_at_ms": 200_000, "pay_within": "15m", "buyer_limit": 2,
        "currency": "usd", "skus": [{"sku": "shoe", "stock": 1, "price_minor": 1}], "draft": true
    });
    let new: NewSale = serde_json::from_value(document).unwrap();
    new.check().unwrap()
}

/// What an operator does, or how far the clock goes on.
#[derive(Debug, Clone, Copy)]
enum Step {
    Do(SaleEvent),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let of_operator = prop::sample::select(EVENTS[..7].to_vec()).prop_map(Step::Do);
    let step = prop_oneof![3 => of_operator, 2 => (1u64..60_000).prop_map(Step::Wait)];
    prop::collection::vec(step, 1..40)
}

/// Applies an operator's step to the facts, as the engine does; false if the facts refuse it.
fn apply(sale: &mut Sale, event: SaleEvent, now_ms: u64) -> bool {
    match event {
        SaleEvent::Edit => sale.rules.stage == Stage::Draft && sale.gate != Gate::Closed,
        SaleEvent::Publish => {
            let may = sale.state_at(now_ms) == SaleState::Draft && sale.ends_at_ms > now_ms;
            if may {
                sale.rules.stage = Stage::Published;
            }
            may
        }
        SaleEvent::MoveStart | SaleEvent::MoveEnd => {
            let (starts, ends) = match event {
                SaleEvent::MoveStart => (now_ms + 5_000, sale.ends_at_ms.max(now_ms + 9_000)),
                _ => (sale.starts_at_ms, sale.ends_at_ms + 20_000),
            };
            let may = check_move(sale, starts, ends, now_ms).is_ok();
            if may {
                (sale.starts_at_ms, sale.ends_at_ms) = (starts, ends);
            }
            may
        }
        SaleEvent::Pause | SaleEvent::Resume => {
            let state = sale.state_at(now_ms);
            let may = !matches!(state, SaleState::Draft | SaleState::Ended);
            if may {
                sale.gate = match event {
                    SaleEvent::Pause => Gate::Paused,
                    _ => Gate::Open,
                };
            }
            may
        }
        SaleEvent::Close => {
            sale.gate = Gate::Closed;
            true
        }
        SaleEvent::Begin | SaleEvent::End => unreachable!("these come from the clock"),
    }
}

proptest! {
    #[test]
    fn the_machine_and_the_clock_tell_the_same_state(steps in steps()) {
        let (mut sale, mut now_ms, mut state) = (draft(), 0, SaleState::Draft);
        for step in steps {
            match step {
                Step::Wait(ms) => now_ms += ms,
                Step::Do(event) => {
                    let moved = apply(&mut sale, event, now_ms);
                    if moved {
                        let next = state.after(event);
                        prop_assert!(next.is_ok(), "{event:?} in {state} passed the facts and not the machine");
                        state = next.unwrap();
                    }
                }
            }
            // The clock's events, in their order.
            if sale.rules.stage == Stage::Published && now_ms >= sale.starts_at_ms {
                state = state.after(SaleEvent::Begin).unwrap_or(state);
            }
            if sale.rules.stage == Stage::Published && now_ms >= sale.ends_at_ms {
                state = state.after(SaleEvent::End).unwrap_or(state);
            }
            prop_assert_eq!(state, sale.state_at(now_ms), "at {}", now_ms);
        }
    }
}

#[test]
fn nothing_leaves_the_end_and_nothing_returns_to_a_draft() {
    for event in EVENTS {
        let stays = SaleState::Ended.after(event);
        assert!(
            matches!(stays, Ok(SaleState::Ended) | Err(SaleState::Ended)),
            "{event:?}"
        );
        for state in SaleState::ALL
            .into_iter()
            .filter(|state| *state != SaleState::Draft)
        {
            assert_ne!(state.after(event), Ok(SaleState::Draft), "{event:?}");
        }
    }
}

#[test]
fn only_a_draft_is_edited_or_published() {
    for state in SaleState::ALL {
        let is_draft = state == SaleState::Draft;
        assert_eq!(state.after(SaleEvent::Edit).is_ok(), is_draft, "{state}");
        assert_eq!(state.after(SaleEvent::Publish).is_ok(), is_draft, "{state}");
    }
}

#[test]
fn a_start_is_moved_until_it_is_near_and_an_end_until_it_is_over() {
    let mut sale = draft();
    sale.rules.stage = Stage::Published;
    let (starts, ends) = (sale.starts_at_ms, sale.ends_at_ms);
    let at = |starts, ends, now| check_move(&sale, starts, ends, now);
    assert_eq!(at(150_000, ends, starts - MOVE_LEAD_MS - 1), Ok(()));
    assert_eq!(
        at(150_000, ends, starts - MOVE_LEAD_MS),
        Err(MoveRefused::Started)
    );
    assert_eq!(
        at(50_000, ends, 60_000),
        Err(MoveRefused::StartBefore(60_000))
    );
    assert_eq!(at(60_000, ends, 60_000), Ok(()), "it may start at once");
    assert_eq!(at(ends, ends, 0), Err(MoveRefused::Empty));
    assert_eq!(
        at(starts, ends + MOVE_LEAD_MS, ends - 1),
        Ok(()),
        "extended at the last instant"
    );
    assert_eq!(
        at(starts, ends + 1, ends),
        Err(MoveRefused::State(SaleState::Ended))
    );
    assert_eq!(
        at(starts, 150_000, 149_000),
        Err(MoveRefused::EndBefore(151_000)),
        "an order of this second would lie outside the window"
    );
    sale.gate = Gate::Paused;
    assert_eq!(
        check_move(&sale, 150_000, ends, starts + 1),
        Err(MoveRefused::Started),
        "a pause does not hide that the window has begun"
    );
    assert_eq!(
        check_move(&draft(), 150_000, ends, 0),
        Err(MoveRefused::State(SaleState::Draft))
    );
}
