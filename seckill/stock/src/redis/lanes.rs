//! From one purchase to one place in a call, and back.
//!
//! A call costs Redis much the same for one purchase as for a few, so purchases share calls. Every segment has a *lane*: a bounded queue and
//! one task that takes all purchases that wait and sends them in one call. While a call is under way the next batch gathers, so
//! batches grow with load and a lone purchase waits for nobody. One call at a time: a second one in flight makes the batches smaller
//! and spares Redis nothing (`cargo run --release -p benches --bin combining` compares them).
//! The embedded store needs none of this: its sequencer takes what waits for it (docs/adr/0013).

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    time::Duration,
};

use ahash::AHashMap;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::Calls;
use crate::{Purchase, StockError, Verdict, Wanted, ids::SegmentId};

/// Purchases in one call at most. Redis does nothing else in the 2 ms that it takes for so many, and a fifth less work for each
/// than in calls of half the size (docs/adr/0009); its other callers wait no longer than a timer's tick.
const BATCH_MAX: usize = 256;
/// Purchases that may wait in one lane. At the slowest measured rate (10,000/s) a full lane is four tenths of a second deep.
const LANE_DEPTH: usize = 4096;
/// A batch of at least so many says that there is a peak, and the next one waits for company: below it Redis has time to spare, and
/// waiting would only delay buyers.
const COMPANY: usize = 32;
/// How long a batch waits for company: far below what a buyer notices, and the least that the runtime's timer can tell apart.
const WAIT: Duration = Duration::from_millis(1);
/// A lane that nobody has used for so long ends.
const IDLE: Duration = Duration::from_secs(60);

struct Waiting {
    purchase: Purchase,
    epoch: u64,
    wanted: Wanted,
    answer: oneshot::Sender<Result<Verdict, StockError>>,
}

/// Held for one lookup, or for one insertion.
type Senders = RwLock<AHashMap<SegmentId, mpsc::Sender<Waiting>>>;

/// The lanes of all segments that were bought from a moment ago.
pub(super) struct Lanes {
    calls: Arc<Calls>,
    senders: Arc<Senders>,
    /// Where lanes run: not where purchases come from, which have better to do.
    runtime: Handle,
}

impl Lanes {
    /// None yet; they will run on this runtime.
    pub(super) fn new(calls: Arc<Calls>) -> Self {
        Self {
            calls,
            senders: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// Puts a purchase into its segment's lane and waits for the verdict.
    pub(super) async fn buy(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchase: Purchase,
        wanted: Wanted,
    ) -> Result<Verdict, StockError> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = Waiting {
            purchase,
            epoch,
            wanted,
            answer,
        };
        loop {
            match self.sender(segment).try_send(waiting) {
                Ok(()) => break,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    return Err(StockError::Unavailable(format!(
                        "{LANE_DEPTH} purchases of segment {segment} wait already"
                    )));
                }
                // The lane ended a moment ago; the next lookup begins another.
                Err(mpsc::error::TrySendError::Closed(back)) => waiting = back,
            }
        }
        let stopped = |_| StockError::Unknown("the lane stopped with the purchase in hand".into());
        answered.await.map_err(stopped)?
    }

    fn sender(&self, segment: &SegmentId) -> mpsc::Sender<Waiting> {
        let known = read(&self.senders).get(segment).cloned();
        known.unwrap_or_else(|| {
            let mut senders = write(&self.senders);
            let begin = || self.begin(segment);
            senders.entry(segment.clone()).or_insert_with(begin).clone()
        })
    }

    fn begin(&self, segment: &SegmentId) -> mpsc::Sender<Waiting> {
        let (sender, waiting) = mpsc::channel(LANE_DEPTH);
        let lane = Lane {
            segment: segment.clone(),
            waiting,
            senders: Arc::downgrade(&self.senders),
            last: 0,
        };
        self.runtime.spawn(lane.run(self.calls.clone()));
        sender
    }
}

/// The working end of a lane.
struct Lane {
    segment: SegmentId,
    waiting: mpsc::Receiver<Waiting>,
    senders: Weak<Senders>,
    /// The size of the last batch.
    last: usize,
}

