//! Carts in a scenario: what is sent, what is remembered, what the checker and the oracle make of it.

use loadtest::oracle::{Allow, Rule, verify_file};
use loadtest::{Outcome, Report, Scenario};

use crate::support::{Faults, Running, constant, run_and_check, scenario, serve_skus};

const SKUS: &[&str] = &["shoe", "sock", "lace"];

/// Half of 150 purchases are carts of two of the three skus.
fn carts(server: &Running) -> Scenario {
    let mut s = scenario(server, constant(300.0, 500));
    let sale = s.sale.as_mut().unwrap();
    sale.skus = SKUS.iter().map(|sku| (*sku).to_owned()).collect();
    sale.cart_percent = 50.0;
    s.generator.threads = 2;
    s.retry.percent = 30.0;
    s
}

fn broken(report: &Report) -> Vec<&str> {
    let findings = &report.reconciliation.as_ref().unwrap().findings;
    findings.iter().map(|found| found.rule.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn carts_are_bought_whole_and_the_history_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults {
        unknown_every: Some(5),
        ..Faults::default()
    };
    let server = serve_skus(30, SKUS, faults).await;
    let mut s = carts(&server);
    let path = folder.path().join("h.jsonl");
    s.history_file = Some(path.clone());
    let report = run_and_check(&s).await;
    assert_eq!(report.exit_code, 0, "{report:?}");
    assert!(report.count(Outcome::SoldOut) > 10, "{report:?}");

    let (verdict, _) = verify_file(&path, Allow::at, |_, _| {}).unwrap();
    assert!(verdict.held, "{:#?}", verdict.violations);
    let ledger = report.reconciliation.as_ref().unwrap().ledger_orders;
    assert_eq!(verdict.tally.rows, ledger);
    assert_eq!(
        verdict.tally.acknowledged, ledger,
        "an order a line, each of them told of"
    );
    assert!(
        report.history.acknowledged < ledger,
        "fewer purchases than orders: some were carts"
    );
    let text = std::fs::read_to_string(&path).unwrap();
    for f in ["\"f\":\"cart_buy\"", "\"f\":\"cart_poll\"", "\"f\":\"buy\""] {
        assert!(text.contains(f), "{f}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_tears_carts_is_caught_by_the_checker_and_by_the_oracle() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults {
        tears_carts: true,
        ..Faults::default()
    };
    let server = serve_skus(20, SKUS, faults).await;
    let mut s = carts(&server);
    let path = folder.path().join("h.jsonl");
    s.history_file = Some(path.clone());
    let report = run_and_check(&s).await;
    assert_eq!(broken(&report), ["partial_cart"], "{report:?}");
    assert!(report.reconciliation.as_ref().unwrap().partial_carts > 0);
    let (verdict, _) = verify_file(&path, Allow::at, |_, _| {}).unwrap();
    assert!(
        verdict.breaks(Rule::PartialCart),
        "{:#?}",
        verdict.violations
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_oversold_lines_of_carts_are_counted_by_their_sku() {
    let faults = Faults {
        lose_every: Some(7),
        ..Faults::default()
    };
    let server = serve_skus(30, SKUS, faults).await;
    let report = run_and_check(&carts(&server)).await;
    let found = broken(&report);
    assert!(
        found.contains(&"lost") && found.contains(&"partial_cart"),
        "{found:?}"
    );
    assert!(!found.contains(&"oversold"), "{found:?}");

    let faults = Faults {
        oversell: 2,
        ..Faults::default()
    };
    let server = serve_skus(10, SKUS, faults).await;
    let report = run_and_check(&carts(&server)).await;
    assert_eq!(
        report.reconciliation.as_ref().unwrap().oversold,
        6,
        "two of each sku"
    );
    assert!(!broken(&report).contains(&"partial_cart"), "{report:?}");
}
