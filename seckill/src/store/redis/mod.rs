//! The stock store for many nodes: Redis ≥ 7, Redis Cluster or Valkey, one Lua function library.
//!
//! Every method is one `FCALL` of a function in `library/`, which decides and writes in one atomic step; this side only puts
//! arguments into words (`codec.rs`), sends them to the primary of the segment's slot (`keys.rs`, `nodes.rs`, `node.rs`, `call.rs`) and reads
//! the answer. A connection that was lost comes back by itself; until then, and while the server that answers has settings which
//! break the store's promises, calls are answered with [`StockError::Unavailable`] at once.

mod call;
mod codec;
mod connect;
mod keys;
mod node;
mod nodes;

use std::time::Duration;

use async_trait::async_trait;
use fred::types::Value;

use self::{
    call::{Caller, Function, MAX_BATCH, executed},
    keys::KeyCache,
    nodes::Nodes,
};
use super::{
    CartLine, CartVerdict, Confirm, Durability, Gate, Lookup, Position, Purchase, QueueDepth,
    QueueEntry, Release, SegmentSpec, Snapshot, StockError, StockMoves, StockStore, StoredOrder,
    Verdict,
};
use crate::ids::{OrderId, SegmentId};

/// How long a call may take before its outcome is unknown. Generous: a call takes well under a millisecond, so only a dead or
/// swamped server comes near it.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// How to talk to Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// How long a call may take before its outcome is unknown; also the limit for connecting.
    pub timeout: Duration,
    /// What an answer promises.
    pub durability: Durability,
    /// User name, where the password belongs to one.
    pub username: Option<String>,
    /// Password; taken in place of one in the address.
    pub password: Option<String>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            timeout: DEFAULT_TIMEOUT,
            durability: Durability::Fast,
            username: None,
            password: None,
        }
    }
}

/// Stock in Redis.
pub struct RedisStore {
    caller: Caller,
    touch_on_replay: bool,
}

