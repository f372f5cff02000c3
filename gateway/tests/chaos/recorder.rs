//! The history of a run: one clock, one numbering of operations, one file.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::UNIX_EPOCH,
};

use loadtest::history::{
    Event, HistorySender, HistoryWriter, Level,
    event::{Done, End, Fault, Header, Invoke, Phase},
};
use tokio::time::Instant;

/// Writes the history of a run.
pub struct HistoryRecorder {
    writer: HistoryWriter,
    sender: HistorySender,
    start: Instant,
    numbers: AtomicU64,
}

impl HistoryRecorder {
    pub fn create(path: &Path, seed: u64, level: Level) -> HistoryRecorder {
        let header = Header::new(seed, "chaos", wall_ms(), level);
        let writer = HistoryWriter::create(path, &header).unwrap();
        HistoryRecorder {
            sender: writer.sender(),
            writer,
            start: Instant::now(),
            numbers: AtomicU64::new(1),
        }
    }

    pub fn sender(&self) -> &HistorySender {
        &self.sender
    }

    pub fn t_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A request goes out; answers its number.
    pub fn invoke(&self, invoke: Invoke) -> u64 {
        let op = self.number();
        self.sender.record(Event::Invoke(Invoke {
            t_us: self.t_us(),
            wall_ms: wall_ms(),
            op,
            ..invoke
        }));
        op
    }

    /// It ended.
    pub fn done(&self, op: u64, wrap: fn(Done) -> Event, done: Done) {
        self.sender.record(wrap(Done {
            t_us: self.t_us(),
            wall_ms: wall_ms(),
            op,
            ..done
        }));
    }

    /// Something is broken; answers the number to mend it under.
    pub fn breaks(&self, kind: &str, what: &str) -> u64 {
        let fault = self.number();
        self.fault(fault, Phase::Start, kind, what);
        fault
    }

    /// It is mended.
    pub fn mends(&self, fault: u64, kind: &str, what: &str) {
        self.fault(fault, Phase::End, kind, what);
    }

    fn fault(&self, fault: u64, phase: Phase, kind: &str, what: &str) {
        self.sender.record(Event::Fault(Fault {
            t_us: self.t_us(),
            fault,
            phase,
            kind: kind.to_owned(),
            what: what.to_owned(),
        }));
    }

    pub fn quiet(&self) {
        self.sender.record(Event::Quiet { t_us: self.t_us() });
    }

    /// Closes the file.
    pub fn finish(self, drained: bool) {
        let end = End {
            t_us: self.t_us(),
            wall_ms: wall_ms(),
            dropped: 0,
            drained,
        };
        drop(self.sender);
        self.writer.finish(end).unwrap();
    }
}

pub fn wall_ms() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}
