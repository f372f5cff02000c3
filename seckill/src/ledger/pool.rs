//! The ledger's connections, and what calls of the database cost: how long they waited for one, how long they had it, how they ended.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    future::BoxFuture,
    stream::{BoxStream, StreamExt},
};
use metrics::{Counter, Gauge, Histogram};
use sqlx::{
    Any, AnyConnection, AnyPool, Either, Error, Execute, Executor, SqlStr, Transaction,
    any::{AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo},
    pool::PoolConnection,
};
use tokio::time::Instant;

/// What a call of the database is, as the `operation` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// A statement by itself that reads what is committed.
    Read,
    /// A statement by itself on the writing side.
    Write,
    /// From BEGIN to COMMIT or ROLLBACK.
    Transaction,
    /// Several statements on one connection, outside a transaction.
    Connection,
}

const OPERATIONS: [&str; 4] = ["read", "write", "transaction", "connection"];

/// A pool that counts. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    pool: AnyPool,
    /// What a statement by itself is here.
    statement: Operation,
    meters: Arc<Meters>,
}

struct Meters {
    seconds: [Histogram; 4],
    errors: [Counter; 4],
    wait_seconds: Histogram,
    in_use: Gauge,
    idle: Gauge,
    max: Gauge,
}

/// A connection, or a transaction on one.
pub(super) struct Held<C> {
    connection: C,
    call: Call,
}

/// Given back when it is dropped.
pub(super) type Connection = Held<PoolConnection<Any>>;

/// Rolled back when it is dropped before its commit.
pub(super) type Tx = Held<Transaction<'static, Any>>;

/// The time of one call runs until this is dropped.
struct Call {
    meters: Arc<Meters>,
    operation: Operation,
    began: Instant,
}

impl Pool {
    /// Counts what goes over this pool, whose statements are reads or writes.
    pub(super) fn new(pool: AnyPool, statement: Operation) -> Self {
        let name = OPERATIONS[statement as usize];
        let connections = |state: &'static str| metrics::gauge!("penstock_database_connections", "pool" => name, "state" => state);
        let errors = |operation: &'static str| metrics::counter!("penstock_database_errors_total", "operation" => operation);
        let meters = Meters {
            seconds: OPERATIONS.map(|operation| metrics::histogram!("penstock_database_call_seconds", "operation" => operation)),
            errors: OPERATIONS.map(errors),
            wait_seconds: metrics::histogram!("penstock_database_wait_seconds", "pool" => name),
            in_use: connections("in_use"),
            idle: connections("idle"),
            max: metrics::gauge!("penstock_database_connections_max", "pool" => name),
        };
        Self {
            pool,
            statement,
            meters: Arc::new(meters),
        }
    }

    /// The pool without its counting, for the parts that keep tables of their own.
    pub(super) fn uncounted(&self) -> &AnyPool {
        &self.pool
    }

    /// Shows how many connections there are and how many of them work.
    pub(super) fn show(&self) {
        let (size, idle) = (self.pool.size() as usize, self.pool.num_idle());
        self.meters.idle.set(idle as f64);
        self.meters.in_use.set(size.saturating_sub(idle) as f64);
        let max = self.pool.options().get_max_connections();
        self.meters.max.set(f64::from(max));
    }

    /// A connection for several statements.
    pub(super) async fn acquire(&self) -> Result<Connection, Error> {
        self.held(Operation::Connection, self.pool.acquire()).await
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Tx, Error> {
        self.held(Operation::Transaction, self.pool.begin()).await
    }

    /// Begins a transaction with this statement.
    pub(super) async fn begin_with(&self, statement: &'static str) -> Result<Tx, Error> {
        let begin = self.pool.begin_with(statement);
        self.held(Operation::Transaction, begin).await
    }

    async fn held<C>(
        &self,
        operation: Operation,
        take: impl Future<Output = Result<C, Error>>,
    ) -> Result<Held<C>, Error> {
        let asked = Instant::now();
        let connection = take.await;
        let call = self.call(operation, asked.elapsed());
        let connection = call.ended(connection)?;
        Ok(Held { connection, call })
    }

    /// A connection for one statement.
    async fn take(&self) -> Result<Connection, Error> {
        self.held(self.statement, self.pool.acquire()).await
    }

    fn call(&self, operation: Operation, waited: Duration) -> Call {
        self.meters.wait_seconds.record(waited.as_secs_f64());
        Call {
            meters: Arc::clone(&self.meters),
            operation,
            began: Instant::now(),
        }
    }
}

impl Call {
    /// Counts a failure; the answer stays.
    fn ended<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        // That there is no such row is an answer.
        if result
            .as_ref()
            .is_err_and(|error| !matches!(error, Error::RowNotFound))
        {
            self.meters.errors[self.operation as usize].increment(1);
        }
        result
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.meters.seconds[self.operation as usize].record(seconds);
    }
}

impl Tx {
    /// Commits; what was written is there, or nothing of it.
    pub(super) async fn commit(self) -> Result<(), Error> {
        let committed = self.connection.commit().await;
        self.call.ended(committed)
    }

    /// Takes everything back.
    pub(super) async fn rollback(self) -> Result<(), Error> {
        let rolled_back = self.connection.rollback().await;
        self.call.ended(rolled_back)
    }
}

impl<C: Deref<Target = AnyConnection>> Deref for Held<C> {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl<C: DerefMut<Target = AnyConnection>> DerefMut for Held<C> {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pool").field(&self.pool).finish()
    }
}

/// Runs a statement on a connection of its own.
macro_rules! in_one_call {
    ($($name:ident -> $answer:ty;)*) => {
        $(fn $name<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<$answer, Error>>
        where
            'p: 'e,
            E: 'q + Execute<'q, Any>,
        {
            let pool = self.clone();
            Box::pin(async move {
                let mut held = pool.take().await?;
                let done = held.connection.$name(query).await;
                held.call.ended(done)
            })
        })*
    };
}

impl<'p> Executor<'p> for &Pool {
    type Database = Any;

    in_one_call! {
        execute -> AnyQueryResult;
        fetch_all -> Vec<AnyRow>;
        fetch_optional -> Option<AnyRow>;
    }

    /// What nobody asks for today; the wait is part of the call here.
    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let call = self.call(self.statement, Duration::ZERO);
        let answers = self.pool.fetch_many(query);
        answers.map(move |answer| call.ended(answer)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'p: 'e,
    {
        self.pool.prepare_with(sql, parameters)
    }
}
