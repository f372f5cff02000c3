//! Series of the clients' connections, as one core counts them.

use metrics::{counter, gauge};

use super::{Level, Tally};
use crate::http::Protocol;

/// Series of the clients' connections.
#[derive(Debug)]
pub struct ConnectionMeters {
    /// Requests whose response is not complete.
    pub in_flight: Level,
    open: [Level; 2],
    total: [Tally; 2],
    /// Connections beyond an address's share.
    pub refused: Tally,
    /// TLS handshakes that succeeded.
    pub handshakes_ok: Tally,
    /// TLS handshakes that did not.
    pub handshakes_failed: Tally,
}

impl ConnectionMeters {
    pub(super) fn new() -> Self {
        let handshake = |result: &'static str| {
            Tally::new(counter!("penstock_tls_handshakes_total", "result" => result))
        };
        let meters = Self {
            in_flight: Level::new(gauge!("penstock_requests_in_flight")),
            open: Protocol::ALL.map(|protocol| {
                Level::new(gauge!("penstock_connections_open", "protocol" => protocol.label()))
            }),
            total: Protocol::ALL.map(|protocol| {
                Tally::new(counter!("penstock_connections_total", "protocol" => protocol.label()))
            }),
            refused: Tally::new(counter!("penstock_connections_refused_total")),
            handshakes_ok: handshake("ok"),
            handshakes_failed: handshake("failed"),
        };
        meters.open.iter().for_each(Level::create);
        meters.in_flight.create();
        meters
    }

    /// A connection has begun to speak HTTP.
    pub fn opened(&self, protocol: Protocol) {
        self.open[protocol as usize].up();
        self.total[protocol as usize].add();
    }

    /// A connection has ended.
    pub fn closed(&self, protocol: Protocol) {
        self.open[protocol as usize].down();
    }

    pub(super) fn flush(&self) {
        self.in_flight.flush();
        self.open.iter().for_each(Level::flush);
        self.total.iter().for_each(Tally::flush);
        self.refused.flush();
        self.handshakes_ok.flush();
        self.handshakes_failed.flush();
    }
}
