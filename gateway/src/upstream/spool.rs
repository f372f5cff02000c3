//! Answers of slow readers, taken off the upstream's connection: into memory, then into a temporary file without a name.
//!
//! Beside the request path: the core's sweep moves an answer here when its client has taken nothing for a while. A pump then reads the
//! upstream at the upstream's speed, so that its connection is free for the next request, and the client reads what was kept. Bounds: per
//! answer (`route.response_buffer`), and per core in memory and on disk ([`SpoolBudget`]); at a bound the pump waits for the reader.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use ahash::HashMap;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio_util::task::AbortOnDropHandle;

use super::UpstreamBody;
use crate::{
    connection::sending::Sending,
    http::{BodyError, client_ip::ClientBits},
};

/// What is read from a file at a time: one piece of an answer.
const PIECE: usize = 64 << 10;

/// What the answers of one core may occupy, and what those of one client of it.
#[derive(Debug)]
pub struct SpoolBudget {
    /// May be overdrawn by a piece an answer: see [`Kept::room`].
    memory: Cell<i64>,
    disk: Cell<i64>,
    /// An eighth of all for one client, so that it takes nobody else's (INV-EDGE-4).
    share: i64,
    shares: RefCell<HashMap<ClientBits, i64>>,
}

impl SpoolBudget {
    /// So many bytes in memory, and so many on disk.
    pub fn new(memory: u64, disk: u64) -> Rc<Self> {
        let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX / 2);
        Rc::new(Self {
            memory: Cell::new(bytes(memory)),
            disk: Cell::new(bytes(disk)),
            share: (bytes(memory) + bytes(disk)) / 8,
            shares: RefCell::default(),
        })
    }

    /// Takes from one of its two parts, if there is so much and the client has not had its share.
    fn take(&self, part: &Cell<i64>, client: &ClientBits, bytes: i64) -> bool {
        let held = self.shares.borrow().get(client).copied().unwrap_or(0);
        let is_there = part.get() >= bytes && held + bytes <= self.share;
        if is_there {
            self.draw(part, client, bytes);
        }
        is_there
    }

    /// Takes, whether it is there or not.
    fn draw(&self, part: &Cell<i64>, client: &ClientBits, bytes: i64) {
        part.set(part.get() - bytes);
        *self.shares.borrow_mut().entry(*client).or_default() += bytes;
    }

    fn give_back(&self, part: &Cell<i64>, client: &ClientBits, bytes: i64) {
        part.set(part.get() + bytes);
        let mut shares = self.shares.borrow_mut();
        if let Some(held) = shares.get_mut(client) {
            *held -= bytes;
            if *held <= 0 {
                shares.remove(client);
            }
        }
    }
}

/// What is kept of one answer. What is in memory comes before what is in the file.
#[derive(Debug)]
struct Kept {
    memory: VecDeque<Bytes>,
    /// Bytes in `memory`.
    held: u64,
    file: Option<Arc<File>>,
    /// The unread part of the file is what stands between these.
    read: u64,
    written: u64,
    /// The upstream's part is over, well or badly.
    end: Option<Result<(), BodyError>>,
    reader: Option<Waker>,
    pump: Option<Waker>,
    budget: Rc<SpoolBudget>,
    client: ClientBits,
}

/// The client's end: an answer's body.
#[derive(Debug)]
pub struct Spooled {
    kept: Rc<RefCell<Kept>>,
    /// What the whole body still has, where the upstream said so.
    left: Option<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    _pump: AbortOnDropHandle<()>,
}

impl Spooled {
    /// Moves an answer off its connection. `most` is what of it may be kept at a time; `download` is its reader.
    pub fn begin(
        body: Box<UpstreamBody>,
        most: u64,
        budget: Rc<SpoolBudget>,
        download: Weak<dyn Sending>,
    ) -> Self {
        let left = body.size_hint().exact();
        let client = body.holder().map_or([0; 16], |holder| holder.client);
        let kept = Rc::new(RefCell::new(Kept {
            memory: VecDeque::new(),
            held: 0,
            file: None,
            read: 0,
            written: 0,
            end: None,
            reader: None,
            pump: None,
            budget,
            client,
        }));
        let pump = spawn_local(pump(body, most, Rc::clone(&kept), download));
        Self {
            kept,
            left,
            reading: None,
            _pump: AbortOnDropHandle::new(pump),
        }
    }
}

