//! Reading the configuration again while the process serves: all of it is applied, or nothing.
//!
//! What changes is a new plan for the cores, which they adopt between two requests, and new certificates for the listeners. A request
//! keeps what it began with; connections, and the breakers, buckets and pools of what stays, are kept. Reached by SIGHUP and by
//! `POST /admin/v1/reload`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing,
};
use http::{StatusCode, header::CONTENT_TYPE};
use metrics::{counter, gauge};
use serde_json::json;
use tokio::sync::{Mutex, SetOnce, mpsc::UnboundedSender, watch};
use tracing::{error, info, warn};

use super::certificates::{certificates, show_ends};
use crate::{
    config::{self, Config, ConfigError},
    cores::Plan,
    tls::{CertificateError, Store},
    upstream::BreakerChange,
};

/// A core takes a plan over between two requests, which is at once.
const ADOPTION: Duration = Duration::from_secs(5);

/// Reads the configuration as the start did.
pub type Load = dyn Fn() -> Result<Config, ConfigError> + Send + Sync;

/// Reads the configuration again when it is asked to. Clones do the same.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    load: Box<Load>,
    /// Set when the process serves; a reload that is asked for earlier waits for it.
    live: SetOnce<Live>,
    /// One at a time: the second sees what the first has applied.
    reloading: Mutex<()>,
}

/// What a reload changes.
pub(super) struct Live {
    pub(super) plans: watch::Sender<Arc<Plan>>,
    pub(super) changes: UnboundedSender<BreakerChange>,
    /// In the order of the listeners; `None` for a plain one.
    pub(super) stores: Vec<Option<Arc<Store>>>,
    /// The generation that each core serves by.
    pub(super) adopted: Vec<watch::Receiver<u64>>,
}

/// What a reload has done.
#[derive(Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Counts the configurations of this process; the one of the start is 1.
    pub generation: u64,
    /// What is allowed but dangerous, as `penstock check` says it.
    pub warnings: Vec<String>,
}

/// Why nothing was changed. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read or used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Keys that a running process cannot change.
    #[error("{} key(s) cannot change while the process runs, restart it for them:\n{}", .0.len(), .0.join("\n"))]
    Fixed(Vec<String>),
    /// A certificate cannot be made.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
}

impl Reloader {
    /// Reads the configuration by `load`.
    pub fn new(load: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            load: Box::new(load),
            live: SetOnce::new(),
            reloading: Mutex::default(),
        }))
    }

    /// The process serves from now on.
    pub(super) fn go_live(&self, live: Live) {
        gauge!("penstock_config_generation").set(1.0);
        for result in ["applied", "refused"] {
            counter!("penstock_config_reloads_total", "result" => result).increment(0);
        }
        let is_first = self.0.live.set(live).is_ok();
        debug_assert!(is_first, "a process starts once");
    }

    /// Reads the configuration and applies it, or changes nothing.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _reloading = self.0.reloading.lock().await;
        let live = self.0.live.wait().await;
        let reloaded = self.try_reload(live);
        if let Ok(reloaded) = &reloaded {
            live.wait_until_adopted(reloaded.generation).await;
        }
        let result = match &reloaded {
            Ok(reloaded) => {
                info!(generation = reloaded.generation, "configuration reloaded");
                for warning in &reloaded.warnings {
                    warn!("{warning}");
                }
                "applied"
            }
            Err(error) => {
                error!(%error, "configuration not reloaded: nothing was changed");
                "refused"
            }
        };
        counter!("penstock_config_reloads_total", "result" => result).increment(1);
        reloaded
    }

    fn try_reload(&self, live: &Live) -> Result<Reloaded, ReloadError> {
        let config = (self.0.load)()?;
        let before = Arc::clone(&live.plans.borrow());
        let fixed = config::fixed::changed(&before.config.source, &config.source);
        if !fixed.is_empty() {
            return Err(ReloadError::Fixed(fixed));
        }
        // Everything that can fail comes before anything is changed.
        let mut replaced = Vec::new();
        for (store, listener) in live.stores.iter().zip(&config.listeners) {
            // One that was made on the spot stays: visitors have been told to trust it.
            if let (Some(store), Some(tls @ config::Tls::Files(_))) = (store, &listener.tls) {
                replaced.push((store, certificates(tls)?));
            }
        }
        for (store, certificates) in replaced {
            store.replace(certificates);
            show_ends(store);
        }
        let warnings = config.warnings.clone();
        let next = before.next(config, &live.changes);
        let generation = next.generation;
        gauge!("penstock_config_generation").set(generation as f64);
        live.plans.send_replace(Arc::new(next));
        Ok(Reloaded {
            generation,
            warnings,
        })
    }
}

impl Live {
    /// Waits until every core serves by this generation, so that the caller finds it in force. A core that has ended is not
    /// waited for, nor one that is stuck.
    async fn wait_until_adopted(&self, generation: u64) {
        for adopted in &self.adopted {
            let mut adopted = adopted.clone();
            let waited = adopted.wait_for(|adopted| *adopted >= generation);
            if tokio::time::timeout(ADOPTION, waited).await.is_err() {
                warn!("a core has not taken over the configuration yet");
            }
        }
    }
}

/// `/admin/v1/reload`.
pub(super) fn router(reloader: Reloader) -> Router {
    Router::new()
        .route("/admin/v1/reload", routing::post(reload))
        .with_state(reloader)
}

async fn reload(State(reloader): State<Reloader>) -> Response {
    // In a task of its own: a caller who leaves does not cut it in two.
    let reloaded = tokio::spawn(async move { reloader.reload().await }).await;
    match reloaded {
        Ok(Ok(reloaded)) => Json(json!({
            "ok": true, "generation": reloaded.generation, "warnings": reloaded.warnings
        }))
        .into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        // It panicked, and the panic was reported there.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn refused(error: &ReloadError) -> Response {
    let (status, code, title, problems) = match error {
        ReloadError::Config(ConfigError::Problems(problems)) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_configuration",
            "The configuration has problems",
            problems.clone(),
        ),
        ReloadError::Fixed(keys) => (
            StatusCode::CONFLICT,
            "restart_needed",
            "These keys cannot change while the process runs",
            keys.clone(),
        ),
        ReloadError::Config(ConfigError::Read { .. }) | ReloadError::Certificate(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_configuration",
            "The configuration cannot be read",
            vec![error.to_string()],
        ),
    };
    let document = json!({
        "type": format!("https://penstock.dev/problems/{code}"), "title": title, "status": status.as_u16(), "code": code,
        "detail": "nothing was changed", "problems": problems,
    });
    let json = [(CONTENT_TYPE, "application/problem+json")];
    (status, json, document.to_string()).into_response()
}
