//! One core of the data plane: a thread with a runtime, listening sockets, pools and meters of its own.
//!
//! `app.rs` starts one per worker. Nothing on a request's path crosses from one core to another but the token buckets and
//! breakers, which must be one for all.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use http::StatusCode;
use rustls::ServerConfig;
use tokio::{
    runtime::{Builder, Handle, LocalOptions},
    sync::{Notify, Semaphore, oneshot, watch},
    time::{self, Instant},
};
use tracing::error;

use crate::{
    access_log::Lines,
    config::{self, Config, Target},
    exchange::{Client, Wish},
    metrics::{Meters, NO_ROUTE, Protocol},
    route::RouteTable,
    server,
    stack::limits::Bucket,
    upstream::{self, Upstream},
};

/// How often meters and log lines are handed over.
const TICK: Duration = Duration::from_millis(100);

/// Ticks between two looks at idle connections.
const SWEEP_TICKS: u32 = 10;

/// What all cores share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// In the order of the configuration.
    pub upstreams: Vec<Arc<upstream::Shared>>,
    /// In the order of the configuration.
    pub buckets: Vec<Arc<Bucket>>,
    /// The sale API, if this process has it.
    pub sales: Option<axum::Router>,
    /// The payment API, if this process has it.
    pub payments: Option<axum::Router>,
    /// Where payments run: they wait on SQL, whose connections belong to the control runtime.
    pub control: Handle,
}

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

/// The state of a core, for its own tasks.
#[derive(Debug)]
pub struct Core {
    /// What it shares.
    pub shared: Arc<Shared>,
    /// Finds routes.
    pub table: RouteTable,
    /// In the order of the configuration.
    pub routes: Vec<RouteEntry>,
    /// Its part of the metrics.
    pub meters: Rc<Meters>,
    /// Its end of the access log, if that is on.
    pub lines: Option<Lines>,
    /// Refusals seen, for sampling.
    pub refusals: Cell<u64>,
    /// Client connections that may still be accepted.
    pub room: Arc<Semaphore>,
    /// Wakes the accept loops when the core drains.
    pub stop: Notify,
    /// Ends tunnels at the drain's deadline.
    pub cut: Rc<Notify>,
    upstreams: Vec<Rc<Upstream>>,
    is_draining: Cell<bool>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    /// Connections and tunnels that hold the drain up.
    places: Cell<usize>,
    left: Notify,
    route_names: Vec<Arc<str>>,
}

/// A route as a core serves it.
#[derive(Debug)]
pub struct RouteEntry {
    /// Its place in the configuration and the meters.
    pub index: usize,
    /// Where it leads.
    pub target: RouteTarget,
    /// The buckets it draws from.
    pub limits: Vec<Arc<Bucket>>,
    /// The most bytes of a request's body.
    pub max_body: u64,
}

/// Where a route leads, resolved.
#[derive(Debug)]
pub enum RouteTarget {
    /// The shop's servers.
    Upstream(Rc<Upstream>),
    /// A router of this process, run here or on the given runtime.
    Handler {
        /// The router.
        router: axum::Router,
        /// `None` = here.
        runtime: Option<Handle>,
    },
    /// A handler this process does not have.
    Absent,
    /// Another place.
    Redirect {
        /// `https` or an origin.
        to: String,
        /// The status.
        status: StatusCode,
    },
}

/// A place among what a drain waits for. Dropped when its connection or tunnel ends.
#[derive(Debug)]
pub struct PlaceGuard {
    core: Rc<Core>,
}

