//! When to stop: SIGTERM from a supervisor, SIGINT from a keyboard.

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// The same number on every Linux that Rust runs on, except MIPS.
const SIGXFSZ: i32 = 25;

/// A write beyond the limit of a file's size (`ulimit -f`, `LimitFSIZE=`) becomes an error, which is handled, instead of the end of
/// the process. Call it on the runtime that lives as long as the process.
pub fn survive_file_size_limit() {
    // Once a handler is there it stays for the life of the process, whether anybody listens or not.
    if let Err(error) = signal(SignalKind::from_raw(SIGXFSZ)) {
        warn!(%error, "the signal of the file size limit is not handled");
    }
}

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
