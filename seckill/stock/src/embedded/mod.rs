//! The embedded stock store: one thread decides in memory, a journal makes it durable, and only then the answers leave.
//!
//! Calls become jobs on a bounded channel. The sequencer takes all that wait, runs them one after another, writes what they
//! changed as one frame, and answers them together: the more wait, the more share one `fdatasync`.

mod clock;
mod engine;
pub mod faults;
mod folder;
mod health;
mod image;
mod install;
mod journal;
mod record;
mod replay;
mod segment;
mod sequencer;
mod snapshot;
mod snapshot_writer;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, mpsc, oneshot};

use self::{
    engine::Engine,
    faults::Faults,
    record::Event,
    sequencer::{Job, Sequencer},
};
pub use self::{
    health::Health,
    image::{Image, holds_a_store, image_epochs, install_image, remove_store},
    install::installation,
    journal::{RecoverError, SyncPolicy, WriteMode},
};
use crate::{
    Capabilities, CartLine, CartVerdict, Durability, Gate, KEPT, Lookup, Moves, OrderQueue,
    Position, Purchase, QueueDepth, QueueEntry, Rebuild, SegmentSpec, SegmentStatus, Segments,
    Selling, StockError, StockMoves, StoredOrder, Transition, Verdict, Wanted,
    clock::WallClock,
    ids::{OrderId, SegmentId},
};

/// Jobs that may wait for the sequencer. Beyond it callers wait in turn; the purchase deadline bounds that wait.
const JOBS_WAITING: usize = 4096;

/// How to open the store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the journal; made if it does not exist.
    pub folder: PathBuf,
    /// Whether answers wait for the disk.
    pub sync: SyncPolicy,
    /// How the journal is written.
    pub write_mode: WriteMode,
}

/// Large enough that a sale of a million orders is written out once or twice, small enough that a start replays a few seconds of
/// journal.
const SNAPSHOT_EVERY: u64 = 256 << 20;
/// How the store keeps house; the defaults are those of the configuration.
#[derive(Clone)]
pub struct Tuning {
    /// A snapshot is written when the journal behind the last one has grown to this, and to the size of that snapshot.
    pub snapshot_every: u64,
    /// How long after window and time to pay the orders of a settled sale stay in memory.
    pub retain_ended: Duration,
    /// Whether steps of the wall clock are guarded against. Off only where the clock is a test's.
    pub guards_clock: bool,
    /// Whether a start goes on by the wall clock however far it is from the newest time in the journal, back to an earlier one too.
    pub accepts_clock: bool,
    /// What fails, in tests of failing disks.
    pub faults: Option<Arc<dyn Faults>>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            snapshot_every: SNAPSHOT_EVERY,
            retain_ended: KEPT,
            guards_clock: true,
            accepts_clock: false,
            faults: None,
        }
    }
}

/// A sequencer that panicked has left its state, and the process would live on, answer probes and sell nothing: it ends, is started again
/// and reads its journal.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the sequencer of the stock store panicked; the process ends");
            std::process::abort();
        }
    }
}

/// A handle to the store; clones share it. The sequencer ends, after all queued jobs, when the last handle is gone.
#[derive(Clone)]
pub struct EmbeddedStore {
    jobs: mpsc::Sender<Job>,
    health: health::Shared,
    /// Held for reading by calls that the ledger has caused, for writing while a backup reads ledger and store at one instant.
    ledger_calls: Arc<RwLock<()>>,
}

impl EmbeddedStore {
    /// [`EmbeddedStore::open_with`] the default tuning.
    pub fn open(options: &Options, clock: WallClock) -> Result<Self, RecoverError> {
        Self::open_with(options, Tuning::default(), clock)
    }

