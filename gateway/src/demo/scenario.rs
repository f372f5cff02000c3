//! Who comes to the demo's sale, and what they do.

use std::time::Duration;

use loadtest::scenario::{
    Admin, Bots, Buyers, PageViews, Pay, Protocol, Retry, Sale, Scenario, Shape, Trust,
};

use super::{DemoArgs, PRICE_MINOR, SALE, SKU, shop::PRODUCT_PATH};
use crate::compose::edge::Addresses;

/// From T0 to the last arrival.
const PEAK: Duration = Duration::from_secs(14);
/// How long the generator may be late: it shares the cores with what it tests, and says how late it was.
const SCHEDULE_LAG: Duration = Duration::from_secs(2);

pub(super) fn scenario(
    args: &DemoArgs,
    addresses: &Addresses,
    certificate: String,
    api_key: &str,
) -> Scenario {
    let shape = Shape::Spike {
        duration: PEAK,
        first_share: 0.5,
        first_within: Duration::from_secs(2),
        warm_up: Duration::from_secs(1),
        warm_up_rate: 200.0,
    };
    let mut scenario = Scenario::new(format!("https://{}", addresses.listeners[0]), shape);
    scenario.seed = args.seed;
    scenario.target.protocol = Protocol::H2;
    scenario.target.trust = Trust::CaPem(certificate);
    scenario.target.server_name = Some("localhost".to_owned());
    scenario.generator.connections = 16;
    scenario.generator.max_in_flight = 50_000;
    scenario.generator.request_timeout = Duration::from_secs(10);
    scenario.admin = Some(Admin {
        url: format!("http://{}", addresses.admin),
        token_file: None,
    });
    scenario.profile.poisson = true;
    scenario.sale = Some(Sale {
        id: SALE.to_owned(),
        skus: vec![SKU.to_owned()],
        ..Sale::default()
    });
    scenario.buyers = Buyers {
        count: args.buyers,
        header: "x-buyer-id".to_owned(),
        address_header: None,
    };
    scenario.retry = Retry {
        percent: 10.0,
        concurrent_percent: 50.0,
        within: Duration::from_secs(3),
    };
    scenario.bots = Bots {
        count: 50,
        burst: 20,
        within: Duration::from_secs(2),
    };
    scenario.page_views = PageViews {
        paths: vec!["/".to_owned(), PRODUCT_PATH.to_owned()],
        share: 0.1,
    };
    scenario.pay = Some(Pay {
        share_percent: 75.0,
        decline_percent: 5.0,
        api_key: api_key.to_owned(),
        amount_minor: PRICE_MINOR,
        currency: "usd".to_owned(),
        delay: Duration::from_millis(500),
        delay_spread: Duration::from_secs(3),
    });
    scenario.thresholds.max_schedule_lag = SCHEDULE_LAG;
    scenario.reconcile.settle_timeout = Duration::from_secs(20);
    scenario.reconcile.returns_timeout = Duration::from_secs(20);
    scenario
}