impl RedisStore {
    /// Connects to `redis://[user:password@]host:port[/database]` or `redis-cluster://host:port,host:port`, checks version and
    /// settings of every primary, and loads the function library. Fails with [`StockError::Unavailable`] and the reason.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, StockError> {
        let config = connect::config(url, &options)?;
        let (timeout, replicas) = (
            options.timeout,
            u32::from(options.durability == Durability::Replicated),
        );
        let nodes = Nodes::connect(config, options).await?;
        Ok(Self {
            caller: Caller {
                nodes,
                keys: KeyCache::default(),
                timeout,
                replicas,
            },
            touch_on_replay: replicas > 0,
        })
    }

    /// Calls `function` for each piece of `items` that fits into one call.
    async fn call_in_batches<I: Sync, O: Send>(
        &self,
        function: Function,
        segment: &SegmentId,
        items: &[I],
        encode: impl Fn(&[I]) -> Vec<Value> + Send + Sync,
        decode: impl Fn(&str, &[I]) -> Result<Vec<O>, StockError> + Send + Sync,
    ) -> Result<Vec<O>, StockError> {
        let mut answers = Vec::with_capacity(items.len());
        for batch in items.chunks(MAX_BATCH) {
            match self.caller.call(function, segment, || encode(batch)).await {
                Ok(answer) => answers.extend(executed(decode(&answer, batch))?),
                // Earlier pieces were executed, so "nothing was executed" would be a lie about the whole.
                Err(error) if !answers.is_empty() => {
                    return Err(StockError::Unknown(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }
}

#[async_trait]
impl StockStore for RedisStore {
    async fn open(&self, spec: &SegmentSpec) -> Result<Snapshot, StockError> {
        let args = codec::open_args(spec)?;
        let answer = self
            .caller
            .call(Function::OPEN, &spec.id, || args.clone())
            .await?;
        executed(codec::read_snapshot(&answer, &spec.id))
    }

    async fn buy_many(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchases: Vec<Purchase>,
    ) -> Result<Vec<Verdict>, StockError> {
        let encode = |batch: &[Purchase]| codec::buy_args(epoch, self.touch_on_replay, batch);
        self.call_in_batches(
            Function::BUY,
            segment,
            &purchases,
            encode,
            codec::read_verdicts,
        )
        .await
    }

    async fn release_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Release>, StockError> {
        self.call_in_batches(
            Function::RELEASE,
            segment,
            orders,
            codec::order_args,
            codec::read_releases,
        )
        .await
    }

    async fn confirm_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Confirm>, StockError> {
        self.call_in_batches(
            Function::CONFIRM,
            segment,
            orders,
            codec::order_args,
            codec::read_confirms,
        )
        .await
    }

    async fn set_gate(&self, segment: &SegmentId, gate: Gate) -> Result<Snapshot, StockError> {
        let answer = self
            .caller
            .call(Function::SET_GATE, segment, || {
                vec![codec::gate_arg(gate).into()]
            })
            .await?;
        executed(codec::read_snapshot(&answer, segment))
    }

    async fn restock(
        &self,
        segment: &SegmentId,
        restock_id: &str,
        units: u64,
    ) -> Result<Snapshot, StockError> {
        let args = codec::restock_args(restock_id, units)?;
        let answer = self
            .caller
            .call(Function::RESTOCK, segment, || args.clone())
            .await?;
        executed(codec::read_snapshot(&answer, segment))
    }

    async fn snapshot(&self, segment: &SegmentId) -> Result<Snapshot, StockError> {
        let answer = self
            .caller
            .call(Function::SNAPSHOT, segment, Vec::new)
            .await?;
        codec::read_snapshot(&answer, segment)
    }

    async fn find(
        &self,
        segment: &SegmentId,
        lookup: &Lookup,
    ) -> Result<Option<StoredOrder>, StockError> {
        let args = || match lookup {
            Lookup::Order(order) => vec!["order".into(), order.to_string().into()],
            Lookup::Request(buyer, request) => {
                vec!["request".into(), format!("{buyer} {request}").into()]
            }
        };
        codec::read_found(&self.caller.call(Function::FIND, segment, args).await?)
    }

    async fn accepted_after(
        &self,
        segment: &SegmentId,
        mut after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        let mut orders = Vec::new();
        while orders.len() < max {
            let room = (max - orders.len()).min(MAX_BATCH);
            let args = || vec![after.to_string().into(), room.to_string().into()];
            let page =
                codec::read_accepted(&self.caller.call(Function::ACCEPTED, segment, args).await?)?;
            let is_last = page.len() < room;
            orders.extend(page);
            match orders.last() {
                Some((position, _)) if !is_last => after = *position,
                _ => break,
            }
        }
        Ok(orders)
    }

    async fn pull(
        &self,
        segment: &SegmentId,
        consumer: &str,
        max: usize,
        reclaim_after: Duration,
    ) -> Result<Vec<QueueEntry>, StockError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let args = || {
            vec![
                consumer.into(),
                max.min(MAX_BATCH).to_string().into(),
                reclaim_after
                    .as_millis()
                    .min(i64::MAX as u128)
                    .to_string()
                    .into(),
            ]
        };
        codec::read_entries(&self.caller.call(Function::PULL, segment, args).await?)
    }

    async fn ack(&self, segment: &SegmentId, positions: &[Position]) -> Result<(), StockError> {
        for batch in positions.chunks(MAX_BATCH) {
            let args = || {
                batch
                    .iter()
                    .map(|position| position.to_string().into())
                    .collect()
            };
            self.caller.call(Function::ACK, segment, args).await?;
        }
        Ok(())
    }

    async fn depth(&self, segment: &SegmentId) -> Result<QueueDepth, StockError> {
        codec::read_depth(&self.caller.call(Function::DEPTH, segment, Vec::new).await?)
    }

    async fn buy_cart(&self, _lines: Vec<CartLine>) -> Result<CartVerdict, StockError> {
        Err(StockError::Unavailable("carts are not built yet".into()))
    }

    async fn withdraw(
        &self,
        _segment: &SegmentId,
        _withdrawal_id: &str,
        _units: u64,
    ) -> Result<u64, StockError> {
        Err(StockError::Unavailable(
            "transfers are not built yet".into(),
        ))
    }

    async fn freeze(
        &self,
        _segment: &SegmentId,
        _epoch: u64,
    ) -> Result<Option<Snapshot>, StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }

    async fn unsettled(
        &self,
        _segment: &SegmentId,
        _after: Position,
        _max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }

    async fn rebuild_begin(
        &self,
        _spec: &SegmentSpec,
        _epoch: u64,
        _moves: &StockMoves,
    ) -> Result<(), StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }

    async fn rebuild_load(
        &self,
        _segment: &SegmentId,
        _epoch: u64,
        _orders: &[StoredOrder],
    ) -> Result<(), StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }

    async fn rebuild_finish(
        &self,
        _segment: &SegmentId,
        _epoch: u64,
        _gate: Gate,
    ) -> Result<Snapshot, StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }
}
