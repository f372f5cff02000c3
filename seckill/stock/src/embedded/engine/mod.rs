//! All segments of the store, and what the running batch has changed of them. Each verb decides, writes the event into the frame
//! being built, and applies it. Runs on the sequencer only.

mod rebuild;

use std::{mem, time::Duration};

use ahash::AHashMap;

use super::{
    image::Image,
    record::{self, Event, Record},
    segment::{Head, Segment, orders::SharedOrders},
    snapshot::Capture,
};
use crate::{
    CartLine, CartVerdict, Durability, Gate, MAX_CART_LINES, Position, Purchase, QueueDepth,
    QueueEntry, SegmentSpec, SegmentStatus, StockError, Transition, Verdict,
    ids::{OrderId, SegmentId},
};

/// The state of the store.
pub(super) struct Engine {
    segments: Vec<Segment>,
    numbers: AHashMap<SegmentId, u32>,
    /// The body of the frame being built.
    body: Vec<u8>,
    /// What an acceptance waits for where the sale does not say.
    default: Durability,
    /// One reading of the clock a batch.
    now_ms: u64,
    /// Why nothing can be written at the moment, if so: then every call that would change something is refused before it does.
    refusing: Option<StockError>,
    /// What the running job did.
    ack_level: AckLevel,
    /// Segments with acceptances that are not on the disk yet.
    unsynced: Vec<u32>,
    /// Purchases decided in this batch.
    purchases: usize,
}

/// How far the answer of a job has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AckLevel {
    /// It changed nothing; what it read may have been changed in the same batch.
    Read,
    /// It changed only what may be lost with the machine: acceptances of `fast` sales, acknowledgements.
    Loose,
    /// It changed what must be on the disk before its answer.
    Firm,
}

impl Engine {
    pub(super) fn new(default: Durability) -> Self {
        Self {
            segments: Vec::new(),
            numbers: AHashMap::new(),
            body: Vec::new(),
            default,
            now_ms: 0,
            refusing: None,
            ack_level: AckLevel::Read,
            unsynced: Vec::new(),
            purchases: 0,
        }
    }

    /// Begins a batch.
    pub(super) fn begin(&mut self, now_ms: u64, refusing: Option<StockError>) {
        self.now_ms = now_ms;
        self.refusing = refusing;
        self.body.clear();
        self.purchases = 0;
    }

    /// Purchases decided in this batch so far.
    pub(super) fn purchases(&self) -> usize {
        self.purchases
    }

    /// The store's time in this batch.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The frame so far.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// What the jobs since the last call did.
    pub(super) fn take_ack_level(&mut self) -> AckLevel {
        mem::replace(&mut self.ack_level, AckLevel::Read)
    }

    /// Everything accepted so far is on the disk.
    pub(super) fn mark_synced(&mut self) {
        for number in self.unsynced.drain(..) {
            self.segments[number as usize].mark_synced();
        }
    }

    /// Everything was read back, so all of it is on the disk.
    pub(super) fn has_been_read(&mut self) {
        for segment in &mut self.segments {
            segment.mark_synced();
        }
    }

    /// Reads a frame back.
    pub(super) fn replay(&mut self, mut body: &[u8]) -> Result<(), String> {
        while !body.is_empty() {
            match record::decode(&mut body)? {
                Record::Opened(spec) => self.insert(Segment::new(spec)),
                Record::Begun(beginning) => self.insert(Segment::begun(&beginning)),
                Record::Event(number, event) => {
                    let segment = self.segments.get_mut(number as usize);
                    segment
                        .ok_or_else(|| format!("segment number {number} was never opened"))?
                        .apply(&event)?;
                }
                Record::Tick => {}
            }
        }
        Ok(())
    }

    /// Orders ever accepted, in all segments.
    pub(super) fn accepted(&self) -> u64 {
        let accepted = |segment: &Segment| segment.snapshot().accepted;
        self.segments.iter().map(accepted).sum()
    }

    /// All segments, in the order in which they were opened.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What a snapshot keeps: shares everything, copies only the heads.
    pub(super) fn freeze_all(&self) -> Vec<(Head, SharedOrders)> {
        self.segments.iter().map(Segment::shared).collect()
    }

    /// Writes the time down if a window has ended since it was `before_ms`.
    pub(super) fn note_ended(&mut self, before_ms: u64, now_ms: u64) {
        let has_ended = |segment: &Segment| {
            let end = segment.spec().ends_at_ms;
            before_ms < end && end <= now_ms
        };
        if self.segments.iter().any(has_ended) {
            self.ack_level = self.ack_level.max(AckLevel::Loose);
            record::encode_tick(&mut self.body);
        }
    }

    /// Drops the orders of sales that nothing can happen to any more.
    pub(super) fn retire(&mut self, retain: Duration) {
        let retain_ms = u64::try_from(retain.as_millis()).unwrap_or(u64::MAX);
        for number in 0..self.segments.len() {
            let segment = &self.segments[number];
            if segment.may_retire(self.now_ms, retain_ms) {
                tracing::info!(segment = %segment.spec().id, orders = segment.snapshot().accepted, "a sale is long over and settled: its orders are dropped from the store");
                self.commit(number as u32, &Event::Retired);
            }
        }
    }

