//! The payment books under watch: checked on demand by the admin API, and by themselves, so that a broken promise raises its alert.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, Router, extract::State, response::IntoResponse, routing};
use http::StatusCode;
use payment::{Finding, Reader};
use seckill::{clock::WallClock, lease::Lease};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What is read each time is bounded; this often, a thousand payments a second are followed.
const EVERY: Duration = Duration::from_secs(5);
/// Findings that are remembered, so that the next walk over everything does not count them again.
const KNOWN_MAX: usize = 1024;
/// The promises that [`payment::Books`] looks after.
const INVARIANTS: [&str; 3] = ["INV-LEDGER-1", "INV-LEDGER-2", "INV-PAY-2"];

/// What was found before, so that it is logged and counted once. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<Mutex<HashSet<Finding>>>);

impl Known {
    fn tell(&self, findings: &[Finding]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > KNOWN_MAX {
            known.clear();
        }
        for finding in findings {
            if known.insert(finding.clone()) {
                let Finding { invariant, detail } = finding;
                tracing::error!(invariant, detail, "invariant broken");
                metrics::counter!("penstock_invariant_violations_total", "invariant" => *invariant)
                    .increment(1);
            }
        }
    }
}

/// `/admin/v1/payments/reconcile`: all of the books. Without payments there is nothing to find.
pub(super) fn router(reader: Option<Reader>, known: Known) -> Router {
    Router::new()
        .route("/admin/v1/payments/reconcile", routing::get(reconcile))
        .with_state((reader, known))
}

async fn reconcile(State((reader, known)): State<(Option<Reader>, Known)>) -> impl IntoResponse {
    let checked = match reader {
        Some(reader) => reader.books().check().await,
        None => Ok(Vec::new()),
    };
    match checked {
        Ok(findings) => {
            known.tell(&findings);
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

/// Checks until `shutdown`, on the one node that holds the lease; each finding is logged and counted once.
pub(super) async fn watch(
    reader: Reader,
    mut lease: impl Lease,
    clock: WallClock,
    known: Known,
    shutdown: CancellationToken,
) {
    for invariant in INVARIANTS {
        metrics::counter!("penstock_invariant_violations_total", "invariant" => invariant)
            .increment(0);
    }
    let mut books = reader.books();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        match lease.hold().await {
            Ok(Some(_)) => {}
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "the payment books were not checked");
                continue;
            }
        }
        let now_ms = i64::try_from(clock()).unwrap_or(i64::MAX);
        match books.check_next(now_ms).await {
            Err(error) => tracing::warn!(%error, "the payment books were not checked"),
            Ok(findings) => known.tell(&findings),
        }
    }
    if let Err(error) = lease.give_up().await {
        tracing::debug!(%error, "the lease of the books was not given back; it runs out by itself");
    }
}
