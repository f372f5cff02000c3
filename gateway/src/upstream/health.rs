//! The active health check: a GET to every endpoint now and then, on the control runtime.
//!
//! Beside the request path: it flips [`Endpoint::set_healthy`](super::Endpoint::set_healthy), which candidates ask.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time;
use tracing::{info, warn};

use super::{Endpoint, connect};
use crate::config;

/// The run of equal answers so far. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tracker {
    is_healthy: bool,
    /// Answers in a row that say otherwise.
    against: u32,
}

impl Default for Tracker {
    /// An endpoint is healthy until its check says otherwise: a restart must not begin with 503s.
    fn default() -> Self {
        Self {
            is_healthy: true,
            against: 0,
        }
    }
}

impl Tracker {
    /// Takes one answer in; returns the new verdict if it changed.
    pub(crate) fn note(&mut self, is_good: bool, config: &config::Health) -> Option<bool> {
        if is_good == self.is_healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if is_good {
            config.healthy
        } else {
            config.unhealthy
        };
        if self.against < needed {
            return None;
        }
        *self = Self {
            is_healthy: is_good,
            against: 0,
        };
        Some(is_good)
    }
}

/// Checks one endpoint forever. Dropped with the control runtime.
pub(crate) async fn watch(endpoint: Arc<Endpoint>, config: config::Health) {
    let mut tracker = Tracker::default();
    let mut ticks = time::interval(config.interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let is_good = check(endpoint.address(), &config.path, config.timeout).await;
        match tracker.note(is_good, &config) {
            Some(true) => info!(endpoint = endpoint.address(), "endpoint healthy again"),
            Some(false) => warn!(endpoint = endpoint.address(), "endpoint unhealthy"),
            None => continue,
        }
        endpoint.set_healthy(is_good);
    }
}

async fn check(address: &str, path: &str, timeout: Duration) -> bool {
    matches!(
        time::timeout(timeout, ask(address, path)).await,
        Ok(Some(true))
    )
}

/// Whether a GET answers 2xx or 3xx; `None` if it does not answer.
async fn ask(address: &str, path: &str) -> Option<bool> {
    let stream = connect::connect(address).await.ok()?;
    // A path is no host (RFC 9110, section 7.2).
    let host = match address.starts_with(config::UNIX) {
        true => "localhost",
        false => address,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path)
        .header(HOST, host)
        .header("user-agent", "penstock-health")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let answer = sender.send_request(request);
    tokio::select! {
        response = answer => {
            let status = response.ok()?.status();
            Some(status.is_success() || status.is_redirection())
        }
        _ = connection => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_of_answers_changes_the_verdict() {
        let config = config::Health {
            path: "/".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
        };
        let mut tracker = Tracker::default();
        let verdicts: Vec<Option<bool>> = [
            false, false, true, false, false, false, true, false, true, true,
        ]
        .map(|is_good| tracker.note(is_good, &config))
        .to_vec();
        assert_eq!(verdicts[5], Some(false));
        assert_eq!(verdicts[9], Some(true));
        assert_eq!(verdicts.iter().flatten().count(), 2);
    }
}
