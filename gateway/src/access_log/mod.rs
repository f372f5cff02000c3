//! One JSON line per request, written off the request path.
//!
//! A core collects [`Line`]s in a buffer of its own and hands the whole buffer to the writer's thread ten times a second, through
//! a bounded channel. When the writer falls behind, whole buffers are dropped and counted: the log never slows a request.
//! Of refusals (429, 409) one in N is written, with the number it stands for: a crowd is refused more cheaply than it is logged.

mod redact;

use std::{
    cell::{Cell, RefCell},
    fs::{File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode, Uri};
use metrics::{Counter, counter};
use serde::Serialize;
use tokio::time::Instant;

use crate::{config, http::Protocol, meters::Outcome};

/// Lines a core collects before it hands them over early.
const BUFFER: usize = 1024;

/// Buffers on their way to the writer.
const CHANNEL: usize = 64;

/// The most bytes of a path that are written.
const PATH_MAX: usize = 2048;

/// What is known of a finished request.
#[derive(Debug)]
pub(crate) struct Line {
    pub at: Instant,
    pub client: IpAddr,
    pub method: Method,
    /// What it asked for; its query is not written, since it may hold secrets.
    pub uri: Uri,
    pub protocol: Protocol,
    pub route: Arc<str>,
    /// The answer; `None` if the client left before.
    pub status: Option<StatusCode>,
    pub outcome: Outcome,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// From header to last byte.
    pub took: Duration,
    /// How many refusals this line stands for.
    pub sampled: u64,
}

/// What the writer is told.
#[derive(Debug)]
enum Order {
    Write(Vec<(SystemTime, Line)>),
    /// The file has been moved away: go on in a new one.
    Reopen,
}

/// The writer's end.
#[derive(Debug)]
pub(crate) struct AccessLog {
    sender: Arc<SyncSender<Order>>,
    dropped: Counter,
    writer: JoinHandle<()>,
}

/// One core's end.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: RefCell<Vec<(SystemTime, Line)>>,
    /// The same moment on both clocks, read at the last flush: a line costs no reading of the wall clock.
    wall: Cell<(Instant, SystemTime)>,
    sender: SyncSender<Order>,
    dropped: Counter,
}

impl AccessLog {
    /// Starts the writer, unless the log is off.
    pub(crate) fn try_start(log: &config::Log) -> io::Result<Option<Self>> {
        let dropped = counter!("penstock_access_log_dropped_total");
        let (output, file): (Box<dyn Write + Send>, _) = match &log.access {
            config::AccessLog::Off => return Ok(None),
            config::AccessLog::Stdout => (Box::new(io::stdout()), None),
            config::AccessLog::File(path) => (Box::new(open(path)?), Some(path.clone())),
        };
        let (sender, receiver) = sync_channel(CHANNEL);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&receiver, output, file.as_deref()))?;
        Ok(Some(Self {
            sender: Arc::new(sender),
            dropped,
            writer,
        }))
    }

    /// An end for one core.
    pub(crate) fn lines(&self) -> Lines {
        Lines {
            buffer: RefCell::default(),
            wall: Cell::new((Instant::now(), SystemTime::now())),
            sender: SyncSender::clone(&self.sender),
            dropped: self.dropped.clone(),
        }
    }

    /// Reopens the file when called; lines that were handed over before go to the old one.
    pub(crate) fn reopener(&self) -> impl Fn() + Send + 'static {
        // It must not keep the writer waiting for more at the process's end.
        let sender = Arc::downgrade(&self.sender);
        move || {
            // A writer that is this far behind gets the next signal.
            if sender
                .upgrade()
                .is_some_and(|sender| sender.try_send(Order::Reopen).is_err())
            {
                tracing::warn!("the access log is not reopened: its writer has fallen behind");
            }
        }
    }

    /// Waits until everything handed over is written. All [`Lines`] must be gone.
    pub(crate) fn finish(self) {
        drop(self.sender);
        // A writer that panicked has said so; there is nothing left to save.
        let _ = self.writer.join();
    }
}

