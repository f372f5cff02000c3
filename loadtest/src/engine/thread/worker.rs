//! One worker: takes a due job, sends it, waits for the answer, hands it in. There is one per HTTP/1.1 connection or HTTP/2
//! stream; they live as long as the run, so a request costs no task.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use tokio::time::{Instant, Sleep};

use super::local::Local;
use crate::engine::answer::{self, Answer};
use crate::engine::connection::{Connection, ConnectionError, H1Connection};
use crate::outcome::Outcome;
use crate::plan::{Job, Kind};

/// Copies of one request put on the wire when connections close under it.
const MAX_SENDS: u32 = 3;

/// A connection opened ahead of the run, with the reason if it could not be.
pub(super) type Opened = (Connection, Option<String>);

/// Dispatches every job that is due, and starts the workers that are missing for them.
pub(super) fn dispatch(local: &Rc<Local>, now_ns: u64) {
    for _ in 0..local.dispatch(now_ns) {
        let connection = connection_of(local, local.wakers.borrow().len());
        spawn(local, connection);
    }
}

/// Starts one more worker.
pub(super) fn spawn(local: &Rc<Local>, connection: Connection) {
    let id = local.enlist_worker();
    tokio::task::spawn_local(work(Rc::clone(local), id, connection));
}

/// The connection of worker `id`: HTTP/2 workers are spread evenly over the connections.
fn connection_of(local: &Local, id: usize) -> Connection {
    match local.h2.len() {
        0 => Connection::H1(H1Connection::default()),
        connections => Connection::H2(Rc::clone(&local.h2[id % connections])),
    }
}

/// Opens the connection of worker `id`.
pub(super) async fn open(local: Rc<Local>, id: usize) -> Opened {
    let mut connection = connection_of(&local, id);
    let opening = tokio::time::timeout(local.timeout, connection.open(&local.connector));
    let error = match opening.await {
        Ok(Ok(())) => None,
        Ok(Err(ConnectionError::NoConnection(error))) => Some(error),
        Ok(Err(ConnectionError::Closed { .. })) => Some("closed at once".into()),
        Err(_) => Some("no connection within the request timeout".into()),
    };
    (connection, error)
}

/// Works until the thread drops it.
async fn work(local: Rc<Local>, id: usize, mut connection: Connection) {
    // One timer for all requests of this worker: moving it is cheaper than making one.
    let mut alarm = Box::pin(tokio::time::sleep(local.timeout));
    loop {
        let dispatched = poll_fn(|cx| {
            connection.poll_idle(cx);
            local.poll_job(id, cx)
        })
        .await;
        let sent_ns = local.now_ns();
        let job = dispatched.job;
        let begun = local.begin(&dispatched, sent_ns);
        let op = begun
            .then(|| local.record_invoke(&job, id, sent_ns))
            .flatten();
        let answer = if begun {
            alarm.as_mut().reset(Instant::now() + local.timeout);
            match in_time(alarm.as_mut(), send(&local, &mut connection, &job)).await {
                Some(answer) => answer,
                None => {
                    connection.abandon();
                    Answer::of(Outcome::Timeout)
                }
            }
        } else {
            Answer::of(Outcome::Shed)
        };
        let done_ns = local.now_ns();
        local.finish(job, op, sent_ns, done_ns, answer);
        dispatch(&local, done_ns);
    }
}

/// Sends the request; again, under the same key, if its connection closes under it.
async fn send(local: &Local, connection: &mut Connection, job: &Job) -> Answer {
    let mut is_second_copy = false;
    for attempt in 0..MAX_SENDS {
        let request = local.request(job, attempt > 0);
        let keep = job.kind != Kind::Page;
        match connection.exchange(&local.connector, request, keep).await {
            Ok(reply) => {
                let cart = local.cart_of(job);
                return Answer {
                    is_second_copy,
                    ..answer::read(job.kind, cart.as_deref(), reply.status, &reply.body)
                };
            }
            Err(ConnectionError::NoConnection(_)) => {
                local.note_unsent();
                break;
            }
            Err(ConnectionError::Closed { sent }) => {
                if sent {
                    is_second_copy = true;
                    local.note_broken(job);
                }
            }
        }
    }
    Answer::of(Outcome::ConnectError)
}

/// The result of `what`, or `None` when the alarm goes first.
async fn in_time<F: Future>(mut alarm: Pin<&mut Sleep>, what: F) -> Option<F::Output> {
    let mut what = pin!(what);
    poll_fn(|cx| {
        if let Poll::Ready(done) = what.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        alarm.as_mut().poll(cx).map(|()| None)
    })
    .await
}
