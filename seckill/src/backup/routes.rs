//! `/admin/v1/backup`: starts a backup of this node into a folder of its own machine, and tells how far it is.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use stock::embedded::EmbeddedStore;

use super::{Manifest, Progress, take};
use crate::{clock::WallClock, locks::Locked};

/// What backups are taken of; `None` where this node has nothing to back up here.
#[derive(Clone)]
pub struct Backups {
    source: Option<(EmbeddedStore, String)>,
    clock: WallClock,
    /// A `std` lock, held for a copy.
    state: Arc<Mutex<Stage>>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Running(PathBuf, Progress),
    Done(PathBuf, Box<Manifest>),
    Failed(PathBuf, String),
}

impl Backups {
    /// Backups of this store and the ledger at this URL, or of nothing.
    pub fn new(source: Option<(EmbeddedStore, String)>, clock: WallClock) -> Self {
        Self {
            source,
            clock,
            state: Arc::default(),
        }
    }
}

/// The route. Full path; behind the admin API's token.
pub fn router(backups: Backups) -> Router {
    Router::new()
        .route("/admin/v1/backup", routing::get(show).post(begin))
        .with_state(backups)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    to: PathBuf,
}

/// Status, code and title of a refusal.
type Refusal = (StatusCode, &'static str, &'static str);

const NOT_HERE: Refusal = (
    StatusCode::CONFLICT,
    "no_backup_here",
    "Nothing to back up here",
);
const INVALID: Refusal = (
    StatusCode::UNPROCESSABLE_ENTITY,
    "invalid_document",
    "The document has problems",
);
const RUNNING: Refusal = (
    StatusCode::CONFLICT,
    "backup_running",
    "One backup at a time",
);

fn refused((status, code, title): Refusal, detail: impl Into<String>) -> Response {
    let problem =
        json!({"code": code, "title": title, "detail": detail.into(), "status": status.as_u16()});
    (status, Json(problem)).into_response()
}

async fn begin(State(backups): State<Backups>, body: axum::body::Bytes) -> Response {
    let Some((store, ledger_url)) = backups.source.clone() else {
        let detail =
            "this node has no embedded store; back up PostgreSQL and Redis with their own tools";
        return refused(NOT_HERE, detail);
    };
    let to = match serde_json::from_slice::<Begin>(&body) {
        Ok(begin) if begin.to.is_absolute() => begin.to,
        Ok(_) => return refused(INVALID, "to: must be an absolute path on this machine"),
        Err(error) => return refused(INVALID, error.to_string()),
    };
    let progress = Progress::default();
    {
        let mut state = backups.state.locked();
        if let Stage::Running(other, _) = &*state {
            let detail = format!("a backup into {} is being taken", other.display());
            return refused(RUNNING, detail);
        }
        *state = Stage::Running(to.clone(), progress.clone());
    }
    let (told, now_ms) = (backups.clone(), (backups.clock)());
    tokio::spawn(async move {
        let taken = take(&store, &ledger_url, &to, now_ms, &progress).await;
        *told.state.locked() = match taken {
            Ok(manifest) => {
                tracing::info!(to = %to.display(), accepted = manifest.accepted, "backup taken");
                Stage::Done(to, Box::new(manifest))
            }
            Err(error) => {
                tracing::error!(to = %to.display(), %error, "no backup was taken");
                Stage::Failed(to, error.to_string())
            }
        };
    });
    (StatusCode::ACCEPTED, show(State(backups)).await).into_response()
}

async fn show(State(backups): State<Backups>) -> Json<Value> {
    Json(match &*backups.state.locked() {
        Stage::Idle => json!({"state": "idle"}),
        Stage::Running(to, progress) => {
            let (done, total) = progress.bytes();
            json!({"state": "running", "to": to, "bytes_done": done, "bytes_total": total})
        }
        Stage::Done(to, manifest) => json!({"state": "done", "to": to, "manifest": manifest}),
        Stage::Failed(to, error) => json!({"state": "failed", "to": to, "error": error}),
    })
}
