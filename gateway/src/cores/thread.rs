//! The thread of a core: its runtime, and the phases that the process takes it through.

use std::{io, net::TcpListener, sync::Arc, thread::JoinHandle};

use rustls::ServerConfig;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{oneshot, watch},
};
use tracing::error;

use super::{Plan, run};
use crate::{access_log::Lines, config};

/// A listening socket of one core.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Bound and listening, not blocking.
    pub listener: TcpListener,
    pub config: config::Listener,
    pub tls: Option<Arc<ServerConfig>>,
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Finishing what is in flight.
    Draining,
    /// Finishing nothing more: what is still in flight is cut off.
    Cut,
    /// Letting go: nothing needs the core's runtime any more.
    Released,
}

#[derive(Debug)]
pub(crate) struct CoreThread {
    /// Sends the number of connections that were cut off at the deadline. Gone if the core has failed.
    pub drained: Option<oneshot::Receiver<usize>>,
    /// The generation of the plan that it serves by.
    pub adopted: watch::Receiver<u64>,
    /// The thread. Ends after [`Phase::Released`].
    pub thread: JoinHandle<()>,
}

/// Starts a core. It serves until the phase changes.
pub(crate) fn spawn(
    index: usize,
    plans: watch::Receiver<Arc<Plan>>,
    sockets: Vec<Socket>,
    lines: Option<Lines>,
    phase: watch::Receiver<Phase>,
) -> io::Result<CoreThread> {
    let (report, drained) = oneshot::channel();
    let (adopting, adopted) = watch::channel(0);
    let thread = std::thread::Builder::new()
        .name(format!("edge-{index}"))
        .spawn(move || {
            seckill::ledger::forbid_sql_here();
            let runtime = match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => runtime,
                Err(error) => {
                    error!(%error, "a core has no runtime");
                    return;
                }
            };
            runtime.block_on(run(plans, sockets, lines, phase, report, adopting));
        })?;
    Ok(CoreThread {
        drained: Some(drained),
        adopted,
        thread,
    })
}
