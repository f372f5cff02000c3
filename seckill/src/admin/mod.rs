//! The sale part of the admin API: what operators, the command line and the load tester call. Loopback only, by default.

mod books;
mod dead_events;
mod dead_letters;
mod extract;
mod lists;
mod lottery;
mod payable;
mod restock;
mod sales;
mod schedule;
mod slots;
mod tokens;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef, State},
    routing::{get, post},
};
use stock::Gate;

use crate::{
    api::problem::{Code, Problem},
    engine::SaleEngine,
    reconcile::Reconciler,
    sale::{FieldProblem, Problems},
    settlement::replay::Replayer,
};

pub use self::payable::{Payable, PayableCurrency};

/// What the handlers share.
#[derive(Clone)]
struct Admin {
    engine: Arc<SaleEngine>,
    reconciler: Reconciler,
    payable: Option<Arc<Payable>>,
    replayer: Replayer,
}

impl FromRef<Admin> for Arc<SaleEngine> {
    fn from_ref(admin: &Admin) -> Self {
        admin.engine.clone()
    }
}

type Engine = State<Arc<SaleEngine>>;

/// Rows of one page at most.
const PAGE_MAX: u32 = 10_000;
const PAGE_DEFAULT: u32 = 1_000;
/// A sale of a thousand skus has about 100 KiB.
const BODY_LIMIT: usize = 1 << 20;

/// The routes below `/admin/v1/sales`.
pub fn router(engine: Arc<SaleEngine>, reconciler: Reconciler, payable: Option<Payable>) -> Router {
    let clock = engine.clone();
    let replayer = Replayer::new(
        engine.store().clone(),
        engine.ledger().clone(),
        Arc::new(move || clock.now_ms()),
    );
    Router::new()
        .route("/admin/v1/sales", get(sales::list).post(sales::create))
        .route(
            "/admin/v1/sales/{sale}",
            get(schedule::show)
                .put(schedule::replace)
                .patch(schedule::change),
        )
        .route("/admin/v1/sales/{sale}/publish", post(schedule::publish))
        .route(
            "/admin/v1/sales/{sale}/pause",
            post(|e, s| sales::set_gate(e, s, Gate::Paused)),
        )
        .route(
            "/admin/v1/sales/{sale}/resume",
            post(|e, s| sales::set_gate(e, s, Gate::Open)),
        )
        .route(
            "/admin/v1/sales/{sale}/close",
            post(|e, s| sales::set_gate(e, s, Gate::Closed)),
        )
        .route(
            "/admin/v1/sales/{sale}/lists/{list}",
            get(lists::show).put(lists::change),
        )
        .route("/admin/v1/sales/{sale}/draw", post(lottery::draw))
        .route(
            "/admin/v1/sales/{sale}/draw/rounds",
            post(lottery::call_reserve),
        )
        .route("/admin/v1/sales/{sale}/slots", get(slots::report))
        .route("/admin/v1/sales/{sale}/checkin", post(slots::check_in))
        .route("/admin/v1/sales/{sale}/tokens", post(tokens::issue))
        .route("/admin/v1/sales/{sale}/restock", post(restock::restock))
        .route("/admin/v1/sales/{sale}/report", get(books::report))
        .route("/admin/v1/sales/{sale}/orders", get(books::orders))
        .route(
            "/admin/v1/sales/{sale}/reconcile",
            get(books::compare_sale).post(books::reconcile_sale),
        )
        .route("/admin/v1/sales/{sale}/dead-events", get(dead_events::list))
        .route(
            "/admin/v1/sales/{sale}/dead-events/replay",
            post(dead_events::replay_all),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-events/{event}/replay",
            post(dead_events::replay_one),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-letters",
            get(dead_letters::list),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-letters/replay",
            post(dead_letters::replay_page),
        )
        .route(
            "/admin/v1/sales/{sale}/dead-letters/{letter}/replay",
            post(dead_letters::replay_one),
        )
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Admin {
            engine,
            reconciler,
            payable: payable.map(Arc::new),
            replayer,
        })
}

fn bad(field: &str, value: impl ToString, allowed: impl Into<String>) -> Problem {
    let mut problems = Problems::default();
    problems.add(field, value, allowed);
    invalid(problems.0)
}

fn invalid(problems: Vec<FieldProblem>) -> Problem {
    let told: Vec<String> = problems
        .iter()
        .map(|p| format!("{} = {:?}: must be {}", p.field, p.value, p.allowed))
        .collect();
    Problem::new(Code::InvalidDocument, told.join("; ")).with_problems(&problems)
}

#[cfg(test)]
mod tests;