    /// Reads the folder back and starts the sequencer thread. Blocks until everything is replayed.
    pub fn open_with(
        options: &Options,
        tuning: Tuning,
        clock: WallClock,
    ) -> Result<Self, RecoverError> {
        let health = health::Shared::default();
        let sequencer = Sequencer::open(options, tuning, clock, health.clone())?;
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING);
        std::thread::Builder::new()
            .name("sequencer".into())
            .spawn(move || {
                let _guard = AbortOnPanic;
                sequencer.run(waiting);
            })
            .map_err(|source| RecoverError::Io {
                path: options.folder.clone(),
                source,
            })?;
        Ok(Self {
            jobs,
            health,
            ledger_calls: Arc::default(),
        })
    }

    /// Whether the store can take orders.
    pub fn health(&self) -> Health {
        self.health.health()
    }

    /// Makes every call that the ledger causes wait (acknowledgements, releases, payments, restocks, moves, openings, rebuilds)
    /// until the guard is dropped. Purchases and lookups go on. A backup is taken meanwhile.
    pub async fn hold_ledger_calls(&self) -> OwnedRwLockWriteGuard<()> {
        self.ledger_calls.clone().write_owned().await
    }

    /// The whole store at this instant, answered when everything in it is as safe as its orders' answers.
    pub async fn image(&self) -> Result<Image, StockError> {
        self.call(|engine| Ok(engine.image())).await
    }

    /// A call that the ledger has caused.
    async fn caused<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T, StockError> + Send + 'static,
    ) -> Result<T, StockError> {
        let _caused = self.ledger_calls.read().await;
        self.call(work).await
    }

    /// Runs `work` on the sequencer and answers when its batch is durable.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T, StockError> + Send + 'static,
    ) -> Result<T, StockError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            let result = engine.and_then(work);
            Box::new(move |durable| {
                // A caller that has gone away loses only the answer: the same request id will find the order.
                let _ = answer.send(durable.and(result));
            })
        });
        let closed = || StockError::Unavailable("the embedded store has stopped".into());
        self.jobs.send(job).await.map_err(|_| closed())?;
        answered.await.map_err(|_| {
            StockError::Unknown("the embedded store stopped before it answered".into())
        })?
    }
}

/// The calls of one part of the store. Each takes what it is given along to the engine; `caused` ones wait while a backup holds the calls
/// that the ledger causes. In front stands what is more than that.
macro_rules! calls {
    ($part:ident { $($by_hand:tt)* }
     $($how:ident $name:ident($($given:ident: $type:ty),*) -> $answer:ty = |$engine:ident| $work:expr;)*) => {
        #[async_trait]
        impl $part for EmbeddedStore {
            $($by_hand)*

            $(async fn $name(&self, $($given: $type),*) -> Result<$answer, StockError> {
                $(let $given = $given.to_owned();)*
                self.$how(move |$engine| $work).await
            })*
        }
    };
}

calls! {
    Segments {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                // Nobody has a copy but this process.
                durability: &[Durability::Fast, Durability::Durable],
                carts: true,
            }
        }

        /// It is in this process; what its disk does is [`EmbeddedStore::health`].
        async fn reach(&self) -> Result<(), StockError> {
            Ok(())
        }
    }
    caused open(spec: &SegmentSpec) -> SegmentStatus = |engine| engine.open(spec);
    call snapshot(segment: &SegmentId) -> SegmentStatus = |engine| Ok(engine.segment(&segment)?.snapshot());
    caused set_gate(segment: &SegmentId, gate: Gate) -> SegmentStatus = |engine| engine.set_gate(&segment, gate);
}

calls! {
    Selling {
        async fn buy(
            &self,
            segment: &SegmentId,
            epoch: u64,
            purchase: Purchase,
            wanted: Wanted,
        ) -> Result<Verdict, StockError> {
            let segment = segment.clone();
            self.call(move |engine| {
                if wanted.is_given_up() {
                    return Err(StockError::Unavailable("nobody waits for it".into()));
                }
                engine.buy(&segment, epoch, &purchase)
            })
            .await
        }

        async fn buy_many(
            &self,
            segment: &SegmentId,
            epoch: u64,
            purchases: Vec<Purchase>,
        ) -> Result<Vec<Verdict>, StockError> {
            let segment = segment.clone();
            self.call(move |engine| engine.buy_many(&segment, epoch, &purchases))
                .await
        }

        async fn buy_cart(&self, lines: Vec<CartLine>) -> Result<CartVerdict, StockError> {
            self.call(move |engine| engine.buy_cart(&lines)).await
        }
    }
    caused release_many(segment: &SegmentId, orders: &[OrderId]) -> Vec<Transition> = |engine| engine.settle_many(&segment, &orders, |index| Event::Released { index });
    caused confirm_many(segment: &SegmentId, orders: &[OrderId]) -> Vec<Transition> = |engine| engine.settle_many(&segment, &orders, |index| Event::Confirmed { index });
    call find(segment: &SegmentId, lookup: &Lookup) -> Option<StoredOrder> = |engine| Ok(engine.segment(&segment)?.find(&lookup));
}