impl Core {
    fn new(shared: Arc<Shared>, lines: Option<Lines>) -> Self {
        let config = &shared.config;
        let meters = Rc::new(Meters::new(config));
        let upstreams: Vec<Rc<Upstream>> = shared
            .upstreams
            .iter()
            .enumerate()
            .map(|(at, shared)| Rc::new(Upstream::new(Arc::clone(shared), at, &meters)))
            .collect();
        let target = |target: &Target| match target {
            Target::Upstream(at) => RouteTarget::Upstream(Rc::clone(&upstreams[*at])),
            Target::Sales => handler(shared.sales.as_ref(), None),
            Target::Payments => handler(shared.payments.as_ref(), Some(&shared.control)),
            Target::Redirect { to, status } => RouteTarget::Redirect {
                to: to.clone(),
                status: *status,
            },
        };
        let entry = |(index, route): (usize, &config::Route)| RouteEntry {
            index,
            target: target(&route.target),
            limits: route
                .limits
                .iter()
                .map(|at| Arc::clone(&shared.buckets[*at]))
                .collect(),
            max_body: route.max_body,
        };
        Self {
            table: RouteTable::new(&config.routes),
            routes: config.routes.iter().enumerate().map(entry).collect(),
            meters,
            lines,
            refusals: Cell::new(0),
            room: Arc::new(Semaphore::new(
                config
                    .server
                    .max_connections
                    .div_ceil(config.server.workers),
            )),
            stop: Notify::new(),
            cut: Rc::default(),
            is_draining: Cell::new(false),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            places: Cell::new(0),
            left: Notify::new(),
            route_names: config
                .routes
                .iter()
                .map(|route| route.name.as_str())
                .chain([NO_ROUTE])
                .map(Arc::from)
                .collect(),
            upstreams,
            shared,
        }
    }

    /// The name of a route by index; one past the last is that of no route.
    pub fn route_name(&self, index: usize) -> Arc<str> {
        Arc::clone(&self.route_names[index])
    }

    /// Whether it has stopped accepting.
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Takes a place among what a drain waits for.
    pub fn take_place(self: &Rc<Self>) -> PlaceGuard {
        self.places.set(self.places.get() + 1);
        PlaceGuard {
            core: Rc::clone(self),
        }
    }

    /// Lists a connection, so that sweeps and drains find it.
    pub fn enlist(&self, client: &Rc<Client>) -> u64 {
        let id = self.next_client.get();
        self.next_client.set(id + 1);
        self.clients.borrow_mut().insert(id, Rc::clone(client));
        self.meters.connection_opened(client.protocol);
        if self.is_draining.get() {
            client.wish.set(Wish::Drain);
        }
        id
    }

    /// Forgets a connection that has ended.
    pub fn delist(&self, id: u64) {
        if let Some(client) = self.clients.borrow_mut().remove(&id) {
            self.meters.connection_closed(client.protocol);
        }
    }

    /// Asks every connection for something.
    fn ask_all(&self, wish: Wish) {
        for client in self.clients.borrow().values() {
            client.ask(wish);
        }
    }

    /// Closes connections that have been idle, or slow to send a first header, for too long.
    fn sweep(&self, now: Instant) {
        let server = &self.shared.config.server;
        for client in self.clients.borrow().values() {
            if client.in_flight.get() > 0 {
                continue;
            }
            let allowed = match client.has_served.get() {
                true => server.idle_timeout,
                false => server.header_timeout,
            };
            if now.saturating_duration_since(client.idle_since.get()) < allowed {
                continue;
            }
            match client.protocol {
                // GOAWAY first: its client may be about to open a stream.
                Protocol::H2 if client.has_served.get() => client.ask(Wish::Drain),
                // Also an HTTP/2 client that never finished its preface, to which nothing can be said.
                Protocol::H1 | Protocol::H2 => client.ask(Wish::CloseIdle),
            }
        }
        for upstream in &self.upstreams {
            upstream.sweep(now);
        }
    }

    fn flush(&self) {
        self.meters.flush();
        if let Some(lines) = &self.lines {
            lines.flush();
        }
    }

    /// Waits until every connection and tunnel has ended.
    async fn all_left(&self) {
        while self.places.get() > 0 {
            self.left.notified().await;
        }
    }
}

impl Drop for PlaceGuard {
    fn drop(&mut self) {
        let places = self.core.places.get() - 1;
        self.core.places.set(places);
        if places == 0 {
            self.core.left.notify_one();
        }
    }
}

fn handler(router: Option<&axum::Router>, runtime: Option<&Handle>) -> RouteTarget {
    match router {
        Some(router) => RouteTarget::Handler {
            router: router.clone(),
            runtime: runtime.cloned(),
        },
        None => RouteTarget::Absent,
    }
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
    let cut = match time::timeout(deadline, core.all_left()).await {
        Ok(()) => 0,
        Err(_elapsed) => {
            let cut = core.places.get();
            core.ask_all(Wish::Abort);
            core.cut.notify_waiters();
            // They only have to be polled once more.
            let _ = time::timeout(TICK, core.all_left()).await;
            cut
        }
    };
    ticking.abort();
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
