//! Kept-alive connections of one core to one endpoint.
//!
//! Last in, first out: the warmest connection goes first and the surplus grows old and is closed. At `max_active` connections
//! in use the endpoint is passed over ([`PoolError::Busy`]); of more than `max_idle` the oldest is closed.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    ops::{Deref, DerefMut},
    rc::Rc,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::Connection;
use crate::{
    config,
    metrics::{Meters, UpstreamMeters},
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
    meters: Rc<Meters>,
    upstream: usize,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum PoolError {
    /// `pool.max_active` are in use.
    Busy,
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
    place: Place,
}

/// One of the `max_active` connections in use: a lease has one, and so has a tunnel, whose connection is no lease.
#[derive(Debug)]
pub struct Place {
    pool: Rc<Pool>,
}

impl Pool {
    pub(super) fn new(
        address: &str,
        upstream: &config::Upstream,
        meters: Rc<Meters>,
        index: usize,
    ) -> Self {
        Self {
            address: address.into(),
            bounds: upstream.pool,
            connect_timeout: upstream.connect_timeout,
            idle: RefCell::default(),
            active: Cell::new(0),
            meters,
            upstream: index,
        }
    }

    /// An idle connection that is still alive, or a new one.
    pub async fn lease(self: &Rc<Self>, now: Instant) -> Result<Lease, PoolError> {
        let place = self.place()?;
        match self.take_idle(now) {
            Some(Idle { connection, since }) => Ok(Lease {
                connection: Some(connection),
                idled: now.saturating_duration_since(since),
                place,
            }),
            None => self.connect_in(place).await,
        }
    }

    /// A place for a connection that the caller makes by itself.
    pub fn place(self: &Rc<Self>) -> Result<Place, PoolError> {
        if self.active.get() >= self.bounds.max_active {
            return Err(PoolError::Busy);
        }
        self.active.set(self.active.get() + 1);
        self.meters().active.up();
        Ok(Place {
            pool: Rc::clone(self),
        })
    }

    /// A new connection, also when idle ones are there: they may all have died together.
    pub async fn connect(self: &Rc<Self>) -> Result<Lease, PoolError> {
        let place = self.place()?;
        self.connect_in(place).await
    }

    /// The place is taken before the connection is there, so that a stampede cannot pass the bound while connecting.
    async fn connect_in(&self, place: Place) -> Result<Lease, PoolError> {
        let connected = timeout(self.connect_timeout, Connection::try_connect(&self.address)).await;
        let error = match connected {
            Ok(Ok(connection)) => {
                self.meters().connects_ok.add();
                return Ok(Lease {
                    connection: Some(Box::new(connection)),
                    idled: Duration::ZERO,
                    place,
                });
            }
            Ok(Err(error)) => PoolError::Connect(error),
            Err(_elapsed) => PoolError::TimedOut,
        };
        self.meters().connects_failed.add();
        Err(error)
    }

    /// Closes connections that are dead or have been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|idle| {
            let keep = now.saturating_duration_since(idle.since) < self.bounds.idle_timeout
                && idle.connection.is_ready();
            if !keep {
                self.meters().idle.down();
            }
            keep
        });
    }

    fn take_idle(&self, now: Instant) -> Option<Idle> {
        loop {
            let mut idle = self.idle.borrow_mut().pop_back()?;
            self.meters().idle.down();
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
            self.meters().idle.down();
        }
        self.meters().idle.up();
        idle.push_back(Idle {
            connection,
            since: now,
        });
    }

    fn meters(&self) -> &UpstreamMeters {
        self.meters.upstream(self.upstream)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for _ in self.idle.get_mut().drain(..) {
            self.meters.upstream(self.upstream).idle.down();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.active.set(self.pool.active.get() - 1);
        self.pool.meters().active.down();
    }
}

impl Lease {
    /// How long its connection had been idle before.
    pub fn idled(&self) -> Duration {
        self.idled
    }

    /// Back into the pool, if another request can be sent on it; else closed.
    pub fn release(mut self, now: Instant) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_ready()
        {
            self.place.pool.keep(connection, now);
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
