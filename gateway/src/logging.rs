//! The process's own log: JSON lines on standard error, so that standard output is the access log's alone.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// What is shown unless `RUST_LOG` says otherwise.
// The RabbitMQ client would log every message that comes back, body and buyer included; the sink tells the reason by itself.
const DEFAULT_FILTER: &str = "info,lapin=error";

/// Installs the subscriber. Text for eyes, JSON for machines. A second call changes nothing.
pub fn install() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // A log that cannot be written (it may be on the disk that is full) must not end the process: by default the failure itself is
    // printed to the same place, and that panics.
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // An error means that somebody installed one before, which is fine.
    let _ = match std::io::stderr().is_terminal() {
        true => lines.try_init(),
        false => lines.json().with_ansi(false).try_init(),
    };
}

/// The same, but only warnings and errors: for commands whose output is their own.
pub fn install_quiet() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let _ = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
