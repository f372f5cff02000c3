//! Kept-alive connections of one core to one endpoint.
//!
//! Last in, first out: the warmest connection goes first and the surplus grows old and is closed. Of more than `max_idle` the oldest is
//! closed. At `max_active` connections in use, the one whose client has kept it waiting longest loses its slot ([`Holder`]); if no client
//! is late the endpoint is passed over ([`PoolError::Busy`]). From half of `max_active` on, one client may hold `max_per_client` slots
//! (INV-EDGE-4).

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    ops::{Deref, DerefMut},
    rc::Rc,
    time::Duration,
};

use ahash::HashMap;
use tokio::time::{Instant, timeout};

use super::{Connection, holder::Holder};
use crate::{
    config,
    http::{GRACE, client_ip::ClientBits},
    meters::UpstreamMeters,
    snapshot::Snapshot,
};

/// The connections of one core to one endpoint.
#[derive(Debug)]
pub struct Pool {
    address: Box<str>,
    bounds: config::Pool,
    connect_timeout: Duration,
    /// Back = most recently used.
    idle: RefCell<VecDeque<Idle>>,
    active: Cell<usize>,
    /// Who holds the slots; in no order.
    holders: RefCell<Vec<Rc<Holder>>>,
    /// How many slots each client holds.
    shares: RefCell<HashMap<ClientBits, usize>>,
    server: Rc<Snapshot<config::Server>>,
    meters: Rc<UpstreamMeters>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum PoolError {
    /// `pool.max_active` are in use, and no client is late.
    Busy,
    /// The client holds its share of a pool that is getting full.
    Share,
    /// The endpoint refused, or its name has no address.
    Connect(io::Error),
    /// No answer within `connect_timeout`.
    TimedOut,
}

/// A connection in use. Dropped, it is closed; [`release`](Self::release) keeps it.
#[derive(Debug)]
pub struct Lease {
    /// `None` after release only.
    connection: Option<Box<Connection>>,
    /// How long it had been idle; zero for a new one.
    idled: Duration,
    slot: Slot,
}

/// One of the `max_active` connections in use: a lease has one, and so has a tunnel, whose connection is no lease.
#[derive(Debug)]
pub struct Slot {
    pool: Rc<Pool>,
    holder: Rc<Holder>,
}

impl Pool {
    /// Whether it is the pool that this configuration asks for.
    pub(super) fn is_for(&self, address: &str, upstream: &config::Upstream) -> bool {
        *self.address == *address
            && self.bounds == upstream.pool
            && self.connect_timeout == upstream.connect_timeout
    }

    pub(super) fn new(
        address: &str,
        upstream: &config::Upstream,
        server: Rc<Snapshot<config::Server>>,
        meters: Rc<UpstreamMeters>,
    ) -> Self {
        Self {
            holders: RefCell::default(),
            shares: RefCell::default(),
            server,
            address: address.into(),
            bounds: upstream.pool,
            connect_timeout: upstream.connect_timeout,
            idle: RefCell::default(),
            active: Cell::new(0),
            meters,
        }
    }

    /// An idle connection that is still alive, or a new one.
    pub async fn lease(
        self: &Rc<Self>,
        client: &ClientBits,
        now: Instant,
    ) -> Result<Lease, PoolError> {
        let slot = self.slot(client, now)?;
        match self.take_idle(now) {
            Some(Idle { connection, since }) => Ok(Lease {
                connection: Some(connection),
                idled: now.saturating_duration_since(since),
                slot,
            }),
            None => self.connect_in(slot).await,
        }
    }

    /// A slot for a connection that the caller makes by itself.
    pub fn slot(self: &Rc<Self>, client: &ClientBits, now: Instant) -> Result<Slot, PoolError> {
        let active = self.active.get();
        let is_filling = active >= self.bounds.max_active.div_ceil(2);
        let held = || self.shares.borrow().get(client).copied().unwrap_or(0);
        if is_filling && held() >= self.bounds.max_per_client {
            return Err(PoolError::Share);
        }
        if active >= self.bounds.max_active && !self.take_from_the_latest(now) {
            return Err(PoolError::Busy);
        }
        self.active.set(self.active.get() + 1);
        self.meters.active.up();
        *self.shares.borrow_mut().entry(*client).or_default() += 1;
        let mut holders = self.holders.borrow_mut();
        let holder = Rc::new(Holder::new(*client, holders.len()));
        holders.push(Rc::clone(&holder));
        Ok(Slot {
            pool: Rc::clone(self),
            holder,
        })
    }

