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
use payment::{Payments, Setup};
use seckill::{
    clock::WallClock,
    engine::SaleEngine,
    ledger::{self, BOOKS},
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
    payments: Option<Payments>,
    admin: Router,
    /// The engine, for callers in this process.
    pub engine: Arc<SaleEngine>,
    /// What works beside the node: the watch over the books of payments.
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
            Some(config) => {
                let work_until = (role != Role::Edge).then(|| shutdown.clone());
                match start_payments(config, &node, work_until).await {
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
        if let Some(reader) = reader.clone()
            && role != Role::Edge
        {
            let (lease, clock) = (node.lease(BOOKS), node.clock.clone());
            workers.spawn(books::watch(reader, lease, clock, known.clone(), shutdown));
        }
        Ok(Self {
            admin: node.admin.clone().merge(books::router(reader, known)),
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
            payments: self
                .payments
                .as_ref()
                .map(|payments| payments.router.clone()),
            admin_extra: Some(self.admin.clone()),
            draining: self.sales.draining.clone(),
        }
    }

    /// Ends the workers after their current batch. Call it when no request is in flight any more.
    pub async fn stop(mut self) {
        self.sales.stop().await;
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
) -> anyhow::Result<Payments> {
    let ledger = node.engine.ledger();
    let payment::Schema { table, steps } = payment::SCHEMA;
    ledger::migrate(ledger.pool(), table, steps)
        .await
        .context("the payment tables could not be laid")?;
    let clock = node.clock.clone();
    let started = payment::start(Setup {
        config: config.clone(),
        pool: ledger.pool().clone(),
        readers: ledger.readers().clone(),
        participant: Some(Arc::new(Checkout::new(node.engine.clone()))),
        clock: Arc::new(move || i64::try_from(clock()).unwrap_or(i64::MAX)),
        seed: rand::random(),
        new_key: rand::random(),
        work_until,
    });
    started.context("payment")
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