impl Lane {
    async fn run(mut self, calls: Arc<Calls>) {
        let batch_size = metrics::histogram!("penstock_sale_batch_size");
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.gather(&mut batch).await {
            batch.retain(|waiting: &Waiting| {
                !waiting.wanted.is_given_up() && !waiting.answer.is_closed()
            });
            // A call carries one epoch. Who comes with an older one learns the newest, and comes again.
            let Some(epoch) = batch.iter().map(|waiting| waiting.epoch).max() else {
                continue;
            };
            let (current, stale): (Vec<_>, Vec<_>) =
                batch.drain(..).partition(|waiting| waiting.epoch == epoch);
            for waiting in stale {
                let verdict = Verdict::StaleEpoch { current: epoch };
                let _ = waiting.answer.send(Ok(verdict));
            }
            batch_size.record(current.len() as f64);
            let (purchases, answers): (Vec<_>, Vec<_>) = current
                .into_iter()
                .map(|waiting| (waiting.purchase, waiting.answer))
                .unzip();
            match calls.buy_many(&self.segment, epoch, &purchases).await {
                Ok(verdicts) => {
                    debug_assert_eq!(verdicts.len(), answers.len());
                    for (answer, verdict) in answers.into_iter().zip(verdicts) {
                        let _ = answer.send(Ok(verdict));
                    }
                }
                Err(error) => {
                    for answer in answers {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Moves the next purchases into the empty `batch`, at least one and at most [`BATCH_MAX`]. Answers whether there are any: a lane that nobody
    /// uses, or whose store is gone, ends.
    async fn gather(&mut self, batch: &mut Vec<Waiting>) -> bool {
        let count = match timeout(IDLE, self.waiting.recv_many(batch, BATCH_MAX)).await {
            Ok(count) => count,
            Err(_) => {
                // First nobody finds it any more, then nobody can send; what came in between is still decided.
                if let Some(senders) = self.senders.upgrade() {
                    write(&senders).remove(&self.segment);
                }
                self.waiting.close();
                self.waiting.recv_many(batch, BATCH_MAX).await
            }
        };
        if self.last >= COMPANY && (1..BATCH_MAX).contains(&count) {
            sleep(WAIT).await;
            while batch.len() < BATCH_MAX
                && let Ok(late) = self.waiting.try_recv()
            {
                batch.push(late);
            }
        }
        self.last = batch.len();
        count > 0
    }
}

/// A panic elsewhere leaves the map whole: entries are added and removed in one step.
fn read(senders: &Senders) -> RwLockReadGuard<'_, AHashMap<SegmentId, mpsc::Sender<Waiting>>> {
    senders.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(senders: &Senders) -> RwLockWriteGuard<'_, AHashMap<SegmentId, mpsc::Sender<Waiting>>> {
    senders.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::ids::{BuyerId, OrderId, RequestId, SaleId, SkuId};

    struct Line {
        sender: mpsc::Sender<Waiting>,
        senders: Arc<Senders>,
        lane: Lane,
    }

    impl Line {
        fn new() -> Self {
            let (sender, waiting) = mpsc::channel(4 * BATCH_MAX);
            let segment =
                SegmentId::first(SaleId::try_new("s").unwrap(), SkuId::try_new("k").unwrap());
            let senders = Arc::<Senders>::default();
            write(&senders).insert(segment.clone(), sender.clone());
            let lane = Lane {
                segment,
                waiting,
                senders: Arc::downgrade(&senders),
                last: 0,
            };
            Self {
                sender,
                senders,
                lane,
            }
        }

        fn join(&self, count: usize) {
            join(&self.sender, count);
        }

        /// The size of the next batch, and how long it waited.
        async fn gather(&mut self) -> (usize, Duration) {
            let (mut batch, began) = (Vec::new(), Instant::now());
            let is_any = self.lane.gather(&mut batch).await;
            assert_eq!(is_any, !batch.is_empty());
            (batch.len(), began.elapsed())
        }
    }

    fn join(sender: &mpsc::Sender<Waiting>, count: usize) {
        for _ in 0..count {
            let purchase = Purchase {
                order: OrderId::from_u128(1),
                buyer: BuyerId::try_new("b").unwrap(),
                request: RequestId::try_new("r").unwrap(),
                fingerprint: 1,
                quantity: 1,
                metadata: None,
            };
            let waiting = Waiting {
                purchase,
                epoch: 1,
                wanted: Wanted::default(),
                answer: oneshot::channel().0,
            };
            assert!(sender.try_send(waiting).is_ok(), "there is room");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn purchases_that_come_one_by_one_wait_for_nobody() {
        let mut line = Line::new();
        for _ in 0..5 {
            line.join(COMPANY - 1);
            assert_eq!(line.gather().await, (COMPANY - 1, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn under_load_a_batch_waits_for_those_that_come_next() {
        let mut line = Line::new();
        line.join(COMPANY);
        assert_eq!(line.gather().await, (COMPANY, Duration::ZERO));
        line.join(1);
        let sender = line.sender.clone();
        // Runs when the batch first waits.
        tokio::spawn(async move { join(&sender, 6) });
        assert_eq!(line.gather().await, (7, WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_company_stays_away() {
        let mut line = Line::new();
        line.join(COMPANY);
        line.gather().await;
        line.join(1);
        assert_eq!(line.gather().await, (1, WAIT));
        line.join(1);
        assert_eq!(line.gather().await, (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_goes_at_once_and_leaves_the_rest() {
        let mut line = Line::new();
        line.join(2 * BATCH_MAX + 1);
        assert_eq!(line.gather().await, (BATCH_MAX, Duration::ZERO));
        assert_eq!(line.gather().await, (BATCH_MAX, Duration::ZERO));
        let sender = line.sender.clone();
        tokio::spawn(async move { join(&sender, BATCH_MAX) });
        assert_eq!(line.gather().await, (BATCH_MAX, WAIT));
        assert_eq!(line.gather().await, (1, WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_nobody_uses_ends() {
        let mut line = Line::new();
        assert_eq!(line.gather().await, (0, IDLE));
        assert!(
            read(&line.senders).is_empty(),
            "the next purchase begins another"
        );
        assert!(line.sender.is_closed());
    }
}
