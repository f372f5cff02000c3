//! The gateway and the services beside it, built from one configuration.
//!
//! Everything here runs on the control plane. Orders and money share one database, so that one transaction can change both
//! (see [`crate::compose::checkout`]).

mod books;
mod certificate_files;
mod certificates;
pub mod checkout;
pub mod edge;
mod health;
mod payable;
pub mod reload;
mod secrets;
mod services;
mod sockets;

use std::{sync::Arc, time::SystemTime};

use seckill::clock::WallClock;

use self::edge::{App, Handlers};
pub use self::services::{Services, ServicesConfig, StartError};
use crate::{config::Config, meters};

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
            let asked = ServicesConfig {
                sale: sale.clone(),
                payments: config.payment.clone(),
                role: config.role,
                clock,
                accepts_clock: config.accepts_clock,
            };
            Some(Services::start(asked).await?)
        }
    };
    let handlers = services
        .as_ref()
        .map_or_else(Handlers::default, |services| {
            services.handlers(&config.routes)
        });
    Ok((App::try_new(config, handlers)?, services))
}
