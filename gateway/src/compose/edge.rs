//! Builds every long-lived part of the gateway once, in the order in which they need each other, and binds the sockets.
//!
//! [`App::try_new`] does all that can fail, so that a wrong configuration or a taken port ends the program before it serves anything.
//! [`App::run`] serves until its shutdown future is ready, drains, and returns. The cores' runtimes live until the [`App`] is
//! dropped, because connections that handlers opened on them (SQL, Redis) may still be in use elsewhere.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use metrics_exporter_prometheus::PrometheusHandle;
use rustls::pki_types::CertificateDer;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    certificate_files,
    certificates::listener_tls,
    health,
    reload::{self, Live, Reloader},
    sockets::{bind, bind_admin},
};
use crate::{
    access_log::AccessLog,
    admin::{self, Part, Readiness},
    config::{Config, Role},
    cores::{self, CoreThread, Phase, Plan, Socket},
    meters::{self, BoundMeters, LimitMeters},
    signals::Stop,
    tls::{CertificateError, Store},
    upstream::BreakerChange,
};

pub use crate::route::Late;

/// Requests that cores may have handed to the control runtime: more than may wait for news (`seckill.waiting.per_node`), and about
/// a hundred megabytes at most. Above it they are refused, so that what is there is answered in time.
const CONTROL_MAX: usize = 32_768;

/// The parts that other crates bring.
#[derive(Default)]
pub struct Handlers {
    /// Serves routes with `handler = "sales"`, on the core the request came to.
    pub sales: Late,
    /// Serves routes with `handler = "payments"`, on the control runtime.
    pub payments: Late,
    /// Joins the admin listener, behind the token, if this process has more to administer. Its paths all begin with `/admin/`.
    pub admin: Option<Late>,
    /// Parts that `/ready` tells of.
    pub parts: Vec<Part>,
    /// Cancelled when the drain begins: handlers that hold answers back let them go, or they would hold the drain up.
    pub draining: CancellationToken,
}

/// Where the gateway listens, with the ports that were really taken.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// In the order of the configuration; empty for the worker role.
    pub listeners: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: SocketAddr,
}

/// The gateway, built and bound.
pub struct App {
    config: Config,
    handlers: Handlers,
    addresses: Addresses,
    /// One list of sockets per core.
    sockets: Vec<Vec<Socket>>,
    admin: TcpListener,
    /// Of the TLS listeners, in the order of the configuration; `None` for a plain one.
    stores: Vec<Option<Arc<Store>>>,
    prometheus: PrometheusHandle,
    readiness: Readiness,
    access_log: Option<AccessLog>,
    reloader: Option<Reloader>,
    /// Set when it serves.
    plans: Option<watch::Sender<Arc<Plan>>>,
    phase: watch::Sender<Phase>,
    cores: Vec<CoreThread>,
    /// What runs beside the cores; aborted when dropped.
    control: JoinSet<()>,
}

/// Why the gateway cannot start. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A socket cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A certificate cannot be used.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// The metrics recorder cannot be installed.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The access log cannot be opened.
    #[error("access log: {0}")]
    AccessLog(io::Error),
    /// A thread cannot be started.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

