//! The stock store for many nodes: Redis ≥ 7, Redis Cluster or Valkey, one Lua function library.
//!
//! Every method is one `FCALL` of a function in `library/`, which decides and writes in one atomic step; this side only puts
//! arguments into words (`ask.rs`, `codec.rs`), sends them to the primary of the segment's slot (`keys.rs`, `nodes.rs`, `node.rs`, `call.rs`),
//! waits for the durability of the sale (`durability.rs`) and reads the answer. A connection that was lost comes back by itself;
//! until then, and while the server that answers has settings which break the store's promises, calls are answered with
//! [`StockError::Unavailable`] at once. A segment that another server life has sold from waits for its rebuild (`library/rebuild.lua`).

mod ask;
mod call;
mod cart;
mod codec;
mod connect;
mod durability;
mod failure;
mod function;
mod keys;
mod lanes;
mod node;
mod nodes;
pub mod quorum;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use self::{
    call::Caller,
    failure::executed,
    function::{Function, MAX_BATCH},
    keys::KeyCache,
    lanes::Lanes,
    nodes::Nodes,
};
use super::{
    Capabilities, CartLine, CartVerdict, Durability, Gate, Lookup, Moves, OrderQueue, Position,
    Purchase, QueueDepth, QueueEntry, Rebuild, SegmentSpec, SegmentStatus, Segments, Selling,
    StockError, StockMoves, StoredOrder, Transition, Verdict, Wanted,
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
    /// What an answer promises for sales that name no durability of their own.
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
    calls: Arc<Calls>,
    lanes: Lanes,
}

/// What a call needs; lanes share it with the store.
struct Calls {
    caller: Caller,
    keys: KeyCache,
    durability: Durability,
}

impl RedisStore {
    /// Connects to `redis://[user:password@]host:port[/database]` or `redis-cluster://host:port,host:port`, checks version, settings
    /// and function library of every primary. One that does not answer is waited for: the segments on it are unavailable until it does.
    /// Fails with [`StockError::Unavailable`] and the reason where no waiting helps: the address is wrong, or a server that answers
    /// refuses the password or does not keep the store's promises.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, StockError> {
        let config = connect::config(url, &options)?;
        let (timeout, durability) = (options.timeout, options.durability);
        let nodes = Nodes::connect(config, options).await?;
        let calls = Arc::new(Calls {
            caller: Caller { nodes, timeout },
            keys: KeyCache::default(),
            durability,
        });
        Ok(Self {
            lanes: Lanes::new(calls.clone()),
            calls,
        })
    }
}

#[async_trait]
impl Segments for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durability: &Durability::ALL,
            carts: true,
        }
    }

    async fn reach(&self) -> Result<(), StockError> {
        self.calls.caller.nodes.reach().await
    }

    async fn open(&self, spec: &SegmentSpec) -> Result<SegmentStatus, StockError> {
        let args = codec::open_args(spec)?;
        let keys = [self.calls.keys.of(&spec.id)];
        let level = self.calls.learn(&keys[0], spec);
        let answer = self
            .calls
            .caller
            .call(Function::OPEN, &keys, level, || args.clone())
            .await?;
        executed(self.calls.read_snapshot(&answer, &spec.id))
    }

    async fn snapshot(&self, segment: &SegmentId) -> Result<SegmentStatus, StockError> {
        let answer = self
            .calls
            .ask(Function::SNAPSHOT, segment, Vec::new)
            .await?;
        self.calls.read_snapshot(&answer, segment)
    }

    async fn set_gate(&self, segment: &SegmentId, gate: Gate) -> Result<SegmentStatus, StockError> {
        let args = || vec![codec::gate_arg(gate).into()];
        let answer = self.calls.write(Function::SET_GATE, segment, args).await?;
        executed(self.calls.read_snapshot(&answer, segment))
    }
}

#[async_trait]
impl Selling for RedisStore {
    async fn buy_many(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchases: Vec<Purchase>,
    ) -> Result<Vec<Verdict>, StockError> {
        self.calls.buy_many(segment, epoch, &purchases).await
    }

    async fn buy(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchase: Purchase,
        wanted: Wanted,
    ) -> Result<Verdict, StockError> {
        self.lanes.buy(segment, epoch, purchase, wanted).await
    }

    async fn buy_cart(&self, lines: Vec<CartLine>) -> Result<CartVerdict, StockError> {
        cart::check(&lines)?;
        let keys: Vec<_> = lines
            .iter()
            .map(|line| self.calls.keys.of(&line.segment))
            .collect();
        // All lines are of one sale.
        let level = self.calls.level(&keys[0]).await?;
        let encode = || codec::cart_args(&lines);
        let answer = self
            .calls
            .caller
            .call(Function::BUY_CART, &keys, level, encode)
            .await?;
        executed(codec::read_cart(&answer, &lines))
    }

