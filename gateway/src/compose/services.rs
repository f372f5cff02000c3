//! Sales and payments beside the edge: started by one try before the sockets are bound, and by further ones in the background while what
//! they need is away.
//!
//! The first try decides what is a mistake: what no waiting mends, found by it, ends the process, as somebody has just started it. Later
//! tries only tell and go on, because the shop is served meanwhile.

use std::{fmt::Display, sync::Arc, time::Duration};

use axum::Router;
use limiter::backoff::Backoff;
use payment::{Payments, Setup};
use seckill::{
    clock::WallClock,
    engine::SaleEngine,
    ledger::{self, BOOKS, LedgerError},
    node::{self, Node, Parts, ReadyCheck, Workers},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{books, checkout::Checkout, edge::Handlers, payable, secrets};
use crate::{
    admin::{self, Part, PartState},
    config::{Role, Target},
    route::Late,
};

/// How long the sockets wait for the first try. Nearly every start with its stores up is faster, so its first visitor can buy; a store that
/// is away mostly shows at once, and one that does not answer keeps the shop closed no longer than this.
const FIRST_TRY: Duration = Duration::from_secs(5);
/// Between two tries. A store that is back is used within seconds; what is wrong for hours costs a few connections a minute.
const PAUSE: Backoff = Backoff {
    first: Duration::from_millis(250),
    max: Duration::from_secs(10),
};
/// How long workers may take to end their batch. With the stores up they need a moment; one that waits for a database that is gone would
/// hold the end of the process up until each of its questions has failed.
const STOP: Duration = Duration::from_secs(5);
/// What a part says before the first try has ended.
const NOT_YET: &str = "it has not been tried yet";

/// Why sales and payments do not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The sale's part of the node.
    #[error(transparent)]
    Node(#[from] node::StartError),
    /// The payment tables, in the ledger's database.
    #[error("the payment tables could not be laid")]
    PaymentTables(#[source] LedgerError),
    /// The payments. The operator is at fault.
    #[error("payment")]
    Payments(#[from] payment::StartError),
}

impl StartError {
    /// Whether waiting may mend it: something is away, not wrong.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Node(error) => error.may_pass(),
            Self::PaymentTables(error) => error.may_pass(),
            Self::Payments(_) => false,
        }
    }
}

/// What is started, as often as it takes.
#[derive(Clone)]
pub struct ServicesConfig {
    /// The checked `[seckill]` table.
    pub sale: seckill::config::Config,
    /// The checked `[payment]` table.
    pub payments: Option<payment::Config>,
    /// Which work this node does.
    pub role: Role,
    /// This machine's clock.
    pub clock: WallClock,
    /// Whether it is taken for right at a start, see [`node::Parts`].
    pub accepts_clock: bool,
}

/// Sales and payments, which run or are still to.
pub struct Services {
    config: ServicesConfig,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    /// Ends after [`Services::stop`], or with the error of a first try that no waiting mends.
    keeping: JoinHandle<Result<(), StartError>>,
}

/// What the edge has of them.
#[derive(Default)]
struct Shared {
    sales: Late,
    payments: Late,
    admin: Late,
    state: watch::Sender<State>,
    draining: CancellationToken,
}

enum State {
    /// Nothing runs; why, once a try has failed.
    Starting(Option<String>),
    Running {
        engine: Arc<SaleEngine>,
        checks: Vec<(&'static str, ReadyCheck)>,
    },
    /// The first try has found what no waiting mends.
    Refused,
}

impl Default for State {
    fn default() -> Self {
        Self::Starting(None)
    }
}

impl Services {
    /// Starts what is asked for, and waits a little for it. Fails where no waiting helps.
    pub async fn start(config: ServicesConfig) -> Result<Self, StartError> {
        let shared = Arc::<Shared>::default();
        let shutdown = CancellationToken::new();
        let keeping = keep(config.clone(), shared.clone(), shutdown.clone());
        let services = Self {
            config,
            shared,
            shutdown,
            keeping: tokio::spawn(keeping),
        };
        let mut state = services.shared.state.subscribe();
        let first = state.wait_for(|state| !matches!(state, State::Starting(None)));
        let is_refused = match timeout(FIRST_TRY, first).await {
            Ok(state) => matches!(state.as_deref(), Ok(State::Refused)),
            Err(_elapsed) => {
                warn!("sales and payments take long to start; the shop is served meanwhile");
                false
            }
        };
        match is_refused {
            true => Err(services
                .stop()
                .await
                .expect_err("the first try was refused")),
            false => Ok(services),
        }
    }

    /// The routers, for the edge, and what `/ready` says of each part.
    pub fn handlers(&self, routes: &[crate::config::Route]) -> Handlers {
        let has_shop = routes
            .iter()
            .any(|route| matches!(route.target, Target::Upstream(_)));
        // A load balancer must not take the shop away because its sale is down. A worker has no visitors.
        let counts = !has_shop || self.config.role == Role::Worker;
        let store = Node::store_part(&self.config.sale);
        let payments = self.config.payments.as_ref().map(|_| "payments");
        let names = ["sales", store].into_iter().chain(payments);
        Handlers {
            sales: self.shared.sales.clone(),
            payments: self.shared.payments.clone(),
            admin: Some(self.shared.admin.clone()),
            parts: names.map(|name| self.part(name, counts)).collect(),
            draining: self.shared.draining.clone(),
        }
    }

    fn part(&self, name: &'static str, counts: bool) -> Part {
        let state = self.shared.state.subscribe();
        let state = Arc::new(move || match &*state.borrow() {
            State::Starting(reason) => {
                PartState::Starting(reason.clone().unwrap_or_else(|| NOT_YET.to_owned()))
            }
            State::Refused => PartState::Starting("the start was refused, see the log".to_owned()),
            State::Running { checks, .. } => {
                let check = checks.iter().find(|(checked, _)| *checked == name);
                match check.map_or(Ok(()), |(_, check)| check()) {
                    Ok(()) => PartState::Ready,
                    Err(reason) => PartState::Failing(reason),
                }
            }
        });
        Part {
            name,
            counts,
            state,
        }
    }

    /// Waits until they run; the engine, for callers in this process. `None` if they never will.
    pub async fn engine(&self) -> Option<Arc<SaleEngine>> {
        let mut state = self.shared.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Starting(_)));
        match state.await.as_deref() {
            Ok(State::Running { engine, .. }) => Some(engine.clone()),
            _ => None,
        }
    }

    /// Ready if a first try that took long was refused after all: the process has to end, and [`Services::stop`] says why.
    pub fn refused(&self) -> impl Future<Output = ()> + use<> {
        let mut state = self.shared.state.subscribe();
        async move {
            let refused = state
                .wait_for(|state| matches!(state, State::Refused))
                .await;
            if refused.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Ends the workers after their current batch, or the tries. Call it when no request is in flight any more.
    pub async fn stop(self) -> Result<(), StartError> {
        self.shutdown.cancel();
        match self.keeping.await {
            Ok(ended) => ended,
            // It panicked, and the panic was reported there.
            Err(_) => Ok(()),
        }
    }
}

/// Tries until one try succeeds, then keeps what it has started until `shutdown`.
async fn keep(
    config: ServicesConfig,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let mut failures = 0;
    let running = loop {
        // What is half started ends with its try.
        let tried = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            tried = Running::try_start(&config, &shared.draining, shutdown.child_token()) => tried,
        };
        match tried {
            Ok(running) => break running,
            Err(error) if failures == 0 && !error.may_pass() => {
                shared.state.send_replace(State::Refused);
                return Err(error);
            }
            Err(error) => {
                failures += 1;
                shared.tell(&chain(&error));
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = sleep(PAUSE.wait(failures, rand::random())) => {}
        }
    };
    if failures > 0 {
        info!(failures, "sales and payments have started");
    }
    running.show(&shared);
    shutdown.cancelled().await;
    if timeout(STOP, running.stop()).await.is_err() {
        warn!(
            seconds = STOP.as_secs(),
            "a worker has not ended; what it had begun is taken up by another node or by the next start"
        );
    }
    Ok(())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut told: Vec<String> = causes.map(ToString::to_string).collect();
    told.dedup();
    told.join(": ")
}

impl Shared {
    /// Says why nothing runs, once for each reason.
    fn tell(&self, reason: &(impl Display + ?Sized)) {
        let reason = reason.to_string();
        self.state.send_if_modified(|state| {
            let is_new = !matches!(state, State::Starting(Some(known)) if *known == reason);
            if is_new {
                warn!(%reason, "sales and payments cannot start yet, trying again");
                *state = State::Starting(Some(reason));
            }
            is_new
        });
    }
}

/// Started services.
struct Running {
    node: Node,
    payments: Option<Payments>,
    admin: Router,
    /// What works beside the node: the watch over the books of payments.
    workers: JoinSet<()>,
}

impl Running {
    /// Opens the stores and starts what the role asks for.
    async fn try_start(
        config: &ServicesConfig,
        draining: &CancellationToken,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        // A caller that gives up in between, by an error or by not asking on, leaves nothing behind.
        let half_way = shutdown.clone().drop_guard();
        let node = Node::start(Parts {
            config: &config.sale,
            clock: config.clock.clone(),
            accepts_clock: config.accepts_clock,
            host: host_name(),
            payable: (config.payments.as_ref()).map(|config| payable::payable(&config.currencies)),
            find_secret: secrets::find_secret,
            workers: match config.role {
                Role::Edge => Workers::Serving,
                Role::All | Role::Worker => Workers::All,
            },
            draining: draining.clone(),
            shutdown: shutdown.clone(),
        });
        let node = node.await?;
        let works = config.role != Role::Edge;
        let payments = match &config.payments {
            None => None,
            Some(payments) => {
                let work_until = works.then(|| shutdown.clone());
                match start_payments(payments, &node, work_until).await {
                    Ok(payments) => Some(payments),
                    Err(error) => {
                        // Its leases go to the next node at once.
                        node.stop().await;
                        return Err(error);
                    }
                }
            }
        };
        let reader = payments.as_ref().map(|payments| payments.reader.clone());
        let known = books::Known::default();
        let mut workers = JoinSet::new();
        if let Some(reader) = reader.clone().filter(|_| works) {
            let (lease, clock) = (node.lease(BOOKS), node.clock.clone());
            workers.spawn(books::watch(reader, lease, clock, known.clone(), shutdown));
        }
        half_way.disarm();
        Ok(Self {
            admin: admin::with_refusals(node.admin.clone().merge(books::router(reader, known))),
            node,
            payments,
            workers,
        })
    }

    /// Hands the routers to the edge.
    fn show(&self, shared: &Shared) {
        shared.sales.come(self.node.sales.clone());
        if let Some(payments) = &self.payments {
            shared.payments.come(payments.router.clone());
        }
        shared.admin.come(self.admin.clone());
        let mut checks = self.node.readiness();
        checks.push(("payments", self.node.ledger_check()));
        shared.state.send_replace(State::Running {
            engine: self.node.engine.clone(),
            checks,
        });
    }

    async fn stop(mut self) {
        self.node.stop().await;
        while self.workers.join_next().await.is_some() {}
        if let Some(mut payments) = self.payments {
            while payments.tasks.join_next().await.is_some() {}
        }
    }
}

/// Payments for the orders of this node, in the database of its ledger.
async fn start_payments(
    config: &payment::Config,
    node: &Node,
    work_until: Option<CancellationToken>,
) -> Result<Payments, StartError> {
    let ledger = node.engine.ledger();
    let payment::Schema { table, steps } = payment::SCHEMA;
    ledger::migrate(ledger.pool(), table, steps)
        .await
        .map_err(StartError::PaymentTables)?;
    let clock = node.clock.clone();
    Ok(payment::start(Setup {
        config: config.clone(),
        pool: ledger.pool().clone(),
        readers: ledger.readers().clone(),
        participant: Some(Arc::new(Checkout::new(node.engine.clone()))),
        clock: Arc::new(move || i64::try_from(clock()).unwrap_or(i64::MAX)),
        seed: rand::random(),
        new_key: rand::random(),
        work_until,
    })?)
}

fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_when_it_is_new() {
        let shared = Shared::default();
        let mut state = shared.state.subscribe();
        for (reason, is_new) in [
            ("no database", true),
            ("no database", false),
            ("no tables", true),
            ("no database", true),
        ] {
            shared.tell(reason);
            assert_eq!(state.has_changed().unwrap(), is_new, "{reason}");
            state.mark_unchanged();
        }
    }
}