impl App {
    /// Builds everything and binds the sockets. Connections made from now on wait until [`run`](Self::run).
    pub fn try_new(config: Config, handlers: Handlers) -> Result<Self, AppError> {
        let prometheus = meters::install()?;
        let access_log = AccessLog::try_start(&config.log).map_err(AppError::AccessLog)?;

        let mut sockets: Vec<Vec<Socket>> = Vec::new();
        let mut listeners = Vec::new();
        let mut stores = Vec::new();
        if config.role != Role::Worker {
            sockets.resize_with(config.server.workers, Vec::new);
            for listener in &config.listeners {
                let (store, tls) = listener_tls(listener)?.unzip();
                stores.push(store);
                let bound =
                    bind(listener.address, sockets.len()).map_err(|error| AppError::Bind {
                        address: listener.address,
                        error,
                    })?;
                listeners.extend(bound.first().and_then(|socket| socket.local_addr().ok()));
                for (core, socket) in sockets.iter_mut().zip(bound) {
                    core.push(Socket {
                        listener: socket,
                        config: listener.clone(),
                        tls: tls.clone(),
                    });
                }
            }
        }
        let address = config.admin.address;
        let admin = bind_admin(address).map_err(|error| AppError::Bind { address, error })?;
        let addresses = Addresses {
            listeners,
            admin: admin
                .local_addr()
                .map_err(|error| AppError::Bind { address, error })?,
        };
        let readiness = Readiness::new(handlers.parts.clone());
        Ok(Self {
            config,
            handlers,
            addresses,
            sockets,
            admin,
            stores,
            prometheus,
            readiness,
            access_log,
            reloader: None,
            plans: None,
            phase: watch::Sender::new(Phase::Serving),
            cores: Vec::new(),
            control: JoinSet::new(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The leaf certificates of all TLS listeners, for clients in the same process that shall trust them.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let stores = self.stores.iter().flatten().map(|store| store.all());
        stores
            .flat_map(|all| all.iter().map(|one| one.leaf()).collect::<Vec<_>>())
            .collect()
    }

    /// Has the configuration read again by this when it is asked for. Before it serves.
    pub fn reload_by(&mut self, reloader: Reloader) {
        self.reloader = Some(reloader);
    }

    /// Reopens the access log's file when called, so that it can be rotated.
    pub fn reopener(&self) -> impl Fn() + Send + 'static {
        let log = self.access_log.as_ref().map(AccessLog::reopener);
        move || {
            if let Some(reopen) = &log {
                reopen();
            }
        }
    }

    /// Serves until a signal asks it to stop, or `failed` is ready, then drains, until another signal says that this takes too long.
    pub async fn run_until(
        &mut self,
        mut stop: Stop,
        failed: impl Future<Output = ()>,
    ) -> Result<(), AppError> {
        let stop_admin = self.start()?;
        tokio::select! {
            () = stop.asked() => {}
            () = failed => {}
        }
        self.drain(stop.hurried()).await;
        let _ = stop_admin.send(());
        Ok(())
    }

    /// Serves until `shutdown` is ready, then drains. Call once, on the control runtime.
    pub async fn run(&mut self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let stop_admin = self.start()?;
        shutdown.await;
        self.drain(std::future::pending()).await;
        // Last: until here it has answered `/live`, and `/ready` with a no.
        let _ = stop_admin.send(());
        Ok(())
    }

    /// Starts the cores, the admin listener and what runs beside them.
    fn start(&mut self) -> Result<oneshot::Sender<()>, AppError> {
        let (changes, changed) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(CONTROL_MAX));
        let handlers = cores::Handlers {
            sales: self.handlers.sales.clone(),
            payments: self.handlers.payments.clone(),
            control: Handle::current(),
            control_permits: Arc::clone(&permits),
        };
        let plan = Arc::new(Plan::first(self.config.clone(), handlers, &changes));
        let plans = watch::Sender::new(Arc::clone(&plan));

        let mut control = JoinSet::new();
        control.spawn(upkeep(
            self.prometheus.clone(),
            plans.subscribe(),
            permits,
            self.readiness.clone(),
        ));
        control.spawn(log_breakers(changed));
        control.spawn(health::keep(plans.subscribe()));
        let stores = self.stores.clone();
        control.spawn(certificate_files::watch(plans.subscribe(), stores));
        let stop_admin = self.start_admin(&mut control)?;
        for (index, sockets) in self.sockets.drain(..).enumerate() {
            let lines = self.access_log.as_ref().map(AccessLog::lines);
            let (plans, phase) = (plans.subscribe(), self.phase.subscribe());
            let core = cores::spawn(index, plans, sockets, lines, phase);
            self.cores.push(core.map_err(AppError::Start)?);
        }
        if let Some(reloader) = &self.reloader {
            reloader.go_live(Live {
                plans: plans.clone(),
                changes: changes.clone(),
                stores: self.stores.clone(),
                adopted: self.cores.iter().map(|core| core.adopted.clone()).collect(),
            });
        }
        self.plans = Some(plans);
        self.control = control;
        Ok(stop_admin)
    }

    fn start_admin(&mut self, control: &mut JoinSet<()>) -> Result<oneshot::Sender<()>, AppError> {
        let reload = self.reloader.clone().map(reload::router);
        let router = admin::router(
            self.config.admin.token.clone(),
            self.readiness.clone(),
            self.prometheus.clone(),
            reload.unwrap_or_default(),
            self.handlers.admin.clone(),
        );
        let listener = self
            .admin
            .try_clone()
            .and_then(tokio::net::TcpListener::from_std)
            .map_err(AppError::Start)?;
        let (stop, stopped) = oneshot::channel();
        control.spawn(async move {
            let until = async {
                let _ = stopped.await;
            };
            if let Err(error) = axum::serve(listener, router)
                .with_graceful_shutdown(until)
                .await
            {
                warn!(%error, "admin listener ended");
            }
        });
        Ok(stop)
    }

    async fn drain(&mut self, hurried: impl Future<Output = ()>) {
        self.readiness.start_draining();
        let plans = self.plans.as_ref();
        let server = plans.map_or_else(
            || self.config.server.clone(),
            |plans| plans.borrow().config.server.clone(),
        );
        let mut hurried = std::pin::pin!(hurried);
        let mut is_hurried = tokio::select! {
            () = time::sleep(server.drain_delay) => false,
            () = &mut hurried => true,
        };
        info!(deadline = ?server.drain_deadline, "draining");
        self.phase.send_replace(Phase::Draining);
        self.handlers.draining.cancel();
        let mut cut = 0;
        for core in &mut self.cores {
            let Some(mut drained) = core.drained.take() else {
                continue;
            };
            let count = loop {
                if is_hurried {
                    self.phase.send_replace(Phase::Cut);
                    break drained.await;
                }
                tokio::select! {
                    count = &mut drained => break count,
                    () = &mut hurried => is_hurried = true,
                }
            };
            match count {
                Ok(count) => cut += count,
                Err(_gone) => warn!("a core ended before it was drained"),
            }
        }
        match cut {
            0 => info!("drained"),
            cut => warn!(
                connections = cut,
                "connections cut off at the end of the drain"
            ),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Released);
        for core in self.cores.drain(..) {
            // A panic in it was printed when it happened.
            let _ = core.thread.join();
        }
        if let Some(log) = self.access_log.take() {
            log.finish();
        }
    }
}

/// Writes what breakers did; they tell it from under a lock that every core needs.
async fn log_breakers(mut changes: mpsc::UnboundedReceiver<BreakerChange>) {
    while let Some(BreakerChange {
        upstream,
        endpoint,
        transition,
    }) = changes.recv().await
    {
        warn!(%upstream, %endpoint, from = ?transition.from, to = ?transition.to, "breaker changed");
    }
}

/// Folds histograms, reads bounds and what limiters count, and shows how the parts are, once a second.
async fn upkeep(
    prometheus: PrometheusHandle,
    plans: watch::Receiver<Arc<Plan>>,
    permits: Arc<Semaphore>,
    readiness: Readiness,
) {
    let bounds = BoundMeters::new();
    let mut limits: BTreeMap<String, LimitMeters> = BTreeMap::new();
    let mut ticks = time::interval(meters::UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        prometheus.run_upkeep();
        readiness.show();
        let plan = Arc::clone(&plans.borrow());
        let server = &plan.config.server;
        let taken = CONTROL_MAX.saturating_sub(permits.available_permits());
        bounds.read(server.max_connections, (taken, CONTROL_MAX));
        for upstream in &plan.upstreams {
            let pools = upstream.endpoints.len() * server.workers;
            bounds.read_upstream(
                &upstream.config.name,
                upstream.config.pool.max_active * pools,
            );
        }
        for bucket in &plan.buckets {
            let name = &bucket.config.name;
            let meters = limits
                .entry(name.clone())
                .or_insert_with(|| LimitMeters::new(name));
            meters.read(&bucket.limiter, now);
        }
    }
}
