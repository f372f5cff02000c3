//! How the store's methods reach [`super::call`]: with the keys and the durability of the segment, in pieces that fit into one call.

use std::sync::Arc;

use fred::types::Value;

use super::{
    Calls, codec,
    failure::executed,
    function::{Function, MAX_BATCH},
    keys::{Level, SegmentKeys},
};
use crate::{
    Durability, Position, Purchase, SegmentSpec, SegmentStatus, StockError, StoredOrder, Verdict,
    ids::SegmentId,
};

impl Calls {
    /// What the writes of a segment wait for, by its rules; reads them where this process has not seen them yet.
    pub(super) async fn level(&self, keys: &Arc<SegmentKeys>) -> Result<Durability, StockError> {
        if keys.level() == Level::Unknown {
            let answer = self
                .ask(Function::SNAPSHOT, &keys.segment, Vec::new)
                .await?;
            self.read_snapshot(&answer, &keys.segment)?;
        }
        Ok(self.known_level(keys))
    }

    fn known_level(&self, keys: &SegmentKeys) -> Durability {
        match keys.level() {
            Level::Own(durability) => durability,
            Level::OfStore | Level::Unknown => self.durability,
        }
    }

    /// The same for rules that are at hand.
    pub(super) fn learn(&self, keys: &SegmentKeys, spec: &SegmentSpec) -> Durability {
        keys.learn(spec.durability);
        spec.durability.unwrap_or(self.durability)
    }

    /// Calls a function that only reads.
    pub(super) async fn ask(
        &self,
        function: Function,
        segment: &SegmentId,
        args: impl Fn() -> Vec<Value>,
    ) -> Result<String, StockError> {
        let keys = [self.keys.of(segment)];
        self.caller
            .call(function, &keys, Durability::Fast, args)
            .await
    }

    /// Calls a function that writes to a segment which is open.
    pub(super) async fn write(
        &self,
        function: Function,
        segment: &SegmentId,
        args: impl Fn() -> Vec<Value>,
    ) -> Result<String, StockError> {
        let keys = [self.keys.of(segment)];
        let level = self.level(&keys[0]).await?;
        self.caller.call(function, &keys, level, args).await
    }

    /// Calls a step of a rebuild; it may come from a process that has never seen the segment's rules.
    pub(super) async fn step(
        &self,
        function: Function,
        segment: &SegmentId,
        args: &[Value],
    ) -> Result<String, StockError> {
        let keys = [self.keys.of(segment)];
        let level = self.known_level(&keys[0]);
        self.caller
            .call(function, &keys, level, || args.to_vec())
            .await
    }

    /// Reads a snapshot, and learns the durability from it.
    pub(super) fn read_snapshot(
        &self,
        answer: &str,
        segment: &SegmentId,
    ) -> Result<SegmentStatus, StockError> {
        let counts = codec::read_snapshot(answer, segment)?;
        self.keys.of(segment).learn(counts.spec.durability);
        Ok(counts)
    }

    /// Decides a batch of purchases.
    pub(super) async fn buy_many(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchases: &[Purchase],
    ) -> Result<Vec<Verdict>, StockError> {
        let encode = |batch: &[Purchase]| codec::buy_args(epoch, batch);
        self.call_in_batches(
            Function::BUY,
            segment,
            purchases,
            encode,
            codec::read_verdicts,
        )
        .await
    }

    /// Calls `function` for each piece of `items` that fits into one call.
    pub(super) async fn call_in_batches<I: Sync, O: Send>(
        &self,
        function: Function,
        segment: &SegmentId,
        items: &[I],
        encode: impl Fn(&[I]) -> Vec<Value> + Send + Sync,
        decode: impl Fn(&str, &[I]) -> Result<Vec<O>, StockError> + Send + Sync,
    ) -> Result<Vec<O>, StockError> {
        let mut answers = Vec::with_capacity(items.len());
        for batch in items.chunks(MAX_BATCH) {
            match self.write(function, segment, || encode(batch)).await {
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

    /// Up to `max` orders of the queue after a position. A page of the server may hold fewer orders than entries.
    pub(super) async fn page(
        &self,
        function: Function,
        segment: &SegmentId,
        mut after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        let mut orders = Vec::new();
        while orders.len() < max {
            let room = (max - orders.len()).min(MAX_BATCH);
            let args = || vec![after.to_string().into(), room.to_string().into()];
            let page = codec::read_page(&self.ask(function, segment, args).await?)?;
            orders.extend(page.orders);
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(orders)
    }
}
