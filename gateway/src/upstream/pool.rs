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
        if self.active.get() >= self.bounds.max_active {
            return Err(PoolError::Busy);
        }
        match self.take_idle(now) {
            Some(connection) => Ok(self.lend(connection)),
            None => self.connect().await,
        }
    }

    /// A new connection, also when idle ones are there: they may all have died together.
    pub async fn connect(self: &Rc<Self>) -> Result<Lease, PoolError> {
        if self.active.get() >= self.bounds.max_active {
            return Err(PoolError::Busy);
        }
        // Counted before it is there, so that a stampede cannot pass the bound while connecting.
        let place = Place::take(self);
        let connected = timeout(self.connect_timeout, Connection::try_connect(&self.address)).await;
        let outcome = match connected {
            Ok(Ok(connection)) => Ok(Box::new(connection)),
            Ok(Err(error)) => Err(PoolError::Connect(error)),
            Err(_elapsed) => Err(PoolError::TimedOut),
        };
        drop(place);
        match outcome {
            Ok(connection) => {
                self.meters().connects_ok.add();
                Ok(self.lend(connection))
            }
            Err(error) => {
                self.meters().connects_failed.add();
                Err(error)
            }
        }
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

    fn take_idle(&self, now: Instant) -> Option<Box<Connection>> {
        loop {
            let Idle {
                mut connection,
                since,
            } = self.idle.borrow_mut().pop_back()?;
            self.meters().idle.down();
            let is_young = now.saturating_duration_since(since) < self.bounds.idle_timeout;
            if is_young && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    fn lend(self: &Rc<Self>, connection: Box<Connection>) -> Lease {
        self.active.set(self.active.get() + 1);
        self.meters().active.up();
        Lease {
            connection: Some(connection),
            pool: Rc::clone(self),
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

/// A place among the active connections while one is being made.
struct Place<'p>(&'p Pool);

impl<'p> Place<'p> {
    fn take(pool: &'p Pool) -> Self {
        pool.active.set(pool.active.get() + 1);
        Self(pool)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl Lease {
    /// Back into the pool, if another request can be sent on it; else closed.
    pub fn release(mut self, now: Instant) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_ready()
        {
            self.pool.keep(connection, now);
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

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.active.set(self.pool.active.get() - 1);
        self.pool.meters().active.down();
    }
}
