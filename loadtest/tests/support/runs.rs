//! Scenarios against that server, and running them.

use std::time::Duration;

use loadtest::scenario::{Admin, Sale, Shape};
use loadtest::{Report, RunOutput, Scenario};

use super::Running;

/// A scenario that sells `drop` on that server, which is its own admin API too.
pub fn scenario(server: &Running, shape: Shape) -> Scenario {
    let mut scenario = Scenario::new(server.url(), shape);
    scenario.generator.connections = 8;
    scenario.generator.request_timeout = Duration::from_secs(5);
    scenario.sale = Some(Sale {
        id: "drop".into(),
        skus: vec!["shoe".into()],
        ..Sale::default()
    });
    // A busy test machine is no fault of the generator.
    scenario.thresholds.max_schedule_lag = Duration::from_secs(30);
    if server.ca_pem.is_none() {
        scenario.admin = Some(Admin {
            url: server.url(),
            token_file: None,
        });
    }
    scenario
}

/// Runs without progress and without stopping.
pub async fn run(scenario: &Scenario) -> RunOutput {
    loadtest::run(scenario, |_| {}, std::future::pending())
        .await
        .unwrap()
}

/// Runs, reconciles and judges.
pub async fn run_and_check(scenario: &Scenario) -> Report {
    loadtest::run_and_check(scenario, |_| {}, std::future::pending())
        .await
        .unwrap()
}

/// A spike of that many buyers within a second.
pub fn spike() -> Shape {
    Shape::Spike {
        duration: Duration::from_secs(1),
        first_share: 0.8,
        first_within: Duration::from_millis(500),
        warm_up: Duration::ZERO,
        warm_up_rate: 0.0,
    }
}

/// That many requests per second for that many milliseconds.
pub fn constant(rate: f64, millis: u64) -> Shape {
    Shape::Constant {
        rate,
        duration: Duration::from_millis(millis),
    }
}
