//! The health checks of all endpoints, begun and ended as the cores' plan changes.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    config::Health,
    cores::Plan,
    upstream::{Endpoint, health},
};

/// A check that runs.
struct Check {
    endpoint: Arc<Endpoint>,
    config: Health,
    _running: AbortOnDropHandle<()>,
}

/// Runs the checks that the present plan asks for, for ever.
pub(super) async fn keep(mut plans: watch::Receiver<Arc<Plan>>) {
    let mut checks: BTreeMap<(String, String), Check> = BTreeMap::new();
    loop {
        let plan = Arc::clone(&plans.borrow_and_update());
        checks = next(&plan, checks);
        if plans.changed().await.is_err() {
            return;
        }
    }
}

/// The checks of a plan. Those that are as before go on; an endpoint that is no longer checked counts as healthy.
fn next(
    plan: &Plan,
    mut before: BTreeMap<(String, String), Check>,
) -> BTreeMap<(String, String), Check> {
    let mut checks = BTreeMap::new();
    for upstream in &plan.upstreams {
        let Some(config) = &upstream.config.health else {
            continue;
        };
        for endpoint in &upstream.endpoints {
            let id = (upstream.config.name.clone(), endpoint.address().to_owned());
            let kept = before
                .remove(&id)
                .filter(|check| check.config == *config && Arc::ptr_eq(&check.endpoint, endpoint));
            let check = kept.unwrap_or_else(|| {
                let watch = health::watch(Arc::clone(endpoint), config.clone());
                Check {
                    endpoint: Arc::clone(endpoint),
                    config: config.clone(),
                    _running: AbortOnDropHandle::new(tokio::spawn(watch)),
                }
            });
            checks.insert(id, check);
        }
    }
    for check in before.values() {
        check.endpoint.set_healthy(true);
    }
    checks
}
