//! A decision that goes on to its end, also when nobody waits for it any more.

use std::future::Future;

use super::Outcome;
use stock::{StockError, Wanted};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// Gives up when the caller goes away.
struct Caller(Wanted);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Runs `decide` on `runtime` to its end, and waits for what it says until `deadline`. If the caller goes away or the deadline passes
/// before, the decision is no longer wanted: it may still be made, and then what it brings is not lost.
pub(super) async fn decided<T, F>(
    runtime: &Handle,
    deadline: Instant,
    decide: impl FnOnce(Wanted) -> F,
) -> Outcome<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, StockError>> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let wanted = Wanted::default();
    let deciding = decide(wanted.clone());
    let _caller = Caller(wanted);
    runtime.spawn(async move {
        let _ = answer.send(deciding.await);
    });
    match timeout_at(deadline, answered).await {
        Ok(Ok(Ok(verdict))) => Outcome::Decided(verdict),
        Ok(Ok(Err(
            StockError::Unavailable(_)
            | StockError::NotOpen(_)
            | StockError::AwaitsRebuild(_)
            | StockError::StaleEpoch { .. },
        ))) => Outcome::Unavailable,
        // The deadline passed, the store cannot say (a corrupt answer may follow an execution), or the runtime ended.
        Ok(Ok(Err(StockError::Unknown(_) | StockError::Corrupt(_)))) | Ok(Err(_)) | Err(_) => {
            Outcome::Unknown
        }
    }
}