    /// The store as a backup keeps it.
    pub(super) fn image(&self) -> Image {
        let unsettled = |segment: &Segment| segment.depth(self.now_ms).entries;
        Image {
            capture: Capture {
                // An image begins a journal of its own.
                next: 0,
                clock_ms: self.now_ms,
                segments: self.freeze_all(),
            },
            accepted: self.accepted(),
            unsettled: self.segments.iter().map(unsettled).sum(),
        }
    }

    /// Adds a segment under the next number.
    pub(super) fn insert(&mut self, segment: Segment) {
        let number = u32::try_from(self.segments.len()).expect("fewer than 2^32 segments");
        self.numbers.insert(segment.spec().id.clone(), number);
        self.segments.push(segment);
    }

    fn number(&self, id: &SegmentId) -> Result<u32, StockError> {
        self.numbers
            .get(id)
            .copied()
            .ok_or_else(|| StockError::NotOpen(id.clone()))
    }

    pub(super) fn segment(&self, id: &SegmentId) -> Result<&Segment, StockError> {
        Ok(&self.segments[self.number(id)? as usize])
    }

    /// `Err` while nothing can be written.
    fn can_write(&self) -> Result<(), StockError> {
        self.refusing.clone().map_or(Ok(()), Err)
    }

    fn commit(&mut self, number: u32, event: &Event) {
        let segment = &mut self.segments[number as usize];
        let ack_level = match event {
            // A lost acknowledgement is handed out again, and the ledger knows it.
            Event::Acked { .. } => AckLevel::Loose,
            Event::Bought { .. } if segment.is_fast(self.default) => {
                if !self.unsynced.contains(&number) {
                    self.unsynced.push(number);
                }
                AckLevel::Loose
            }
            _ => AckLevel::Firm,
        };
        self.ack_level = self.ack_level.max(ack_level);
        record::encode_event(&mut self.body, number, event);
        segment
            .apply(event)
            .expect("only events that the segment decided are committed");
    }

    /// Applies the one event that `decide` asks for, if any, and returns the counts after it.
    fn change(
        &mut self,
        id: &SegmentId,
        decide: impl FnOnce(&Segment) -> Option<Event>,
    ) -> Result<SegmentStatus, StockError> {
        let number = self.number(id)?;
        self.segments[number as usize].may_change()?;
        if let Some(event) = decide(&self.segments[number as usize]) {
            self.can_write()?;
            self.commit(number, &event);
        }
        Ok(self.segments[number as usize].snapshot())
    }

    pub(super) fn open(&mut self, spec: SegmentSpec) -> Result<SegmentStatus, StockError> {
        if spec.durability == Some(Durability::Replicated) {
            return Err(StockError::Unavailable(format!(
                "segment {}: durability \"replicated\" needs a Redis store; this one has fast and durable",
                spec.id
            )));
        }
        let number = match self.number(&spec.id) {
            Ok(number) if self.segments[number as usize].has_rules(&spec) => number,
            Ok(number) => {
                self.can_write()?;
                self.commit(number, &Event::RulesSet { spec });
                number
            }
            Err(_) => {
                self.can_write()?;
                self.ack_level = AckLevel::Firm;
                record::encode_opened(&mut self.body, &spec);
                self.insert(Segment::new(spec));
                self.segments.len() as u32 - 1
            }
        };
        Ok(self.segments[number as usize].snapshot())
    }

    pub(super) fn buy_many(
        &mut self,
        id: &SegmentId,
        epoch: u64,
        purchases: &[Purchase],
    ) -> Result<Vec<Verdict>, StockError> {
        let number = self.number(id)?;
        let decide = |purchase| self.buy_from(number, epoch, purchase);
        purchases.iter().map(decide).collect()
    }

    pub(super) fn buy(
        &mut self,
        id: &SegmentId,
        epoch: u64,
        purchase: &Purchase,
    ) -> Result<Verdict, StockError> {
        let number = self.number(id)?;
        self.buy_from(number, epoch, purchase)
    }

    fn buy_from(
        &mut self,
        number: u32,
        epoch: u64,
        purchase: &Purchase,
    ) -> Result<Verdict, StockError> {
        let segment = &self.segments[number as usize];
        let verdict = match segment.decide(epoch, self.now_ms, purchase) {
            Err(verdict) => verdict,
            Ok(event) => {
                // The first acceptance of a batch fails here or none does: nothing was executed.
                self.can_write()?;
                self.accept(number, event)
            }
        };
        self.purchases += 1;
        Ok(verdict)
    }

    fn accept(&mut self, number: u32, event: Event) -> Verdict {
        self.commit(number, &event);
        let (remaining, version) = self.segments[number as usize].remaining();
        let Event::Bought { order } = event else {
            unreachable!("decide only buys")
        };
        Verdict::Accepted {
            order,
            remaining,
            version,
        }
    }

