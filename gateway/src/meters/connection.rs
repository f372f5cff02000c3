//! Series of the clients' connections, as one core counts them.

use metrics::{counter, gauge};

use super::{LocalCounter, LocalGauge};
use crate::http::Protocol;

/// Series of the clients' connections.
#[derive(Debug)]
pub struct ConnectionMeters {
    /// Requests whose response is not complete.
    pub in_flight: LocalGauge,
    open: [LocalGauge; 2],
    total: [LocalCounter; 2],
    /// Connections beyond an address's share.
    pub refused: LocalCounter,
    /// TLS handshakes that succeeded.
    pub handshakes_ok: LocalCounter,
    /// TLS handshakes that did not.
    pub handshakes_failed: LocalCounter,
}

impl ConnectionMeters {
    pub(super) fn new() -> Self {
        let handshake = |result: &'static str| {
            LocalCounter::new(counter!("penstock_tls_handshakes_total", "result" => result))
        };
        let meters = Self {
            in_flight: LocalGauge::new(gauge!("penstock_requests_in_flight")),
            open: Protocol::ALL.map(|protocol| {
                LocalGauge::new(gauge!("penstock_connections_open", "protocol" => protocol.label()))
            }),
            total: Protocol::ALL.map(|protocol| {
                LocalCounter::new(
                    counter!("penstock_connections_total", "protocol" => protocol.label()),
                )
            }),
            refused: LocalCounter::new(counter!("penstock_connections_refused_total")),
            handshakes_ok: handshake("ok"),
            handshakes_failed: handshake("failed"),
        };
        meters.open.iter().for_each(LocalGauge::create);
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
        self.open.iter().for_each(LocalGauge::flush);
        self.total.iter().for_each(LocalCounter::flush);
        self.refused.flush();
        self.handshakes_ok.flush();
        self.handshakes_failed.flush();
    }
}
