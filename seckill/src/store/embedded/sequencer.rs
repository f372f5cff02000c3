//! The single writer: runs jobs in order, writes one frame per batch, answers after it.

use ahash::AHashMap;
use tokio::sync::mpsc;

use super::{
    Options,
    journal::{Journal, RecoverError},
    record::{self, Event, Record},
    segment::Segment,
};
use crate::{
    clock::WallClock,
    ids::{OrderId, SegmentId},
    store::{
        Confirm, Purchase, QueueDepth, QueueEntry, Release, SegmentSpec, Snapshot, StockError,
        Verdict,
    },
};

/// Runs on the sequencer, or learns why it may not; what it returns is called when the batch is durable, or with the reason why
/// it is not.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Engine, StockError>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StockError>) + Send>;

/// Jobs that share one frame at most. A job is itself a batch of purchases, so this is far beyond what waits in practice.
const JOBS_PER_FRAME: usize = 1024;
/// A frame is closed when its body passes this; the journal's registered buffer is twice as large.
const FRAME_SOFT_LIMIT: usize = 512 << 10;

pub(super) struct Sequencer {
    engine: Engine,
    journal: Journal,
    clock: WallClock,
}

/// All segments, and what the running batch has changed so far.
pub(super) struct Engine {
    segments: Vec<Segment>,
    numbers: AHashMap<SegmentId, u32>,
    /// The body of the frame being built.
    body: Vec<u8>,
    /// One reading of the clock a batch. The window follows the clock wherever it steps, as it does in Redis: a step that was a
    /// mistake must not outlive its correction.
    now_ms: u64,
}

impl Sequencer {
    pub(super) fn open(options: &Options, clock: WallClock) -> Result<Self, RecoverError> {
        let mut engine = Engine {
            segments: Vec::new(),
            numbers: AHashMap::new(),
            body: Vec::new(),
            now_ms: 0,
        };
        let journal = Journal::open(&options.folder, options.sync, options.method, |body| {
            engine.replay(body)
        })?;
        let orders: u64 = engine
            .segments
            .iter()
            .map(|segment| segment.snapshot().accepted)
            .sum();
        tracing::info!(
            segments = engine.segments.len(),
            orders,
            io_uring = journal.uses_io_uring(),
            "journal replayed"
        );
        Ok(Self {
            engine,
            journal,
            clock,
        })
    }

    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut answers: Vec<Answer> = Vec::new();
        let mut failed: Option<StockError> = None;
        while let Some(first) = jobs.blocking_recv() {
            if let Some(error) = &failed {
                // The journal may end in a torn frame and memory is ahead of it: nothing is decided until a restart replays.
                first(Err(error.clone()))(Ok(()));
                continue;
            }
            self.engine.now_ms = (self.clock)();
            answers.push(first(Ok(&mut self.engine)));
            while answers.len() < JOBS_PER_FRAME && self.engine.body.len() < FRAME_SOFT_LIMIT {
                let Ok(job) = jobs.try_recv() else { break };
                answers.push(job(Ok(&mut self.engine)));
            }
            let outcome = self.write_batch();
            if let Err(error) = &outcome {
                tracing::error!(%error, "the journal failed, the store refuses all calls until a restart");
                failed = Some(StockError::Unavailable(format!(
                    "the journal failed earlier: {error}"
                )));
            }
            for answer in answers.drain(..) {
                answer(outcome.clone());
            }
        }
    }

    fn write_batch(&mut self) -> Result<(), StockError> {
        if self.engine.body.is_empty() {
            return Ok(());
        }
        let written = self.journal.append(&self.engine.body);
        self.engine.body.clear();
        // The frame may or may not be on the disk: the restart decides.
        written.map_err(|error| StockError::Unknown(format!("journal: {error}")))
    }
}

impl Engine {
    fn replay(&mut self, mut body: &[u8]) -> Result<(), String> {
        while !body.is_empty() {
            match record::decode(&mut body)? {
                Record::Opened(spec) => self.insert(spec),
                Record::Event(number, event) => self
                    .segments
                    .get_mut(number as usize)
                    .ok_or_else(|| format!("segment number {number} was never opened"))?
                    .apply(&event),
            }
        }
        Ok(())
    }

    fn insert(&mut self, spec: SegmentSpec) {
        let number = u32::try_from(self.segments.len()).expect("fewer than 2^32 segments");
        self.numbers.insert(spec.id.clone(), number);
        self.segments.push(Segment::new(spec));
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

    fn commit(&mut self, number: u32, event: &Event) {
        record::encode_event(&mut self.body, number, event);
        self.segments[number as usize].apply(event);
    }

    pub(super) fn open(&mut self, spec: SegmentSpec) -> Snapshot {
        match self.number(&spec.id) {
            Ok(number) => {
                if !self.segments[number as usize].has_rules(&spec) {
                    self.commit(number, &Event::RulesSet { spec });
                }
                self.segments[number as usize].snapshot()
            }
            Err(_) => {
                record::encode_opened(&mut self.body, self.segments.len() as u32, &spec);
                self.insert(spec);
                self.segments.last().expect("just inserted").snapshot()
            }
        }
    }

    pub(super) fn buy_many(
        &mut self,
        id: &SegmentId,
        epoch: u64,
        purchases: Vec<Purchase>,
    ) -> Result<Vec<Verdict>, StockError> {
        let number = self.number(id)?;
        let mut verdicts = Vec::with_capacity(purchases.len());
        for purchase in &purchases {
            let verdict = match self.segments[number as usize].decide(epoch, self.now_ms, purchase)
            {
                Err(verdict) => verdict,
                Ok(event) => {
                    self.commit(number, &event);
                    let (remaining, version) = self.segments[number as usize].remaining();
                    let Event::Bought { order, .. } = event else {
                        unreachable!("decide only buys")
                    };
                    Verdict::Accepted {
                        order,
                        remaining,
                        version,
                    }
                }
            };
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    pub(super) fn release_many(
        &mut self,
        id: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Release>, StockError> {
        let number = self.number(id)?;
        let mut answers = Vec::with_capacity(orders.len());
        for &order in orders {
            let answer = self.segments[number as usize].decide_release(order);
            if answer == Release::Released {
                self.commit(number, &Event::Released { order });
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    pub(super) fn confirm_many(
        &mut self,
        id: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Confirm>, StockError> {
        let number = self.number(id)?;
        let mut answers = Vec::with_capacity(orders.len());
        for &order in orders {
            let answer = self.segments[number as usize].decide_confirm(order);
            if answer == Confirm::Confirmed {
                self.commit(number, &Event::Confirmed { order });
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Applies the one event that `decide` asks for, if any, and returns the counts after it.
    pub(super) fn change(
        &mut self,
        id: &SegmentId,
        decide: impl FnOnce(&Segment) -> Option<Event>,
    ) -> Result<Snapshot, StockError> {
        let number = self.number(id)?;
        if let Some(event) = decide(&self.segments[number as usize]) {
            self.commit(number, &event);
        }
        Ok(self.segments[number as usize].snapshot())
    }

    /// Handing out is not written down: after a restart everything unacknowledged is handed out again.
    pub(super) fn pull(
        &mut self,
        id: &SegmentId,
        max: usize,
        reclaim_after_ms: u64,
    ) -> Result<Vec<QueueEntry>, StockError> {
        let (number, now_ms) = (self.number(id)?, self.now_ms);
        Ok(self.segments[number as usize].pull(max, reclaim_after_ms, now_ms))
    }

    pub(super) fn depth(&self, id: &SegmentId) -> Result<QueueDepth, StockError> {
        Ok(self.segment(id)?.depth(self.now_ms))
    }
}
