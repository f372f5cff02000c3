//! One core of the data plane: a thread with a runtime, listening sockets, pools and meters of its own.
//!
//! Nothing on a request's path crosses from one core to another but the token buckets and breakers, which must be one for all. What a
//! core serves comes to it as a [`Plan`], and is replaced whole by the next one.

mod plan;
mod thread;

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::{oneshot, watch},
    task::spawn_local,
    time::{self, Instant},
};

pub(crate) use self::{
    plan::{Handlers, Plan},
    thread::{CoreThread, Phase, Socket, spawn},
};
use crate::{
    access_log::Lines,
    config,
    connection::{Command, Connections, Drain, Listening, accept},
    layers::{self, Parts},
    meters::Meters,
    route::Routes,
    snapshot::Snapshot,
    upstream::{SpoolBudget, Upstream},
};

/// How often meters and log lines are handed over.
const TICK: Duration = Duration::from_millis(100);

/// Ticks between two looks at idle connections.
const SWEEP_TICKS: u32 = 10;

/// The state of a core.
struct Core {
    server: Rc<Snapshot<config::Server>>,
    routes: Rc<Snapshot<Routes>>,
    upstreams: Snapshot<Vec<Rc<Upstream>>>,
    meters: Meters,
    lines: Option<Rc<Lines>>,
    connections: Rc<Connections>,
    drain: Rc<Drain>,
}

impl Core {
    fn new(plan: &Plan, lines: Option<Lines>) -> Self {
        let meters = Meters::new();
        let server = Rc::new(Snapshot::new(plan.config.server.clone()));
        let drain = Rc::new(Drain::default());
        let upstreams = plan.upstreams(&[], &server, &meters);
        let connections = Connections::new(
            Rc::clone(&server),
            Rc::clone(&meters.connections),
            Rc::clone(&drain),
        );
        Self {
            routes: Rc::new(Snapshot::new(plan.routes(&upstreams, &meters))),
            upstreams: Snapshot::new(upstreams),
            connections: Rc::new(connections),
            lines: lines.map(Rc::new),
            server,
            meters,
            drain,
        }
    }

    /// Serves by another plan from now on. Requests under way keep what they began with, connections stay.
    fn adopt(&self, plan: &Plan) {
        self.server.replace(plan.config.server.clone());
        let upstreams = plan.upstreams(&self.upstreams.read(), &self.server, &self.meters);
        self.routes.replace(plan.routes(&upstreams, &self.meters));
        self.upstreams.replace(upstreams);
    }

    fn sweep(&self, now: Instant) {
        self.connections.sweep(now);
        for upstream in self.upstreams.read().iter() {
            upstream.sweep(now);
        }
    }

    fn flush(&self) {
        self.meters.flush();
        if let Some(lines) = &self.lines {
            lines.flush();
        }
    }
}

/// The life of a core: accept, drain, wait to be let go.
async fn run(
    mut plans: watch::Receiver<Arc<Plan>>,
    sockets: Vec<Socket>,
    lines: Option<Lines>,
    mut phase: watch::Receiver<Phase>,
    report: oneshot::Sender<usize>,
    adopted: watch::Sender<u64>,
) {
    let plan = Arc::clone(&plans.borrow_and_update());
    let core = Rc::new(Core::new(&plan, lines));
    let server = &plan.config.server;
    let answer = Rc::new(layers::build(&Parts {
        server: Rc::clone(&core.server),
        routes: Rc::clone(&core.routes),
        via: Rc::new(plan.via.clone()),
        meters: Rc::clone(&core.meters.connections),
        lines: core.lines.clone(),
        spool: SpoolBudget::new(server.buffer_memory, server.buffer_disk),
        drain: Rc::clone(&core.drain),
    }));
    drop(plan);
    let accepting: Vec<_> = sockets
        .into_iter()
        .map(|socket| {
            let listening = Listening::new(&core.connections, &answer, socket.config, socket.tls);
            spawn_local(accept(listening, socket.listener))
        })
        .collect();
    let ticking = spawn_local(tick(Rc::clone(&core)));
    let adopting = spawn_local(adopt_all(Rc::clone(&core), plans, adopted));

    // An error means the app is gone, which is as good as a drain.
    let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
    core.drain.begin();
    for accepting in accepting {
        let _ = accepting.await;
    }
    core.connections.ask_all(Command::Drain);
    let deadline = core.server.read().drain_deadline;
    let has_ended = tokio::select! {
        () = core.drain.ended() => true,
        () = time::sleep(deadline) => false,
        _ = phase.wait_for(|phase| *phase >= Phase::Cut) => false,
    };
    let cut = match has_ended {
        true => 0,
        false => {
            let cut = core.drain.open();
            core.connections.ask_all(Command::Abort);
            core.drain.cut_tunnels();
            // They only have to be polled once more.
            let _ = time::timeout(TICK, core.drain.ended()).await;
            cut
        }
    };
    ticking.abort();
    adopting.abort();
    core.flush();
    let _ = report.send(cut);
    let _ = phase.wait_for(|phase| *phase >= Phase::Released).await;
    core.flush();
}

async fn tick(core: Rc<Core>) {
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    for count in 0u32.. {
        let now = ticks.tick().await;
        core.flush();
        if count % SWEEP_TICKS == 0 {
            core.sweep(now);
        }
    }
}

async fn adopt_all(
    core: Rc<Core>,
    mut plans: watch::Receiver<Arc<Plan>>,
    adopted: watch::Sender<u64>,
) {
    while plans.changed().await.is_ok() {
        let plan = Arc::clone(&plans.borrow_and_update());
        core.adopt(&plan);
        adopted.send_replace(plan.generation);
    }
}