    async fn release_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Transition>, StockError> {
        self.calls
            .call_in_batches(
                Function::RELEASE,
                segment,
                orders,
                codec::order_args,
                codec::read_transitions,
            )
            .await
    }

    async fn confirm_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Transition>, StockError> {
        self.calls
            .call_in_batches(
                Function::CONFIRM,
                segment,
                orders,
                codec::order_args,
                codec::read_transitions,
            )
            .await
    }

    async fn find(
        &self,
        segment: &SegmentId,
        lookup: &Lookup,
    ) -> Result<Option<StoredOrder>, StockError> {
        let args = || match lookup {
            Lookup::Order(order) => vec!["order".into(), order.to_string().into()],
            Lookup::Request(buyer, request) => vec![
                "request".into(),
                buyer.as_str().into(),
                request.as_str().into(),
            ],
        };
        codec::read_found(&self.calls.ask(Function::FIND, segment, args).await?)
    }
}

#[async_trait]
impl Moves for RedisStore {
    async fn restock(
        &self,
        segment: &SegmentId,
        restock_id: &str,
        units: u64,
    ) -> Result<SegmentStatus, StockError> {
        let args = codec::units_args(restock_id, units)?;
        let answer = self
            .calls
            .write(Function::RESTOCK, segment, || args.clone())
            .await?;
        executed(self.calls.read_snapshot(&answer, segment))
    }

    async fn withdraw(
        &self,
        segment: &SegmentId,
        withdrawal_id: &str,
        units: u64,
    ) -> Result<u64, StockError> {
        let args = codec::units_args(withdrawal_id, units)?;
        let answer = self
            .calls
            .write(Function::WITHDRAW, segment, || args.clone())
            .await?;
        executed(codec::read_units(&answer))
    }
}

#[async_trait]
impl OrderQueue for RedisStore {
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
        codec::read_entries(&self.calls.ask(Function::PULL, segment, args).await?)
    }

    async fn ack(&self, segment: &SegmentId, positions: &[Position]) -> Result<(), StockError> {
        for batch in positions.chunks(MAX_BATCH) {
            let args = || {
                batch
                    .iter()
                    .map(|position| position.to_string().into())
                    .collect()
            };
            self.calls.ask(Function::ACK, segment, args).await?;
        }
        Ok(())
    }

    async fn depth(&self, segment: &SegmentId) -> Result<QueueDepth, StockError> {
        codec::read_depth(&self.calls.ask(Function::DEPTH, segment, Vec::new).await?)
    }

    async fn accepted_after(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        self.calls
            .page(Function::ACCEPTED, segment, after, max)
            .await
    }
}

#[async_trait]
impl Rebuild for RedisStore {
    async fn freeze(
        &self,
        segment: &SegmentId,
        epoch: u64,
    ) -> Result<Option<SegmentStatus>, StockError> {
        let args = [codec::epoch_arg(epoch)?];
        let answer = self.calls.step(Function::FREEZE, segment, &args).await?;
        if answer.is_empty() {
            return Ok(None);
        }
        executed(self.calls.read_snapshot(&answer, segment)).map(Some)
    }

    async fn unsettled(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        self.calls
            .page(Function::UNSETTLED, segment, after, max)
            .await
    }

    async fn rebuild_begin(
        &self,
        spec: &SegmentSpec,
        epoch: u64,
        moves: &StockMoves,
    ) -> Result<(), StockError> {
        self.calls.learn(&self.calls.keys.of(&spec.id), spec);
        let args = codec::begin_args(spec, epoch)?;
        self.calls
            .step(Function::REBUILD_BEGIN, &spec.id, &args)
            .await?;
        // What came in first, so that what went out finds it.
        for (sign, moves) in [("+", &moves.restocks), ("-", &moves.withdrawals)] {
            for page in moves.chunks(MAX_BATCH) {
                let args = codec::move_args(epoch, sign, page)?;
                self.calls
                    .step(Function::REBUILD_MOVES, &spec.id, &args)
                    .await?;
            }
        }
        Ok(())
    }

    async fn rebuild_load(
        &self,
        segment: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
    ) -> Result<(), StockError> {
        // No orders are a call too: it tells whether the epoch is still the newest.
        let (first, rest) = orders.split_at(orders.len().min(MAX_BATCH));
        for page in std::iter::once(first).chain(rest.chunks(MAX_BATCH)) {
            let args = codec::load_args(epoch, page)?;
            self.calls
                .step(Function::REBUILD_LOAD, segment, &args)
                .await?;
        }
        Ok(())
    }

    async fn rebuild_finish(
        &self,
        segment: &SegmentId,
        epoch: u64,
        gate: Gate,
    ) -> Result<SegmentStatus, StockError> {
        let args = [codec::epoch_arg(epoch)?, codec::gate_arg(gate).into()];
        let answer = self
            .calls
            .step(Function::REBUILD_FINISH, segment, &args)
            .await?;
        executed(self.calls.read_snapshot(&answer, segment))
    }
}