impl Lines {
    /// Keeps a line until the next flush.
    pub(crate) fn push(&self, line: Line) {
        let (then, wall) = self.wall.get();
        let at = wall + line.at.saturating_duration_since(then);
        let mut buffer = self.buffer.borrow_mut();
        buffer.push((at, line));
        if buffer.len() >= BUFFER {
            self.hand_over(&mut buffer);
        }
    }

    /// Hands over what there is.
    pub(crate) fn flush(&self) {
        self.wall.set((Instant::now(), SystemTime::now()));
        let mut buffer = self.buffer.borrow_mut();
        if !buffer.is_empty() {
            self.hand_over(&mut buffer);
        }
    }

    fn hand_over(&self, buffer: &mut Vec<(SystemTime, Line)>) {
        let lines = std::mem::take(buffer);
        let count = lines.len() as u64;
        if self.sender.try_send(Order::Write(lines)).is_err() {
            self.dropped.increment(count);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The written form. Named as OpenTelemetry names them where it does.
#[derive(Serialize)]
struct Written<'l> {
    time_ms: u64,
    target: &'static str,
    client: IpAddr,
    method: &'l str,
    path: &'l str,
    protocol: &'static str,
    route: &'l str,
    status: Option<u16>,
    outcome: &'static str,
    bytes: u64,
    duration_us: u64,
    #[serde(skip_serializing_if = "is_one")]
    sampled: u64,
}

fn is_one(sampled: &u64) -> bool {
    *sampled == 1
}

/// Readable by its owner and group: addresses and paths are personal data.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

fn write_all(receiver: &Receiver<Order>, mut output: Box<dyn Write + Send>, file: Option<&Path>) {
    let mut text = Vec::with_capacity(256 * BUFFER);
    let mut has_failed = false;
    for order in receiver {
        let lines = match order {
            Order::Write(lines) => lines,
            Order::Reopen => {
                match file.map(open) {
                    Some(Ok(file)) => (output, has_failed) = (Box::new(file), false),
                    // The old file is better than none.
                    Some(Err(error)) => tracing::error!(%error, "access log cannot be reopened"),
                    None => {}
                }
                continue;
            }
        };
        text.clear();
        for (at, line) in &lines {
            write_line(&mut text, *at, line);
        }
        // Said once: the log's own failure must not flood the other log.
        if let Err(error) = output.write_all(&text).and_then(|()| output.flush())
            && !has_failed
        {
            has_failed = true;
            tracing::error!(%error, "access log cannot be written");
        }
    }
}

fn write_line(text: &mut Vec<u8>, at: SystemTime, line: &Line) {
    let path = redact::path(line.uri.path());
    let written = Written {
        time_ms: at
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_millis() as u64),
        target: "access",
        client: line.client,
        method: line.method.as_str(),
        path: path.get(..PATH_MAX).unwrap_or(&path),
        protocol: line.protocol.label(),
        route: &line.route,
        status: line.status.map(|status| status.as_u16()),
        outcome: line.outcome.label(),
        bytes: line.bytes,
        duration_us: line.took.as_micros() as u64,
        sampled: line.sampled,
    };
    if serde_json::to_writer(&mut *text, &written).is_ok() {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_without_the_query() {
        let mut text = Vec::new();
        write_line(
            &mut text,
            UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            &Line {
                at: Instant::now(),
                client: [192, 0, 2, 1].into(),
                method: Method::GET,
                uri: "/cart?token=secret".parse().unwrap(),
                protocol: Protocol::H2,
                route: "shop".into(),
                status: Some(StatusCode::OK),
                outcome: Outcome::Ok,
                bytes: 5,
                took: Duration::from_micros(1234),
                sampled: 1,
            },
        );
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "{\"time_ms\":1700000000123,\"target\":\"access\",\"client\":\"192.0.2.1\",\"method\":\"GET\",\"path\":\"/cart\",\
             \"protocol\":\"h2\",\"route\":\"shop\",\"status\":200,\"outcome\":\"ok\",\"bytes\":5,\"duration_us\":1234}\n"
        );
    }
}
