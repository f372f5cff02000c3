//! Sales and payments: built from their configuration, their workers started, their routers handed to the edge.
//!
//! Everything here runs on the control plane. Orders and money share one database, so that one transaction can change both
//! (see [`crate::compose::checkout`]).

mod books;
mod certificates;
pub mod checkout;
pub mod edge;
mod health;
mod payable;
pub mod reload;
mod sockets;

use std::{sync::Arc, time::SystemTime};

use anyhow::Context;
use axum::Router;
use payment::{PaymentService, participant::Participant};
use seckill::{
    clock::WallClock,
    engine::SaleEngine,
    ledger::BOOKS,
    node::{Node, Parts, Workers},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    checkout::Checkout,
    edge::{App, Handlers},
};
use crate::{
    config::{Config, Role},
    meters,
};

/// The running services.
pub struct Services {
    sales: Node,
    payments: Option<Arc<PaymentService>>,
    admin: Router,
    /// The engine, for callers in this process.
    pub engine: Arc<SaleEngine>,
    /// What works beside the node: payments and the watch over their books.
    workers: JoinSet<()>,
}

impl Services {
    /// Opens the stores and starts what the role asks for.
    pub async fn start(
        sale: &seckill::config::Config,
        payments: Option<&payment::Config>,
        role: Role,
        clock: WallClock,
    ) -> anyhow::Result<Self> {
        let shutdown = CancellationToken::new();
        let node = Node::start(Parts {
            config: sale,
            clock,
            host: host_name(),
            payable: payments.map(|config| payable::payable(&config.currencies)),
            workers: match role {
                Role::Edge => Workers::Serving,
                Role::All | Role::Worker => Workers::All,
            },
            shutdown: shutdown.clone(),
        });
        let node = node.await?;
        let mut workers = JoinSet::new();
        let payments = match payments {
            None => None,
            Some(config) => match start_payments(config, &node).await {
                Ok(service) => Some(service),
                Err(error) => {
                    // Its leases go to the next node at once.
                    node.stop().await;
                    return Err(error);
                }
            },
        };
        let ledger = payments.as_ref().map(|_| node.engine.ledger().clone());
        let known = books::Known::default();
        if let Some(service) = payments.clone()
            && role != Role::Edge
        {
            workers.spawn(service.run_worker(shutdown.clone().cancelled_owned()));
        }
        if let Some(ledger) = ledger.clone()
            && role != Role::Edge
        {
            let (lease, clock) = (node.lease(BOOKS), node.clock.clone());
            workers.spawn(books::watch(ledger, lease, clock, known.clone(), shutdown));
        }
        Ok(Self {
            admin: node.admin.clone().merge(books::router(ledger, known)),
            engine: node.engine.clone(),
            sales: node,
            payments,
            workers,
        })
    }

    /// The routers, for the edge.
    pub fn handlers(&self) -> Handlers {
        Handlers {
            ready: self.sales.readiness(),
            sales: Some(self.sales.sales.clone()),
            payments: self.payments.clone().map(payment::router),
            admin_extra: Some(self.admin.clone()),
            draining: self.sales.draining.clone(),
        }
    }

    /// Ends the workers after their current batch. Call it when no request is in flight any more.
    pub async fn stop(mut self) {
        self.sales.stop().await;
        while self.workers.join_next().await.is_some() {}
    }
}

/// Payments for the orders of this node, in the database of its ledger.
async fn start_payments(
    config: &payment::Config,
    node: &Node,
) -> anyhow::Result<Arc<PaymentService>> {
    let pool = node.engine.ledger().pool();
    payment::migrate(pool)
        .await
        .context("the payment tables could not be made")?;
    let api_key = config
        .api_key
        .ensure(rand::random())
        .context("payment.api_key")?;
    let checkout: Arc<dyn Participant> = Arc::new(Checkout::new(node.engine.clone()));
    let clock = node.clock.clone();
    Ok(PaymentService::new(
        config.clone(),
        &api_key,
        pool.clone(),
        Some(checkout),
        Arc::new(move || i64::try_from(clock()).unwrap_or(i64::MAX)),
        rand::random(),
    ))
}

fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

/// Builds the gateway with all that its configuration asks for: recorder, stores and workers, then the sockets.
pub async fn build(config: Config) -> anyhow::Result<(App, Option<Services>)> {
    // Metric handles are resolved when parts are built, so the recorder comes first.
    meters::install()?;
    let clock: WallClock = Arc::new(|| {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let services = match &config.seckill {
        None => None,
        Some(sale) => {
            Some(Services::start(sale, config.payment.as_ref(), config.role, clock).await?)
        }
    };
    let handlers = services
        .as_ref()
        .map(Services::handlers)
        .unwrap_or_default();
    Ok((App::try_new(config, handlers)?, services))
}