    /// Takes the slot of the request whose client has kept it waiting longest, if any is late.
    fn take_from_the_latest(&self, now: Instant) -> bool {
        let latest = {
            let min_rate = self.server.read().min_rate;
            let holders = self.holders.borrow();
            let lateness = |holder: &Rc<Holder>| (holder.late(now, min_rate), Rc::clone(holder));
            holders.iter().map(lateness).max_by_key(|(late, _)| *late)
        };
        let Some((_, holder)) = latest.filter(|(late, _)| *late >= GRACE) else {
            return false;
        };
        self.forget(&holder);
        self.meters.evicted.add();
        holder.cut();
        true
    }

    /// A holder's slot is free.
    fn forget(&self, holder: &Rc<Holder>) {
        self.active.set(self.active.get() - 1);
        self.meters.active.down();
        let mut holders = self.holders.borrow_mut();
        let at = holder.at.get();
        holders.swap_remove(at);
        if let Some(moved) = holders.get(at) {
            moved.at.set(at);
        }
        let mut shares = self.shares.borrow_mut();
        if let Some(count) = shares.get_mut(&holder.client) {
            *count -= 1;
            if *count == 0 {
                shares.remove(&holder.client);
            }
        }
    }

    /// A new connection, also when idle ones are there: they may all have died together.
    pub async fn connect(
        self: &Rc<Self>,
        client: &ClientBits,
        now: Instant,
    ) -> Result<Lease, PoolError> {
        let slot = self.slot(client, now)?;
        self.connect_in(slot).await
    }

    /// The slot is taken before the connection is there, so that a stampede cannot pass the bound while connecting.
    async fn connect_in(&self, slot: Slot) -> Result<Lease, PoolError> {
        let connected = timeout(self.connect_timeout, Connection::try_connect(&self.address)).await;
        let error = match connected {
            Ok(Ok(connection)) => {
                self.meters.connects_ok.add();
                return Ok(Lease {
                    connection: Some(Box::new(connection)),
                    idled: Duration::ZERO,
                    slot,
                });
            }
            Ok(Err(error)) => PoolError::Connect(error),
            Err(_elapsed) => PoolError::TimedOut,
        };
        self.meters.connects_failed.add();
        Err(error)
    }

    /// Closes connections that are dead or have been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|idle| {
            let keep = now.saturating_duration_since(idle.since) < self.bounds.idle_timeout
                && idle.connection.is_ready();
            if !keep {
                self.meters.idle.down();
            }
            keep
        });
    }

    fn take_idle(&self, now: Instant) -> Option<Idle> {
        loop {
            let mut idle = self.idle.borrow_mut().pop_back()?;
            self.meters.idle.down();
            let is_young = now.saturating_duration_since(idle.since) < self.bounds.idle_timeout;
            if is_young && idle.connection.is_ready() {
                return Some(idle);
            }
        }
    }

    fn keep(&self, connection: Box<Connection>, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if self.bounds.max_idle == 0 {
            return;
        }
        if idle.len() >= self.bounds.max_idle {
            idle.pop_front();
            self.meters.idle.down();
        }
        self.meters.idle.up();
        idle.push_back(Idle {
            connection,
            since: now,
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for _ in self.idle.get_mut().drain(..) {
            self.meters.idle.down();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // One that was cut has been counted out already.
        if !self.holder.is_cut() {
            self.pool.forget(&self.holder);
        }
    }
}

impl Lease {
    /// How long its connection had been idle before.
    pub fn idled(&self) -> Duration {
        self.idled
    }

    /// Who holds its slot.
    pub fn holder(&self) -> &Rc<Holder> {
        &self.slot.holder
    }

    /// Back into the pool, if another request can be sent on it; else closed.
    pub fn release(mut self, now: Instant) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_ready()
        {
            self.slot.pool.keep(connection, now);
        }
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("present until released")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("present until released")
    }
}
