//! The process's own log: JSON lines on standard error, so that standard output is the access log's alone.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// What is shown unless `RUST_LOG` says otherwise.
// The RabbitMQ client would log every message that comes back, body and buyer included; the sink tells the reason by itself.
const DEFAULT_FILTER: &str = "info,lapin=error";

/// Installs the subscriber. Text for eyes, JSON for machines. A second call changes nothing.
pub fn install() {
    let filter = filter(DEFAULT_FILTER);
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

/// What `RUST_LOG` asks for. Empty is as if it were not set; what cannot be read is said, not ignored.
fn filter(default: &str) -> EnvFilter {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    if wanted.trim().is_empty() {
        return EnvFilter::new(default);
    }
    EnvFilter::try_new(&wanted).unwrap_or_else(|error| {
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "RUST_LOG={wanted:?}: {error}: must be levels such as info or seckill=debug,info; {default} is used"
        );
        EnvFilter::new(default)
    })
}

/// The same, but only warnings and errors: for commands whose output is their own.
pub fn install_quiet() {
    let filter = filter("warn");
    let _ = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