/// Reads the upstream's part to its end.
async fn pump(
    mut body: Box<UpstreamBody>,
    most: u64,
    kept: Rc<RefCell<Kept>>,
    download: Weak<dyn Sending>,
) {
    let end = loop {
        if let Some(holder) = body.holder() {
            // The upstream's time: a client that is late keeps nobody waiting.
            holder.answers();
        }
        let data = match body.frame().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(error),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_trailers) => continue,
            },
        };
        let room = std::future::poll_fn(|cx| {
            let mut kept = kept.borrow_mut();
            let room = kept.room(data.len() as u64, most);
            if room.is_none() {
                kept.pump = Some(cx.waker().clone());
                if let Some(holder) = body.holder() {
                    holder.downloads(Weak::clone(&download));
                }
                return Poll::Pending;
            }
            Poll::Ready(room)
        });
        match room.await {
            Some(Room::File(file, at)) => {
                let length = data.len() as u64;
                let written = spawn_blocking(move || file.write_all_at(&data, at)).await;
                match written {
                    Ok(Ok(())) => kept.borrow_mut().written = at + length,
                    Ok(Err(error)) => break Err(BodyError::Spool(error)),
                    Err(_stopping) => return,
                }
            }
            Some(Room::Memory) => kept.borrow_mut().memory.push_back(data),
            None => {}
        }
        kept.borrow_mut().wake_reader();
    };
    let mut kept = kept.borrow_mut();
    kept.end = Some(end);
    kept.wake_reader();
}

/// Where a piece goes.
enum Room {
    Memory,
    File(Arc<File>, u64),
}

impl Kept {
    fn unread(&self) -> u64 {
        self.held + (self.written - self.read)
    }

    /// Takes room for a piece; `None` if it has to wait for the reader.
    fn room(&mut self, bytes: u64, most: u64) -> Option<Room> {
        let unread = self.unread();
        let budget = Rc::clone(&self.budget);
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        if unread == 0 {
            // Its reader waits for this and nothing else will wake the pump, so it goes through whatever is left: an answer without a
            // budget is streamed, a piece at a time.
            budget.draw(&budget.memory, &self.client, length);
            self.held += bytes;
            return Some(Room::Memory);
        }
        if unread + bytes > most {
            return None;
        }
        if self.written == self.read && budget.take(&budget.memory, &self.client, length) {
            self.held += bytes;
            return Some(Room::Memory);
        }
        if !budget.take(&budget.disk, &self.client, length) {
            return None;
        }
        if self.file.is_none() {
            match tempfile::tempfile() {
                Ok(file) => self.file = Some(Arc::new(file)),
                Err(error) => {
                    // No descriptor or no folder: then it waits, as without this.
                    tracing::debug!(%error, "no temporary file");
                    budget.give_back(&budget.disk, &self.client, length);
                    return None;
                }
            }
        }
        let file = Arc::clone(self.file.as_ref()?);
        Some(Room::File(file, self.written))
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_pump(&mut self) {
        if let Some(waker) = self.pump.take() {
            waker.wake();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.budget
            .give_back(&self.budget.memory, &self.client, bytes(self.held));
        self.budget
            .give_back(&self.budget.disk, &self.client, bytes(self.written));
    }
}

impl Spooled {
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(reading) = &mut self.reading {
            let read = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            let mut kept = self.kept.borrow_mut();
            return Poll::Ready(Some(match read {
                Ok(Ok(data)) => {
                    kept.read += data.len() as u64;
                    kept.wake_pump();
                    Ok(data)
                }
                Ok(Err(error)) => Err(BodyError::Spool(error)),
                Err(error) => Err(BodyError::Spool(io::Error::other(error))),
            }));
        }
        let mut kept = self.kept.borrow_mut();
        if let Some(data) = kept.memory.pop_front() {
            let bytes = data.len() as u64;
            kept.held -= bytes;
            let budget = &kept.budget;
            let length = i64::try_from(bytes).unwrap_or(i64::MAX);
            budget.give_back(&budget.memory, &kept.client, length);
            kept.wake_pump();
            return Poll::Ready(Some(Ok(data)));
        }
        if kept.read < kept.written
            && let Some(file) = kept.file.clone()
        {
            let (at, length) = (kept.read, (kept.written - kept.read).min(PIECE as u64));
            drop(kept);
            self.reading = Some(spawn_blocking(move || {
                let mut piece = vec![0; length as usize];
                file.read_exact_at(&mut piece, at)?;
                Ok(Bytes::from(piece))
            }));
            return self.poll_kept(cx);
        }
        match kept.end.take() {
            Some(Ok(())) => {
                kept.end = Some(Ok(()));
                Poll::Ready(None)
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                kept.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl HttpBody for Spooled {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let data = ready!(this.poll_kept(cx));
        if let (Some(Ok(data)), Some(left)) = (&data, &mut this.left) {
            *left = left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.borrow();
        self.reading.is_none() && kept.unread() == 0 && matches!(kept.end, Some(Ok(())))
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
