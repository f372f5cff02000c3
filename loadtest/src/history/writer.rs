//! Writes a history file beside a run: events go through a bounded queue to a thread of their own, so that neither JSON nor
//! the disk is on a request's path.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::event::{End, Event, Header};

/// Events that may wait: two seconds of a generator at 15,000 requests per second. Beyond it events are dropped and counted.
const QUEUE: usize = 1 << 16;
/// A killed run has lost at most the lines of this long.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
const BUFFER: usize = 1 << 18;

/// Writes one history file.
#[derive(Debug)]
pub struct HistoryWriter {
    sender: HistorySender,
    thread: JoinHandle<io::Result<u64>>,
}

/// Hands events to the writer. Cheap to clone; every thread has its own.
#[derive(Clone, Debug)]
pub struct HistorySender {
    events: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Event(Box<Event>),
    /// The last line; other senders may still exist.
    Stop(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Lines, the header included.
    pub lines: u64,
    /// Events that were dropped: the file is not a whole history.
    pub dropped: u64,
}

impl HistoryWriter {
    /// Creates the file (an older one is replaced) and writes its header.
    pub fn create(path: &Path, header: &Header) -> io::Result<HistoryWriter> {
        let mut file = BufWriter::with_capacity(BUFFER, File::create(path)?);
        write_line(&mut file, header)?;
        file.flush()?;
        let (events, received) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        let thread = std::thread::Builder::new()
            .name("loadtest-history".into())
            .spawn(move || write(file, &received, &counted))?;
        Ok(HistoryWriter {
            sender: HistorySender { events, dropped },
            thread,
        })
    }

    /// A sender for one more thread.
    pub fn sender(&self) -> HistorySender {
        self.sender.clone()
    }

    /// Writes the last line and waits until everything is in the file. Blocks for as long as the disk needs.
    pub fn finish(self, end: End) -> io::Result<Written> {
        let HistoryWriter { sender, thread } = self;
        // It fails only if the thread has already given up, and then the thread says why.
        let _ = sender.events.send(Message::Stop(end));
        let lines = thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the history writer panicked")))?;
        Ok(Written {
            lines,
            dropped: sender.dropped.load(Ordering::Relaxed),
        })
    }
}

impl HistorySender {
    /// Records an event. Never waits: if the writer cannot follow, the event is dropped and the file says so at its end.
    pub fn record(&self, event: Event) {
        if self
            .events
            .try_send(Message::Event(Box::new(event)))
            .is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records an event and waits for room. For the facts at the end, which come in thousands.
    pub fn record_blocking(&self, event: Event) {
        if self.events.send(Message::Event(Box::new(event))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(
    mut file: BufWriter<File>,
    received: &Receiver<Message>,
    dropped: &AtomicU64,
) -> io::Result<u64> {
    let mut lines = 1;
    let mut is_dirty = false;
    loop {
        match received.recv_timeout(FLUSH_EVERY) {
            Ok(Message::Event(event)) => {
                write_line(&mut file, &event)?;
                lines += 1;
                // While events keep coming the buffer's size is what flushes it.
                is_dirty = true;
            }
            Ok(Message::Stop(mut end)) => {
                end.dropped = dropped.load(Ordering::Relaxed);
                write_line(&mut file, &Event::End(end))?;
                file.flush()?;
                return Ok(lines + 1);
            }
            Err(RecvTimeoutError::Timeout) if is_dirty => {
                file.flush()?;
                is_dirty = false;
            }
            Err(RecvTimeoutError::Timeout) => {}
            // Dropped without a last word: an interrupted run. What came is kept.
            Err(RecvTimeoutError::Disconnected) => {
                file.flush()?;
                return Ok(lines);
            }
        }
    }
}

fn write_line(file: &mut BufWriter<File>, line: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}
