//! Responses on their way to a client that may be slow to read them: what the rest of the gateway can do about one.

use std::{fmt, rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{Client, Command};
use crate::http::{GRACE, MinRate};

/// A response that is being sent piece by piece.
pub trait Sending: fmt::Debug {
    /// How long its client has kept it waiting: since its last piece, or beyond what the least rate allows for all of them.
    fn late(&self, now: Instant, rate: MinRate) -> Duration;

    /// Lets go of the upstream's connection; the client sees a broken answer.
    fn cut(&self);

    /// Whether it was cut off.
    fn is_cut(&self) -> bool;

    /// Takes the answer off the upstream's connection if its client has taken nothing for this long.
    fn spool_after(self: Rc<Self>, now: Instant, pause: Duration);
}

/// Frees the upstream from clients that read slowly, and cuts off the responses that the client has not read from for too long: what they
/// hold of an upstream is free at once. The connection ends when nothing else is going on on it; an HTTP/2 client that reads its other
/// streams keeps those.
pub(crate) fn sweep(client: &Client, now: Instant, allowed: Duration, rate: MinRate) {
    let sending = client.sending.borrow();
    let mut cut = 0;
    for response in sending.iter() {
        Rc::clone(response).spool_after(now, GRACE);
        if response.late(now, rate) >= allowed {
            response.cut();
        }
        cut += usize::from(response.is_cut());
    }
    if cut > 0 && cut == client.in_flight.get() as usize {
        client.ask(Command::Abort);
    }
}
