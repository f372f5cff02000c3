//! What a scenario is where it says nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Bots, Buyers, Generator, PageViews, ReconcileWait, Retry, Sale, Thresholds};

/// A server that restarts its connections breaks a few under their requests; one in twenty is a fault.
const DEFAULT_MAX_BROKEN: f64 = 0.05;
/// Enough for tens of thousands of requests per second on loopback, few enough not to be the spike themselves.
const DEFAULT_CONNECTIONS: usize = 64;
/// What most servers allow (hyper, nginx and Envoy: 100 to 200).
const DEFAULT_STREAMS: usize = 100;
/// The least that is more than a single purchase.
const DEFAULT_CART_SKUS: usize = 2;
/// Ten seconds of 2,000 waiting buyers per second.
const DEFAULT_MAX_IN_FLIGHT: usize = 20_000;
/// About as long as a buyer looks at a spinner.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond this the arrivals no longer have the planned shape at the scale of a spike's first second.
const DEFAULT_MAX_LAG: Duration = Duration::from_millis(100);
/// Workers that need longer than this to catch up after a peak are behind for good.
const DEFAULT_SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

impl Default for Generator {
    fn default() -> Self {
        Generator {
            threads: 1,
            connections: DEFAULT_CONNECTIONS,
            streams_per_connection: DEFAULT_STREAMS,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
        }
    }
}

impl Default for Sale {
    /// No sale yet: its id and skus are to be filled in.
    fn default() -> Self {
        Sale {
            id: String::new(),
            skus: Vec::new(),
            quantity: 1,
            cart_percent: 0.0,
            cart_skus: DEFAULT_CART_SKUS,
        }
    }
}

impl Default for Buyers {
    fn default() -> Self {
        Buyers {
            count: 1000,
            header: "x-buyer-id".into(),
            address_header: None,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            percent: 0.0,
            concurrent_percent: 50.0,
            within: Duration::from_secs(2),
        }
    }
}

impl Default for Bots {
    fn default() -> Self {
        Bots {
            count: 0,
            burst: 0,
            within: Duration::from_secs(1),
        }
    }
}

impl Default for PageViews {
    fn default() -> Self {
        PageViews {
            paths: vec!["/".into()],
            share: 0.0,
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            p99: BTreeMap::new(),
            max_error_share: None,
            max_broken_share: Some(DEFAULT_MAX_BROKEN),
            max_schedule_lag: DEFAULT_MAX_LAG,
        }
    }
}

impl Default for ReconcileWait {
    fn default() -> Self {
        ReconcileWait {
            settle_timeout: DEFAULT_SETTLE_TIMEOUT,
            returns_timeout: Duration::ZERO,
        }
    }
}
