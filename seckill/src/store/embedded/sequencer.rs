//! The single writer: runs jobs in order, writes one frame per batch, answers after it.

use tokio::sync::mpsc;

use super::{
    Options, Sync,
    engine::{Effect, Engine},
    journal::{Journal, RecoverError},
};
use crate::{
    clock::WallClock,
    store::{Durability, StockError},
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

impl Sequencer {
    pub(super) fn open(options: &Options, clock: WallClock) -> Result<Self, RecoverError> {
        let default = match options.sync {
            Sync::Durable => Durability::Durable,
            Sync::Fast => Durability::Fast,
        };
        let mut engine = Engine::new(default);
        let journal = Journal::open(&options.folder, options.sync, options.method, |body| {
            engine.replay(body)
        })?;
        tracing::info!(
            segments = engine.segments().len(),
            orders = engine.accepted(),
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
            self.engine.begin((self.clock)(), None);
            answers.push(first(Ok(&mut self.engine)));
            while answers.len() < JOBS_PER_FRAME && self.engine.body().len() < FRAME_SOFT_LIMIT {
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
        if self.engine.take_effect() == Effect::Read {
            return Ok(());
        }
        // The frame may or may not be on the disk: the restart decides.
        self.journal
            .append(self.engine.body())
            .map_err(|error| StockError::Unknown(format!("journal: {error}")))?;
        self.engine.mark_synced();
        Ok(())
    }
}
