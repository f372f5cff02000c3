//! The payment books under watch: checked on demand by the admin API, and by themselves, so that a broken promise raises its alert.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, response::IntoResponse, routing};
use http::StatusCode;
use payment::{Finding, PaymentService};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A check reads every account and every intent in doubt; once a minute is soon enough for books that only grow.
const EVERY: Duration = Duration::from_secs(60);
/// The promises that [`PaymentService::check`] looks after.
const INVARIANTS: [&str; 3] = ["INV-LEDGER-1", "INV-LEDGER-2", "INV-PAY-2"];

/// `/admin/v1/payments/reconcile`. Without payments there is nothing to find.
pub(super) fn router(payments: Option<Arc<PaymentService>>) -> Router {
    Router::new()
        .route("/admin/v1/payments/reconcile", routing::get(reconcile))
        .with_state(payments)
}

async fn reconcile(State(payments): State<Option<Arc<PaymentService>>>) -> impl IntoResponse {
    let checked = match payments {
        Some(payments) => payments.check().await,
        None => Ok(Vec::new()),
    };
    match checked {
        Ok(findings) => {
            let told: Vec<Value> = findings
                .iter()
                .map(|f| json!({"invariant": f.invariant, "detail": f.detail}))
                .collect();
            (
                StatusCode::OK,
                Json(json!({"ok": findings.is_empty(), "findings": told})),
            )
        }
        Err(error) => {
            tracing::warn!(%error, "the payment books were not checked");
            let problem = json!({"code": "unavailable", "title": "Temporarily unavailable", "detail": error.to_string()});
            (StatusCode::SERVICE_UNAVAILABLE, Json(problem))
        }
    }
}

/// Checks until `shutdown`; each finding is logged and counted once.
pub(super) async fn watch(payments: Arc<PaymentService>, shutdown: CancellationToken) {
    for invariant in INVARIANTS {
        metrics::counter!("penstock_invariant_violations_total", "invariant" => invariant)
            .increment(0);
    }
    let mut known: HashSet<(&'static str, String)> = HashSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match payments.check().await {
            Err(error) => tracing::warn!(%error, "the payment books were not checked"),
            Ok(findings) => {
                // What was mended is forgotten, so that its return is counted again; that also bounds the memory.
                known.retain(|(invariant, detail)| {
                    findings
                        .iter()
                        .any(|found| found.invariant == *invariant && found.detail == *detail)
                });
                for Finding { invariant, detail } in findings {
                    if known.insert((invariant, detail.clone())) {
                        tracing::error!(invariant, detail, "invariant broken");
                        metrics::counter!("penstock_invariant_violations_total", "invariant" => invariant).increment(1);
                    }
                }
            }
        }
    }
}
