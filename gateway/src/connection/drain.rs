//! The end of a core's work: when it has begun, what it waits for, and when it is cut short.

use std::{cell::Cell, rc::Rc};

use tokio::sync::{Notify, futures::Notified};

/// The drain of one core.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    has_begun: Cell<bool>,
    begun: Notify,
    cut: Notify,
    /// Connections and tunnels that hold it up.
    open: Cell<usize>,
    all_ended: Notify,
}

/// Something that a drain waits for. Dropped when its connection or tunnel ends.
#[derive(Debug)]
pub(crate) struct DrainGuard(Rc<Drain>);

impl Drain {
    /// Begins: no new connections.
    pub(crate) fn begin(&self) {
        self.has_begun.set(true);
        self.begun.notify_waiters();
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// Ready when it begins. Look at [`Drain::has_begun`] after this was made: it may have begun before.
    pub(crate) fn begun(&self) -> Notified<'_> {
        self.begun.notified()
    }

    /// Ends tunnels at the deadline.
    pub(crate) fn cut_tunnels(&self) {
        self.cut.notify_waiters();
    }

    /// Ready when tunnels have to end.
    pub(crate) fn cut(&self) -> Notified<'_> {
        self.cut.notified()
    }

    /// Has the drain wait for the guard.
    pub(crate) fn hold(self: &Rc<Self>) -> DrainGuard {
        self.open.set(self.open.get() + 1);
        DrainGuard(Rc::clone(self))
    }

    /// How many it waits for.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// Waits until every connection and tunnel has ended.
    pub(crate) async fn ended(&self) {
        while self.open.get() > 0 {
            self.all_ended.notified().await;
        }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        let left = self.0.open.get() - 1;
        self.0.open.set(left);
        if left == 0 {
            self.0.all_ended.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_drain_ends_with_the_last_that_holds_it() {
        let drain = Rc::new(Drain::default());
        assert!(drain.ended().now_or_never().is_some());
        let (first, second) = (drain.hold(), drain.hold());
        drop(first);
        assert!(drain.ended().now_or_never().is_none());
        drop(second);
        assert!(drain.ended().now_or_never().is_some());
    }
}
