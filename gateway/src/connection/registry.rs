//! The connections of one core: how many there may be, whose they are, and how long each may do nothing.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use ahash::HashMap;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{Client, Command, Drain, sending};
use crate::{
    config,
    http::{
        GRACE, Protocol,
        client_ip::{ClientBits, client_share},
    },
    meters::ConnectionMeters,
    snapshot::Snapshot,
};

/// How often idle connections are looked for while others wait.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// All client connections of a core.
#[derive(Debug)]
pub(crate) struct Connections {
    /// The `[server]` table as it is now.
    pub server: Rc<Snapshot<config::Server>>,
    /// What is counted of them.
    pub meters: Rc<ConnectionMeters>,
    /// What ends them when the process ends.
    pub drain: Rc<Drain>,
    /// As many as this core may have.
    most: usize,
    permits: Arc<Semaphore>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    next_id: Cell<u64>,
    /// When somebody last waited for a permit.
    crowded_at: Cell<Option<Instant>>,
    /// How many connections each address has.
    by_address: RefCell<HashMap<ClientBits, usize>>,
}

/// A connection among those of its client's address.
#[derive(Debug)]
pub(crate) struct AddressGuard {
    connections: Rc<Connections>,
    client: ClientBits,
}

impl Connections {
    pub(crate) fn new(
        server: Rc<Snapshot<config::Server>>,
        meters: Rc<ConnectionMeters>,
        drain: Rc<Drain>,
    ) -> Self {
        let config = server.read();
        let most = config.max_connections.div_ceil(config.workers);
        Self {
            server,
            meters,
            drain,
            most,
            permits: Arc::new(Semaphore::new(most)),
            clients: RefCell::default(),
            next_id: Cell::new(0),
            crowded_at: Cell::new(None),
            by_address: RefCell::default(),
        }
    }

    /// Lists a connection, so that sweeps and drains find it.
    pub(crate) fn enlist(&self, client: &Rc<Client>) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.clients.borrow_mut().insert(id, Rc::clone(client));
        self.meters.opened(client.protocol);
        if self.drain.has_begun() {
            client.command.set(Command::Drain);
        }
        id
    }

    /// Forgets a connection that has ended.
    pub(crate) fn delist(&self, id: u64) {
        if let Some(client) = self.clients.borrow_mut().remove(&id) {
            self.meters.closed(client.protocol);
        }
    }

    /// Whether an address may have another connection: from half of `max_connections` on, one that is no trusted proxy may have a
    /// sixteenth of them, and 16 at least (INV-EDGE-4).
    pub(crate) fn may_connect(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_proxy = || {
            let server = self.server.read();
            let mut networks = server.trusted_proxies.iter();
            networks.any(|network| network.contains(ip))
        };
        if self.permits.available_permits() > self.most / 2 || is_proxy() {
            return true;
        }
        let held = self.by_address.borrow().get(&client_share(ip)).copied();
        held.unwrap_or(0) < (self.most / 16).max(16)
    }

    /// Counts a connection of an address until the guard is dropped.
    pub(crate) fn count(self: &Rc<Self>, ip: IpAddr) -> AddressGuard {
        let client = client_share(ip);
        *self.by_address.borrow_mut().entry(client).or_default() += 1;
        AddressGuard {
            connections: Rc::clone(self),
            client,
        }
    }

    /// A permit for another connection. While there is none, idle connections are given up again and again: which are idle changes while
    /// others wait.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let mut permit = std::pin::pin!(permit);
        loop {
            if self.permits.available_permits() == 0 {
                let now = Instant::now();
                self.crowded_at.set(Some(now));
                self.give_up_idle(now);
            }
            tokio::select! {
                biased;
                permit = &mut permit => return permit.ok(),
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Ready when others wait for a permit, and this connection has had a second to say its first word.
    pub(crate) async fn crowded(&self) {
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
    fn give_up_idle(&self, now: Instant) {
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
            client.ask(Command::CloseIdle);
        }
    }

    /// Asks every connection for something.
    pub(crate) fn ask_all(&self, command: Command) {
        for client in self.clients.borrow().values() {
            client.ask(command);
        }
    }

    /// Closes connections that have been idle, or slow to send a first header or to read a response, for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let server = self.server.read();
        for client in self.clients.borrow().values() {
            match client.in_flight.get() {
                0 => self.sweep_idle(client, &server, now),
                _ => sending::sweep(client, now, server.send_timeout, server.min_rate),
            }
        }
    }

    fn sweep_idle(&self, client: &Client, server: &config::Server, now: Instant) {
        let idle = now.saturating_duration_since(client.idle_since.get());
        let has_served = client.has_served.get();
        // A client that was told of the drain, and has nothing under way, may be asleep: GOAWAY is answered by those who hear it.
        if self.drain.has_begun() && has_served && idle >= GRACE {
            return client.ask(Command::CloseIdle);
        }
        let allowed = match has_served {
            true => server.idle_timeout,
            false => server.header_timeout,
        };
        if idle < allowed {
            return;
        }
        match client.protocol {
            // GOAWAY first: its client may be about to open a stream.
            Protocol::H2 if has_served => client.ask(Command::Drain),
            // Also an HTTP/2 client that never finished its preface, to which nothing can be said.
            Protocol::H1 | Protocol::H2 => client.ask(Command::CloseIdle),
        }
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut by_address = self.connections.by_address.borrow_mut();
        if let Some(count) = by_address.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.client);
            }
        }
    }
}
