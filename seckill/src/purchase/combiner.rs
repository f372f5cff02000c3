//! When a lane's next batch goes: at once while few come, a moment later while many do.
//!
//! A call costs the store much the same for one purchase as for a few, so under load it pays to let company gather. What the
//! lane saw last tells: after a batch of several the next one waits; after a smaller one, nobody waits for anybody.

use std::time::Duration;

use tokio::{sync::mpsc, time::sleep};

use crate::sku_stock::{BATCH_MAX, Waiting};

/// A batch of at least so many says that there is a peak: below it Redis has time to spare, and waiting would only delay buyers.
const COMPANY: usize = 32;
/// How long a batch waits for company: far below what a buyer notices, and the least that the runtime's timer can tell apart.
const WAIT: Duration = Duration::from_millis(1);

/// Takes batches off a lane.
#[derive(Default)]
pub(super) struct Combiner {
    /// The size of the last batch.
    last: usize,
}

impl Combiner {
    /// Moves the next purchases into `batch`, at least one and at most [`BATCH_MAX`]; answers how many, 0 when the lane is gone.
    pub(super) async fn gather(
        &mut self,
        waiting: &mut mpsc::Receiver<Waiting>,
        batch: &mut Vec<Waiting>,
    ) -> usize {
        let mut count = waiting.recv_many(batch, BATCH_MAX).await;
        if self.last >= COMPANY && (1..BATCH_MAX).contains(&count) {
            sleep(WAIT).await;
            while count < BATCH_MAX
                && let Ok(late) = waiting.try_recv()
            {
                batch.push(late);
                count += 1;
            }
        }
        self.last = count;
        count
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::Instant};

    use super::*;
    use crate::ids::{BuyerId, OrderId, RequestId};
    use stock::Purchase;

    struct Line {
        sender: mpsc::Sender<Waiting>,
        receiver: mpsc::Receiver<Waiting>,
        combiner: Combiner,
    }

    impl Line {
        fn new() -> Self {
            let (sender, receiver) = mpsc::channel(4 * BATCH_MAX);
            let combiner = Combiner::default();
            Self {
                sender,
                receiver,
                combiner,
            }
        }

        fn join(&self, count: usize) {
            join(&self.sender, count);
        }

        /// The size of the next batch, and how long it waited.
        async fn gather(&mut self) -> (usize, Duration) {
            let (mut batch, began) = (Vec::new(), Instant::now());
            let count = self.combiner.gather(&mut self.receiver, &mut batch).await;
            assert_eq!(batch.len(), count);
            (count, began.elapsed())
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
            };
            let waiting = Waiting {
                purchase,
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
    async fn a_lane_that_is_gone_ends_at_once() {
        let mut line = Line::new();
        line.join(COMPANY);
        line.gather().await;
        line.sender = mpsc::channel(1).0;
        assert_eq!(line.gather().await, (0, Duration::ZERO));
    }
}
