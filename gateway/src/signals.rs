//! When to stop: SIGTERM from a supervisor, SIGINT from a keyboard.

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Ready at the first SIGTERM or SIGINT. Where signals cannot be had, never.
pub async fn shutdown() {
    let (mut term, mut int) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(term), Ok(int)) => (term, int),
        (Err(error), _) | (_, Err(error)) => {
            warn!(%error, "signals cannot be received; stop with kill -9");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = term.recv() => info!("SIGTERM received"),
        _ = int.recv() => info!("SIGINT received"),
    }
}