    /// All lines are decided before one is applied, and all are in one frame: a torn tail never leaves half a cart.
    pub(super) fn buy_cart(&mut self, lines: &[CartLine]) -> Result<CartVerdict, StockError> {
        let mut numbers = Vec::with_capacity(lines.len());
        for line in lines {
            let number = self.number(&line.segment)?;
            if numbers.contains(&number) || lines.len() > MAX_CART_LINES {
                return Err(StockError::Unavailable(format!(
                    "a cart has 1 to {MAX_CART_LINES} lines of different segments"
                )));
            }
            numbers.push(number);
        }
        let (mut events, mut replayed, mut refused) = (Vec::new(), Vec::new(), None);
        for (at, (line, &number)) in lines.iter().zip(&numbers).enumerate() {
            let segment = &self.segments[number as usize];
            match segment.decide(line.epoch, self.now_ms, &line.purchase) {
                Ok(event) => events.push((number, event)),
                Err(Verdict::Replayed(order)) => replayed.push((at, order)),
                Err(verdict) => {
                    refused.get_or_insert((at, verdict));
                }
            }
        }
        if replayed.len() == lines.len() {
            let orders = replayed.into_iter().map(|(_, order)| order);
            return Ok(CartVerdict::Replayed(orders.collect()));
        }
        // Replays come before every other check: a cart that some lines know is no new cart, whatever the other lines say.
        let known = replayed.first().map(|(at, _)| (*at, Verdict::KeyReused));
        let reused = match &refused {
            Some((at, Verdict::KeyReused)) => Some((*at, Verdict::KeyReused)),
            _ => None,
        };
        let first = |a: (usize, Verdict), b: (usize, Verdict)| if a.0 <= b.0 { a } else { b };
        let reused = match (known, reused) {
            (Some(known), Some(reused)) => Some(first(known, reused)),
            (known, reused) => known.or(reused),
        };
        if let Some((line, verdict)) = reused.or(refused) {
            return Ok(CartVerdict::Refused { line, verdict });
        }
        self.can_write()?;
        let accept = |(number, event)| self.accept(number, event);
        Ok(CartVerdict::Accepted(
            events.into_iter().map(accept).collect(),
        ))
    }

    /// Releases or confirms those of the orders that are reserved, as the event of an order's index says.
    pub(super) fn settle_many(
        &mut self,
        id: &SegmentId,
        orders: &[OrderId],
        event: fn(u32) -> Event,
    ) -> Result<Vec<Transition>, StockError> {
        let number = self.number(id)?;
        self.segments[number as usize].may_change()?;
        let mut answers = Vec::with_capacity(orders.len());
        for &order in orders {
            let segment = &self.segments[number as usize];
            answers.push(match segment.decide_transition(order, event) {
                Ok(event) => {
                    self.can_write()?;
                    self.commit(number, &event);
                    Transition::Done
                }
                Err(answer) => answer,
            });
        }
        Ok(answers)
    }

    pub(super) fn set_gate(
        &mut self,
        id: &SegmentId,
        gate: Gate,
    ) -> Result<SegmentStatus, StockError> {
        self.change(id, |segment| {
            (segment.snapshot().gate != gate).then_some(Event::GateSet { gate })
        })
    }

    pub(super) fn restock(
        &mut self,
        id: &SegmentId,
        restock: &str,
        units: u64,
    ) -> Result<SegmentStatus, StockError> {
        let (name, restock) = (restock, restock.to_owned());
        self.change(id, |segment| {
            let event = Event::Restocked { id: restock, units };
            (!segment.has_restock(name)).then_some(event)
        })
    }

    pub(super) fn withdraw(
        &mut self,
        id: &SegmentId,
        withdrawal: &str,
        units: u64,
    ) -> Result<u64, StockError> {
        let number = self.number(id)?;
        self.segments[number as usize].may_change()?;
        match self.segments[number as usize].decide_withdrawal(withdrawal, units) {
            Err(taken) => Ok(taken),
            Ok(event) => {
                self.can_write()?;
                self.commit(number, &event);
                match event {
                    Event::Withdrawn { units, .. } => Ok(units),
                    _ => unreachable!("decide_withdrawal only withdraws"),
                }
            }
        }
    }

    /// Handing out is not written down: after a restart everything unacknowledged is handed out again.
    pub(super) fn pull(
        &mut self,
        id: &SegmentId,
        max: usize,
        reclaim_after_ms: u64,
    ) -> Result<Vec<QueueEntry>, StockError> {
        let number = self.number(id)?;
        let segment = &mut self.segments[number as usize];
        segment.may_change()?;
        Ok(segment.pull(max, reclaim_after_ms, self.now_ms, self.default))
    }

    pub(super) fn ack(&mut self, id: &SegmentId, positions: &[Position]) -> Result<(), StockError> {
        self.change(id, |segment| segment.decide_ack(positions))
            .map(drop)
    }

    pub(super) fn depth(&self, id: &SegmentId) -> Result<QueueDepth, StockError> {
        Ok(self.segment(id)?.depth(self.now_ms))
    }
}
