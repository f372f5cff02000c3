//! Whether the process wants requests: `/ready`, `/ready/PART` and the gauge of each part.
//!
//! The edge is ready whatever becomes of the sale where it has a shop behind it: which parts count is the configuration's to begin with,
//! and a request may name others.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::Problem;

/// How a part is, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartState {
    /// It does its work.
    Ready,
    /// It has never run, and why.
    Starting(String),
    /// It runs and cannot do its work, and why.
    Failing(String),
}

impl PartState {
    fn name(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting(_) => "starting",
            Self::Failing(_) => "failing",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::Starting(reason) | Self::Failing(reason) => Some(reason),
        }
    }
}

/// A part of the process that `/ready` tells of.
#[derive(Clone)]
pub struct Part {
    /// Its name, in paths and labels.
    pub name: &'static str,
    /// Whether the process wants no requests without it, unless somebody names the parts that count.
    pub counts: bool,
    /// How it is now.
    pub state: Arc<dyn Fn() -> PartState + Send + Sync>,
}

/// Whether the process wants requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    is_draining: AtomicBool,
    parts: Vec<Part>,
}

impl Readiness {
    /// Of a process with these parts.
    pub fn new(parts: Vec<Part>) -> Self {
        Self {
            inner: Arc::new(Inner {
                is_draining: AtomicBool::new(false),
                parts,
            }),
        }
    }

    /// Says no from now on.
    pub fn start_draining(&self) {
        self.inner.is_draining.store(true, Ordering::Relaxed);
    }

    /// Shows each part in `/metrics`.
    pub fn show(&self) {
        for part in &self.inner.parts {
            let is_ready = (part.state)() == PartState::Ready;
            metrics::gauge!("penstock_part_ready", "part" => part.name)
                .set(f64::from(u8::from(is_ready)));
        }
    }

    /// Why the first part that has not started has not.
    pub(super) fn starting(&self) -> Option<String> {
        let states = self.inner.parts.iter().map(|part| (part.state)());
        let mut starting = states.filter_map(|state| match state {
            PartState::Starting(reason) => Some(reason),
            PartState::Ready | PartState::Failing(_) => None,
        });
        starting.next()
    }

    /// The answer when these parts count, or those of the configuration.
    fn answer(&self, asked: Option<&[&str]>) -> Response {
        let parts = &self.inner.parts;
        let is_known = |name: &&str| parts.iter().any(|part| part.name == *name);
        if asked.is_some_and(|asked| !asked.iter().all(is_known)) {
            return Problem::NotFound.into_response();
        }
        let is_draining = self.inner.is_draining.load(Ordering::Relaxed);
        let mut missing: Vec<&str> = is_draining.then_some("draining").into_iter().collect();
        let mut told: Vec<Value> = Vec::new();
        for part in parts {
            let state = (part.state)();
            let counts = asked.map_or(part.counts, |asked| asked.contains(&part.name));
            if counts && state != PartState::Ready {
                missing.push(part.name);
            }
            let mut one = json!({"name": part.name, "state": state.name(), "counts": counts});
            if let Some(reason) = state.reason() {
                one["reason"] = reason.into();
            }
            told.push(one);
        }
        let is_ready = missing.is_empty();
        let status = match is_ready {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let answer = json!({"ready": is_ready, "missing": missing, "parts": told});
        (status, Json(answer)).into_response()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self
            .inner
            .parts
            .iter()
            .map(|part| (part.name, (part.state)()));
        f.debug_map().entries(states).finish()
    }
}

/// `/ready`, `/ready?parts=A,B` and `/ready/A`.
pub(super) fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/ready/{part}", get(one))
        .with_state(readiness)
}

#[derive(Deserialize)]
struct Asked {
    /// The parts that count, with commas between them; none at all is an answer for the edge alone.
    parts: Option<String>,
}

async fn ready(State(readiness): State<Readiness>, Query(asked): Query<Asked>) -> Response {
    let names = asked.parts.as_deref().map(|parts| {
        let names = parts.split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).collect::<Vec<_>>()
    });
    readiness.answer(names.as_deref())
}

async fn one(State(readiness): State<Readiness>, Path(part): Path<String>) -> Response {
    readiness.answer(Some(&[part.as_str()]))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn part(name: &'static str, counts: bool, state: PartState) -> Part {
        Part {
            name,
            counts,
            state: Arc::new(move || state.clone()),
        }
    }

    /// The status, what is missing, and the document.
    async fn asked(readiness: &Readiness, parts: Option<&[&str]>) -> (u16, Value) {
        let response = readiness.answer(parts);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn what_counts_is_what_was_asked_for_or_else_the_configurations() {
        let readiness = Readiness::new(vec![
            part("sales", false, PartState::Starting("no ledger".to_owned())),
            part("journal", true, PartState::Ready),
            part("payments", true, PartState::Failing("lost".to_owned())),
        ]);
        let (status, told) = asked(&readiness, None).await;
        assert_eq!((status, &told["missing"]), (503, &json!(["payments"])));
        assert_eq!(
            told["parts"][0],
            json!({"name": "sales", "state": "starting", "counts": false, "reason": "no ledger"})
        );
        assert_eq!(
            told["parts"][1],
            json!({"name": "journal", "state": "ready", "counts": true})
        );
        for (parts, status) in [
            (&["journal"][..], 200),
            (&["sales"], 503),
            (&["journal", "payments"], 503),
            (&[], 200),
            (&["nothing"], 404),
            (&["journal", "nothing"], 404),
        ] {
            assert_eq!(asked(&readiness, Some(parts)).await.0, status, "{parts:?}");
        }
        // A drain is the process's own, whatever is asked for.
        readiness.start_draining();
        let (status, told) = asked(&readiness, Some(&[])).await;
        assert_eq!((status, &told["missing"]), (503, &json!(["draining"])));
    }
}
