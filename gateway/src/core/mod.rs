//! One core of the data plane: a thread with a runtime, listening sockets, pools and meters of its own.
//!
//! `app.rs` starts one per worker. Nothing on a request's path crosses from one core to another but the token buckets and
//! breakers, which must be one for all.

mod life;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ahash::HashMap;
use http::{HeaderValue, Method, StatusCode, Uri};
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

pub use self::life::{CoreThread, Phase, Socket, spawn};
use crate::{
    access_log::{Line, Lines},
    config::{self, Config, Target},
    exchange::{Client, Wish},
    headers::Via,
    metrics::{Meters, NO_ROUTE, Outcome, Protocol},
    route::RouteTable,
    spool::Budget,
    stack::limits::Bucket,
    upstream::{
        self, ClientBits, Upstream, client_share,
        holder::{GRACE, MinRate},
    },
};

/// How often idle connections are looked for while others wait.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What all cores share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// In the order of the configuration.
    pub upstreams: Vec<Arc<upstream::Shared>>,
    /// In the order of the configuration.
    pub buckets: Vec<Arc<Bucket>>,
    /// Requests that may be at the control runtime at a time.
    pub control_room: Arc<Semaphore>,
    /// Who this process is to others.
    pub via: Via,
    /// The sale API, if this process has it.
    pub sales: Option<axum::Router>,
    /// The payment API, if this process has it.
    pub payments: Option<axum::Router>,
    /// Where handlers run that wait on SQL: its connections belong to the control runtime.
    pub control: Handle,
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
    /// What answers of slow readers may occupy.
    spool: Rc<Budget>,
    is_draining: Cell<bool>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    /// When somebody last waited for a place.
    crowded_at: Cell<Option<Instant>>,
    /// How many connections each address has.
    connections: RefCell<HashMap<ClientBits, usize>>,
    /// Connections and tunnels that hold the drain up.
    places: Cell<usize>,
    left: Notify,
    route_names: Vec<Arc<str>>,
    /// The same moment on both clocks, read at the last tick.
    wall: Cell<(Instant, SystemTime)>,
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
    /// Origins whose pages may call it; empty = its own only.
    pub allow_origins: Vec<HeaderValue>,
    /// How much of a request's body is read before the upstream is asked.
    pub request_buffer: usize,
    /// How much of an answer may be taken off the upstream's connection for a client that reads it slowly.
    pub response_buffer: u64,
}

/// Where a route leads, resolved.
#[derive(Debug)]
pub enum RouteTarget {
    /// The shop's servers.
    Upstream(Rc<Upstream>),
    /// A router of this process.
    Handler {
        /// The router.
        router: axum::Router,
        /// What of it runs on this core.
        here: Here,
        /// Where the rest runs.
        control: Handle,
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

/// Which requests of a handler its core serves by itself. All others wait on SQL, which must not happen on a core: one slow
/// query would hold nobody up, but decoding a page of rows would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// None: payments.
    Nothing,
    /// POST: a purchase is decided by the store, and nothing on its path reads SQL. Reads and cancellations do.
    Posts,
}

impl Here {
    /// Whether a request with this method is served on the core.
    pub fn has(self, method: &Method) -> bool {
        self == Self::Posts && method == Method::POST
    }
}

/// A place among what a drain waits for. Dropped when its connection or tunnel ends.
#[derive(Debug)]
pub struct PlaceGuard {
    core: Rc<Core>,
}

/// A connection among those of its client's address.
#[derive(Debug)]
pub struct ConnectionGuard {
    core: Rc<Core>,
    client: ClientBits,
}

impl Core {
    fn new(shared: Arc<Shared>, lines: Option<Lines>) -> Self {
        let config = &shared.config;
        let meters = Rc::new(Meters::new(config));
        let upstreams: Vec<Rc<Upstream>> = shared
            .upstreams
            .iter()
            .enumerate()
            .map(|(at, shared)| {
                let min_rate = config.server.min_rate;
                Rc::new(Upstream::new(Arc::clone(shared), at, min_rate, &meters))
            })
            .collect();
        let target = |target: &Target| match target {
            Target::Upstream(at) => RouteTarget::Upstream(Rc::clone(&upstreams[*at])),
            Target::Sales => handler(shared.sales.as_ref(), Here::Posts, &shared.control),
            Target::Payments => handler(shared.payments.as_ref(), Here::Nothing, &shared.control),
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
            allow_origins: route.allow_origins.clone(),
            request_buffer: route.request_buffer,
            response_buffer: route.response_buffer,
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
            spool: Budget::new(config.server.buffer_memory, config.server.buffer_disk),
            is_draining: Cell::new(false),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            crowded_at: Cell::new(None),
            connections: RefCell::default(),
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
            wall: Cell::new((Instant::now(), SystemTime::now())),
            shared,
        }
    }

