//! Who holds a place of a pool, and how long its client has kept the place waiting: what decides who loses it when the pool is full.
//!
//! A place is the shop's scarcest good, and most of what can hold one costs a client nothing: an answer that it does not read, an upload
//! of a byte a second. So the client's own time is counted, and only the client's: what the upstream takes is nobody's fault here.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    connection::sending::Sending,
    http::{MinRate, client_ip::ClientBits, upload::Progress},
};

/// The holder of a place.
#[derive(Debug)]
pub struct Holder {
    /// Whose request it is.
    pub client: ClientBits,
    /// Its place in the pool's list.
    pub(super) at: Cell<usize>,
    busy: RefCell<Busy>,
    is_cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What the place is held for.
#[derive(Debug)]
enum Busy {
    /// For the upstream: connecting, or its answer.
    Upstream,
    /// For the client's upload.
    Upload(Arc<Progress>),
    /// For the client that reads the answer.
    Download(Weak<dyn Sending>),
}

impl Holder {
    pub(super) fn new(client: ClientBits, at: usize) -> Self {
        Self {
            client,
            at: Cell::new(at),
            busy: RefCell::new(Busy::Upstream),
            is_cut: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// From now on it waits for this upload, until that is over.
    pub fn uploads(&self, progress: Arc<Progress>) {
        *self.busy.borrow_mut() = Busy::Upload(progress);
    }

    /// From now on it waits for the upstream.
    pub fn answers(&self) {
        *self.busy.borrow_mut() = Busy::Upstream;
    }

    /// From now on it waits for the reader of this answer.
    pub fn downloads(&self, download: Weak<dyn Sending>) {
        *self.busy.borrow_mut() = Busy::Download(download);
    }

    /// Ready when it has to let go.
    pub async fn cut_off(self: Rc<Self>) {
        std::future::poll_fn(|cx| {
            if self.is_cut.get() {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Whether its place was given to somebody else.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// How long its client has kept the place waiting.
    pub(super) fn late(&self, now: Instant, rate: MinRate) -> Duration {
        match &*self.busy.borrow() {
            Busy::Upstream => Duration::ZERO,
            Busy::Upload(progress) => progress.late(now, rate),
            Busy::Download(download) => download
                .upgrade()
                .map_or(Duration::ZERO, |download| download.late(now, rate)),
        }
    }

    /// Takes its place away.
    pub(super) fn cut(&self) {
        self.is_cut.set(true);
        let download = match &*self.busy.borrow() {
            Busy::Download(download) => download.upgrade(),
            Busy::Upstream | Busy::Upload(_) => None,
        };
        // Outside of the borrow: the answer's end drops the place, which holds this.
        if let Some(download) = download {
            download.cut();
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
