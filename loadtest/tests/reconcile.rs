//! Servers that lie: the checker must find out over the wire, and the exit code must say so.

use crate::support::{Faults, constant, run_and_check, scenario, serve};

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_server_passes() {
    let server = serve(30, Faults::default()).await;
    let report = run_and_check(&scenario(&server, constant(200.0, 500))).await;
    assert_eq!(report.exit_code, 0, "{report:?}");
    let found = report.reconciliation.as_ref().unwrap();
    // More rows than a page holds.
    assert_eq!(found.ledger_orders, 30);
    assert_eq!(found.foreign_orders, 0);
    let summary = report.summary();
    assert_eq!(
        (summary.stock, summary.accepted, summary.settled),
        (30, 30, 30)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_oversells_is_caught() {
    let faults = Faults {
        oversell: 3,
        ..Faults::default()
    };
    let server = serve(30, faults).await;
    let report = run_and_check(&scenario(&server, constant(200.0, 500))).await;
    let found = report.reconciliation.as_ref().unwrap();
    assert_eq!(found.oversold, 3);
    assert_eq!(report.exit_code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loses_orders_is_caught() {
    let faults = Faults {
        lose_every: Some(10),
        ..Faults::default()
    };
    let server = serve(30, faults).await;
    let report = run_and_check(&scenario(&server, constant(200.0, 500))).await;
    let found = report.reconciliation.as_ref().unwrap();
    assert_eq!(found.lost, 3);
    assert_eq!(report.exit_code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_api_that_cannot_be_asked_fails_the_run() {
    let server = serve(30, Faults::default()).await;
    let mut s = scenario(&server, constant(100.0, 200));
    s.admin.as_mut().unwrap().url = "http://127.0.0.1:1".into();
    let report = run_and_check(&s).await;
    assert_eq!(report.exit_code, 1);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.starts_with("not reconciled"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_token_is_read_from_its_file() {
    let faults = Faults {
        admin_token: Some("Bearer let-me-in".into()),
        ..Faults::default()
    };
    let server = serve(30, faults).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "let-me-in\n").unwrap();
    let mut s = scenario(&server, constant(100.0, 200));
    assert_eq!(run_and_check(&s).await.exit_code, 1);
    s.admin.as_mut().unwrap().token_file = Some(file);
    s.seed = 2;
    assert_eq!(run_and_check(&s).await.exit_code, 0);
}
