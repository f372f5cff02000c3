//! One request from header to last byte. Dropped, it counts: as it ended, or as aborted if it did not.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::{Method, StatusCode, Uri};
use tokio::time::Instant;

use super::Log;
use crate::{
    access_log::Line,
    connection::Client,
    exchange::HeldBack,
    meters::{Outcome, RouteMeters},
    route::{Route, Routes},
};

/// A request that is being watched.
#[derive(Debug)]
pub(super) struct Watch {
    log: Rc<Log>,
    pub(super) client: Rc<Client>,
    started: Instant,
    route: Option<Rc<Route>>,
    no_name: Arc<str>,
    no_meters: Rc<RouteMeters>,
    sample_refusals: u64,
    asked: Option<Asked>,
    status: Option<StatusCode>,
    /// When the response's header was there.
    answered: Instant,
    /// How much of the time was no latency.
    held_back: Option<HeldBack>,
    pub(super) is_complete: bool,
    pub(super) bytes: u64,
}

/// What the access log says about the request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) client: IpAddr,
}

impl Watch {
    pub(super) fn begin(
        log: &Rc<Log>,
        client: &Rc<Client>,
        started: Instant,
        routes: &Routes,
        route: Option<Rc<Route>>,
        asked: Option<Asked>,
    ) -> Self {
        log.meters.in_flight.up();
        client.in_flight.set(client.in_flight.get() + 1);
        client.has_served.set(true);
        Self {
            log: Rc::clone(log),
            client: Rc::clone(client),
            started,
            route,
            no_name: Arc::clone(&routes.no_name),
            no_meters: Rc::clone(&routes.no_meters),
            sample_refusals: routes.sample_refusals,
            asked,
            status: None,
            answered: started,
            held_back: None,
            is_complete: false,
            bytes: 0,
        }
    }

    /// The response's header is there.
    pub(super) fn answered(&mut self, status: StatusCode, held_back: Option<HeldBack>) {
        self.status = Some(status);
        self.held_back = held_back;
        self.answered = Instant::now();
    }

    fn write(&mut self, outcome: Outcome, now: Instant, took: Duration) {
        let Some(lines) = &self.log.lines else {
            return;
        };
        let is_refusal = matches!(
            self.status,
            Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT)
        );
        let mut sampled = 1;
        if is_refusal {
            let seen = self.log.refusals.get();
            self.log.refusals.set(seen + 1);
            sampled = self.sample_refusals;
            if !seen.is_multiple_of(sampled) {
                return;
            }
        }
        let Some(asked) = self.asked.take() else {
            return;
        };
        let name = self
            .route
            .as_ref()
            .map_or(&self.no_name, |route| &route.name);
        lines.push(Line {
            at: now,
            client: asked.client,
            method: asked.method,
            uri: asked.uri,
            protocol: self.client.protocol,
            route: Arc::clone(name),
            status: self.status,
            outcome,
            bytes: self.bytes,
            took,
            sampled,
        });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.started);
        let outcome = match self.status {
            Some(status) if self.is_complete => Outcome::of(status),
            _ => Outcome::Aborted,
        };
        // What a buyer waited for on purpose would look like a slow server; the log has the whole time.
        let latency = match self.held_back {
            None => took,
            Some(HeldBack::For(held)) => took.saturating_sub(held),
            Some(HeldBack::Stream) => self.answered.saturating_duration_since(self.started),
        };
        let meters = self
            .route
            .as_ref()
            .map_or(&self.no_meters, |route| &route.meters);
        meters.request(outcome, self.client.protocol, latency);
        self.log.meters.in_flight.down();
        self.client.in_flight.set(self.client.in_flight.get() - 1);
        self.client.idle_since.set(now);
        self.write(outcome, now, took);
    }
}
