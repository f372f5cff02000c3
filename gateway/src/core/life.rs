//! The life of a core: its thread, its runtime, accept, drain, wait to be let go.

use std::{io, net::TcpListener, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use rustls::ServerConfig;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{oneshot, watch},
    time,
};
use tracing::error;

use super::{Core, Shared};
use crate::{access_log::Lines, config, exchange::Wish, server};

/// How often meters and log lines are handed over.
const TICK: Duration = Duration::from_millis(100);

/// Ticks between two looks at idle connections.
const SWEEP_TICKS: u32 = 10;

/// A listening socket of one core.
#[derive(Debug)]
pub struct Socket {
    /// Bound and listening, not blocking.
    pub listener: TcpListener,
    /// Its configuration.
    pub config: config::Listener,
    /// Its certificates.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Serving,
    /// Finishing what is in flight.
    Draining,
    /// Finishing nothing more: what is still in flight is cut off.
    Cut,
    /// Letting go: nothing needs the core's runtime any more.
    Released,
}

/// A running core.
#[derive(Debug)]
pub struct CoreThread {
    /// Sends the number of connections that were cut off at the deadline. Gone if the core has failed.
    pub drained: Option<oneshot::Receiver<usize>>,
    /// The thread. Ends after [`Phase::Released`].
    pub thread: JoinHandle<()>,
}

/// Starts a core. It serves until the phase changes.
pub fn spawn(
    index: usize,
    shared: Arc<Shared>,
    sockets: Vec<Socket>,
    lines: Option<Lines>,
    phase: watch::Receiver<Phase>,
) -> io::Result<CoreThread> {
    let (report, drained) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(format!("edge-{index}"))
        .spawn(move || {
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
            runtime.block_on(run(shared, sockets, lines, phase, report));
        })?;
    Ok(CoreThread {
        drained: Some(drained),
        thread,
    })
}

/// The life of a core: accept, drain, wait to be let go.
async fn run(
    shared: Arc<Shared>,
    sockets: Vec<Socket>,
    lines: Option<Lines>,
    mut phase: watch::Receiver<Phase>,
    report: oneshot::Sender<usize>,
) {
    let core = Rc::new(Core::new(shared, lines));
    let stack = Rc::new(crate::stack::build(&core));
    let accepting: Vec<_> = sockets
        .into_iter()
        .map(|socket| {
            tokio::task::spawn_local(server::accept(Rc::clone(&core), Rc::clone(&stack), socket))
        })
        .collect();
    let ticking = tokio::task::spawn_local(tick(Rc::clone(&core)));

    // An error means the app is gone, which is as good as a drain.
    let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
    core.is_draining.set(true);
    core.stop.notify_waiters();
    for accepting in accepting {
        let _ = accepting.await;
    }
    core.ask_all(Wish::Drain);
    let deadline = core.shared.config.server.drain_deadline;
    let left = tokio::select! {
        () = core.all_left() => true,
        () = time::sleep(deadline) => false,
        _ = phase.wait_for(|phase| *phase >= Phase::Cut) => false,
    };
    let cut = match left {
        true => 0,
        false => {
            let cut = core.places.get();
            core.ask_all(Wish::Abort);
            core.cut.notify_waiters();
            // They only have to be polled once more.
            let _ = time::timeout(TICK, core.all_left()).await;
            cut
        }
    };
    ticking.abort();
    core.flush(time::Instant::now());
    let _ = report.send(cut);
    let _ = phase.wait_for(|phase| *phase >= Phase::Released).await;
    core.flush(time::Instant::now());
}

async fn tick(core: Rc<Core>) {
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    for count in 0u32.. {
        let now = ticks.tick().await;
        core.flush(now);
        if count % SWEEP_TICKS == 0 {
            core.sweep(now);
        }
    }
}
