//! What signals do: stop, hurry, reload the configuration, reopen the access log. Every signal that an operator is used to sending has a meaning here or is named in
//! the log and ignored; none of them but SIGKILL ends the process in mid-request.

use tokio::signal::unix::{Signal, SignalKind, signal};
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

/// Calls `reload` at every SIGHUP and `reopen` at every SIGHUP and SIGUSR1, and ignores SIGUSR2, for ever. Spawn it.
pub async fn heed<F: Future>(reopen: impl Fn(), reload: impl Fn() -> F) {
    let kinds = [
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    let [Some(mut hangup), Some(mut first), Some(mut second)] = kinds.map(listen) else {
        return;
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                info!("SIGHUP received: the configuration is read again and the access log is reopened");
                reopen();
                reload().await;
            }
            _ = first.recv() => {
                info!("SIGUSR1 received: the access log is reopened");
                reopen();
            }
            _ = second.recv() => info!("SIGUSR2 received: it has no meaning here"),
        }
    }
}

/// The signals that end the process.
#[derive(Debug)]
pub struct Stop {
    /// From a supervisor: what is in flight is finished.
    term: Option<Signal>,
    /// The same, as nginx has it.
    quit: Option<Signal>,
    /// From a keyboard. The second one means: now.
    interrupt: Option<Signal>,
}

impl Stop {
    /// Takes the signals over from the operating system, which would end the process at once.
    pub fn new() -> Self {
        Self {
            term: listen(SignalKind::terminate()),
            quit: listen(SignalKind::quit()),
            interrupt: listen(SignalKind::interrupt()),
        }
    }

    /// Ready at the first of them.
    pub async fn asked(&mut self) {
        tokio::select! {
            () = next(&mut self.term) => info!("SIGTERM received"),
            () = next(&mut self.quit) => info!("SIGQUIT received"),
            () = next(&mut self.interrupt) => info!("SIGINT received"),
        }
    }

    /// After [`asked`](Self::asked): ready when somebody at the keyboard does not want to wait for the end. A supervisor that asks
    /// again is told that it has been heard.
    pub async fn hurried(&mut self) {
        loop {
            tokio::select! {
                () = next(&mut self.term) => info!("SIGTERM received again: draining already"),
                () = next(&mut self.quit) => info!("SIGQUIT received again: draining already"),
                () = next(&mut self.interrupt) => {
                    warn!("SIGINT received again: what is in flight is cut off");
                    return;
                }
            }
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

/// Ready at the first signal to stop, for commands that have nothing to drain.
pub async fn shutdown() {
    Stop::new().asked().await;
}

fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind)
        .inspect_err(|error| warn!(%error, ?kind, "a signal cannot be received"))
        .ok()
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