    /// What the wall clock shows at an instant of the last tick or so, without asking it.
    pub fn wall_time(&self, now: Instant) -> SystemTime {
        let (then, wall) = self.wall.get();
        wall + now.saturating_duration_since(then)
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

    /// Counts and logs a request that could not be read.
    pub fn unreadable(&self, client: &Client, status: StatusCode) {
        let none = self.routes.len();
        let outcome = Outcome::of(status);
        self.meters
            .request(none, outcome, client.protocol, Duration::ZERO);
        if let Some(lines) = &self.lines {
            lines.push(Line {
                at: self.wall_time(Instant::now()),
                client: client.peer.ip(),
                method: Method::from_bytes(b"-").expect("a token"),
                uri: Uri::from_static("*"),
                protocol: client.protocol,
                route: self.route_name(none),
                status: Some(status),
                outcome,
                bytes: 0,
                took: Duration::ZERO,
                sampled: 1,
            });
        }
    }

    /// Forgets a connection that has ended.
    pub fn delist(&self, id: u64) {
        if let Some(client) = self.clients.borrow_mut().remove(&id) {
            self.meters.connection_closed(client.protocol);
        }
    }

    /// Whether an address may have another connection: from half of `max_connections` on, one that is no trusted proxy may have a
    /// sixteenth of them, and 16 at least (INV-EDGE-4).
    pub fn may_connect(&self, ip: IpAddr) -> bool {
        let server = &self.shared.config.server;
        let all = server.max_connections.div_ceil(server.workers);
        let ip = ip.to_canonical();
        if self.room.available_permits() > all / 2
            || server
                .trusted_proxies
                .iter()
                .any(|network| network.contains(ip))
        {
            return true;
        }
        let held = self.connections.borrow().get(&client_share(ip)).copied();
        held.unwrap_or(0) < (all / 16).max(16)
    }

    /// Counts a connection of an address until the guard is dropped.
    pub fn count_connection(self: &Rc<Self>, ip: IpAddr) -> ConnectionGuard {
        let client = client_share(ip);
        *self.connections.borrow_mut().entry(client).or_default() += 1;
        ConnectionGuard {
            core: Rc::clone(self),
            client,
        }
    }

    /// A place for another connection. While there is none, idle connections are given up again and again: which are idle changes while
    /// others wait.
    pub async fn find_room(&self) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.room).acquire_owned();
        let mut room = std::pin::pin!(room);
        loop {
            if self.room.available_permits() == 0 {
                let now = Instant::now();
                self.crowded_at.set(Some(now));
                self.give_up_idle(now);
            }
            tokio::select! {
                biased;
                room = &mut room => return room.ok(),
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Ready when others wait for a place, and this connection has had a second to say its first word.
    pub async fn crowded(&self) {
        loop {
            tokio::time::sleep(GRACE).await;
            // Not whether others wait at this moment: the first that leaves would save all the rest.
            let crowded_at = self.crowded_at.get();
            if crowded_at.is_some_and(|at| at.elapsed() < 2 * GRACE) {
                return;
            }
        }
    }

    /// Asks those connections to end that have been idle longest, because others wait to be accepted: a sixteenth of all at a
    /// time, so that looking for them is paid once for many.
    pub fn give_up_idle(&self, now: Instant) {
        let clients = self.clients.borrow();
        let is_idle = |client: &&Rc<Client>| {
            client.in_flight.get() == 0
                && (client.has_served.get()
                    || now.saturating_duration_since(client.idle_since.get()) >= GRACE)
        };
        let mut idle: Vec<&Rc<Client>> = clients.values().filter(is_idle).collect();
        if idle.is_empty() {
            return;
        }
        let count = (clients.len() / 16).clamp(1, idle.len());
        idle.select_nth_unstable_by_key(count - 1, |client| client.idle_since.get());
        for client in &idle[..count] {
            client.ask(Wish::CloseIdle);
        }
    }

    /// Asks every connection for something.
    fn ask_all(&self, wish: Wish) {
        for client in self.clients.borrow().values() {
            client.ask(wish);
        }
    }

    /// Closes connections that have been idle, or slow to send a first header or to read a response, for too long.
    fn sweep(&self, now: Instant) {
        let server = &self.shared.config.server;
        for client in self.clients.borrow().values() {
            if client.in_flight.get() > 0 {
                for sending in client.sending.borrow().iter() {
                    sending.spool_after(now, GRACE, &self.spool);
                }
                cut_stalled(client, now, server.send_timeout, server.min_rate);
                continue;
            }
            // A client that was told of the drain, and has nothing under way, may be asleep: GOAWAY is answered by those who hear it.
            let is_told = self.is_draining.get() && client.has_served.get();
            if is_told && now.saturating_duration_since(client.idle_since.get()) >= GRACE {
                client.ask(Wish::CloseIdle);
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

    fn flush(&self, now: Instant) {
        self.wall.set((now, SystemTime::now()));
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

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut connections = self.core.connections.borrow_mut();
        if let Some(count) = connections.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.client);
            }
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

/// Cuts off the responses that the client has not read from for too long: what they hold of an upstream is free at once. The
/// connection ends when nothing else is going on on it; an HTTP/2 client that reads its other streams keeps those.
fn cut_stalled(client: &Client, now: Instant, allowed: Duration, rate: MinRate) {
    let sending = client.sending.borrow();
    let cut = sending
        .iter()
        .filter(|sending| sending.is_cut_after(now, allowed, rate))
        .count();
    if cut > 0 && cut == client.in_flight.get() as usize {
        client.ask(Wish::Abort);
    }
}

fn handler(router: Option<&axum::Router>, here: Here, control: &Handle) -> RouteTarget {
    match router {
        Some(router) => RouteTarget::Handler {
            router: router.clone(),
            here,
            control: control.clone(),
        },
        None => RouteTarget::Absent,
    }
}