calls! {
    Moves {}
    caused restock(segment: &SegmentId, id: &str, units: u64) -> SegmentStatus = |engine| engine.restock(&segment, &id, units);
    caused withdraw(segment: &SegmentId, id: &str, units: u64) -> u64 = |engine| engine.withdraw(&segment, &id, units);
}

calls! {
    OrderQueue {
        /// One process, one queue: whoever pulls is the consumer, so `consumer` only matters to stores that several nodes share.
        async fn pull(
            &self,
            segment: &SegmentId,
            _consumer: &str,
            max: usize,
            reclaim_after: Duration,
        ) -> Result<Vec<QueueEntry>, StockError> {
            let segment = segment.clone();
            let reclaim_after_ms = u64::try_from(reclaim_after.as_millis()).unwrap_or(u64::MAX);
            self.call(move |engine| engine.pull(&segment, max, reclaim_after_ms))
                .await
        }
    }
    caused ack(segment: &SegmentId, positions: &[Position]) -> () = |engine| engine.ack(&segment, &positions);
    call depth(segment: &SegmentId) -> QueueDepth = |engine| engine.depth(&segment);
    call accepted_after(segment: &SegmentId, after: Position, max: usize) -> Vec<(Position, StoredOrder)> =
        |engine| Ok(engine.segment(&segment)?.accepted_after(after, max));
}

calls! {
    Rebuild {}
    caused freeze(segment: &SegmentId, epoch: u64) -> Option<SegmentStatus> = |engine| engine.freeze(&segment, epoch);
    call unsettled(segment: &SegmentId, after: Position, max: usize) -> Vec<(Position, StoredOrder)> =
        |engine| Ok(engine.unsettled(&segment, after, max));
    caused rebuild_begin(spec: &SegmentSpec, epoch: u64, moves: &StockMoves) -> () =
        |engine| engine.rebuild_begin(&spec, epoch, &moves);
    caused rebuild_load(segment: &SegmentId, epoch: u64, orders: &[StoredOrder]) -> () =
        |engine| engine.rebuild_load(&segment, epoch, &orders);
    caused rebuild_finish(segment: &SegmentId, epoch: u64, gate: Gate) -> SegmentStatus =
        |engine| engine.rebuild_finish(&segment, epoch, gate);
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    const NAME: &str = "embedded::tests::a_sequencer_that_panics_ends_the_process";
    const IS_CHILD: &str = "PENSTOCK_TEST_PANICS";
    const SIGABRT: i32 = 6;

    /// Broke: the process lived on, answered its probes, and sold nothing. The test is its own child: what ends is a process.
    #[test]
    fn a_sequencer_that_panics_ends_the_process() {
        if std::env::var_os(IS_CHILD).is_none() {
            let own = std::env::current_exe().unwrap();
            let child = Command::new(own)
                .args([NAME, "--exact"])
                .env(IS_CHILD, "1")
                .output();
            let status = child.unwrap().status;
            assert_eq!(status.signal(), Some(SIGABRT), "{status}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            folder: folder.path().to_owned(),
            sync: SyncPolicy::Fast,
            write_mode: WriteMode::Plain,
        };
        let store = EmbeddedStore::open(&options, Arc::new(|| 1)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let panics = store.call(|_| -> Result<(), StockError> { panic!("as the test wants") });
        let _ = runtime.block_on(panics);
        std::thread::sleep(Duration::from_secs(5));
    }
}
