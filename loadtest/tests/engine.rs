//! The engine against a real socket: what it sends, what it measures, and what it does when the server misbehaves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loadtest::scenario::{Protocol, Shape, Trust};
use loadtest::{Outcome, Scenario};
use tokio::time::Instant;

use crate::support::{
    Faults, Running, constant, run, run_and_check, scenario, serve, serve_h2_tls, spike,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_planned_request_is_sent_and_accounted_for() {
    let server = serve(100, Faults::default()).await;
    let mut s = scenario(&server, spike());
    s.buyers.count = 600;
    s.retry.percent = 10.0;
    s.retry.within = Duration::from_millis(300);
    s.page_views.share = 0.25;
    s.page_views.paths = vec!["/".into(), "/shoes".into()];
    let report = run_and_check(&s).await;

    assert_eq!(report.exit_code, 0, "{report:?}");
    assert_eq!(report.count(Outcome::PageOk), 200);
    assert_eq!(server.pages(), 200);
    assert_eq!(report.count(Outcome::Accepted), 100);
    assert_eq!(report.history.purchases, 600);
    assert!((30..=90).contains(&report.history.repeated), "{report:?}");
    let ended: u64 = report.outcomes.iter().map(|one| one.count).sum();
    assert_eq!(ended, report.planned);
    assert_eq!(report.planned, 800 + report.history.repeated);
    assert_eq!(report.requests, report.planned);
    assert_eq!(server.purchases(), 600 + report.history.repeated);
    // Copies of accepted requests are replays of the same order.
    let acknowledged = report.count(Outcome::Accepted) + report.count(Outcome::Replayed);
    assert!(acknowledged >= 100);
    assert_eq!(report.history.acknowledged, 100);
    let width = |at_s: f64| (report.wall_s - at_s).min(0.5);
    let points: f64 = report
        .timeline
        .iter()
        .map(|p| p.done_per_s * width(p.at_s))
        .sum();
    // The wall time is told to a millisecond.
    assert!((points - report.planned as f64).abs() < 3.0, "{points}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_it_is_due() {
    let server = serve(10, Faults::default()).await;
    let mut s = scenario(&server, constant(100.0, 600));
    s.generator.connections = 4;
    let begin = Instant::now();
    let report = run_and_check(&s).await;
    // The last of 60 arrivals is due at 590 ms.
    assert!(begin.elapsed() >= Duration::from_millis(590));
    assert!(report.wall_s >= 0.59, "{}", report.wall_s);
    assert!(report.achieved_rate <= report.target_rate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_shows_in_the_latency_from_the_planned_instant() {
    let now = Instant::now();
    let stall = (
        now + Duration::from_millis(300),
        now + Duration::from_millis(1200),
    );
    let faults = Faults {
        stall: Some(stall),
        ..Faults::default()
    };
    let server = serve(10_000, faults).await;
    let mut s = scenario(&server, constant(400.0, 1000));
    s.generator.connections = 2;
    let report = run_and_check(&s).await;

    let accepted = report.outcome(Outcome::Accepted).unwrap();
    assert_eq!(accepted.count, 400);
    // Two requests stood still on the wire; the others waited for them, and only the planned instant tells.
    assert!(accepted.latency.p50_ms > 200.0, "{accepted:?}");
    assert!(accepted.latency_uncorrected.p90_ms < 200.0, "{accepted:?}");
    assert!(
        report.connection_wait.p99_ms > 200.0,
        "{:?}",
        report.connection_wait
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_by_the_server_are_replaced_without_an_error() {
    let faults = Faults {
        close_after: Some(5),
        ..Faults::default()
    };
    let server = serve(10_000, faults).await;
    let mut s = scenario(&server, constant(300.0, 1000));
    s.generator.connections = 3;
    // Without the checker every connection the server saw is the generator's. A close that crosses a request is the server's right.
    s.thresholds.max_broken_share = None;
    s.admin = None;
    let report = run_and_check(&s).await;

    assert_eq!(report.exit_code, 0, "{report:?}");
    assert_eq!(report.error_share, 0.0);
    assert_eq!(report.history.acknowledged, 300);
    assert!(
        report.connections.reconnects > 5,
        "{:?}",
        report.connections
    );
    assert_eq!(server.connections(), report.connections.opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_are_limited_and_buyers_are_not() {
    let faults = Faults {
        limit_per_buyer: Some(3),
        ..Faults::default()
    };
    let server = serve(10_000, faults).await;
    let mut s = scenario(&server, spike());
    s.buyers.count = 200;
    s.bots.count = 4;
    s.bots.burst = 25;
    let report = run_and_check(&s).await;
    assert_eq!(report.count(Outcome::Limited), 4 * (25 - 3));
    assert_eq!(report.count(Outcome::Accepted), 200 + 4 * 3);
    // Three units each: the checker sees that the bots hold more than two.
    assert_eq!(report.reconciliation.unwrap().over_limit, 4);
    assert_eq!(report.exit_code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_over_tls_shares_few_connections() {
    let server = serve_h2_tls(50, Faults::default()).await;
    let mut s = h2(&server);
    s.generator.connections = 2;
    s.buyers.count = 500;
    let report = run_and_check(&s).await;
    assert_eq!(report.exit_code, 0, "{report:?}");
    assert_eq!(report.count(Outcome::Accepted), 50);
    assert_eq!(report.count(Outcome::SoldOut), 450);
    assert_eq!(server.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn goaway_is_followed_without_an_error() {
    let faults = Faults {
        goaway_after: Some(40),
        ..Faults::default()
    };
    let server = serve_h2_tls(10_000, faults).await;
    let mut s = h2(&server);
    s.generator.connections = 1;
    s.buyers.count = 500;
    let report = run_and_check(&s).await;
    assert_eq!(report.error_share, 0.0, "{report:?}");
    assert_eq!(report.history.acknowledged, 500);
    assert!(
        report.connections.reconnects >= 2,
        "{:?}",
        report.connections
    );
}

fn h2(server: &Running) -> Scenario {
    let mut s = scenario(server, spike());
    s.target.protocol = Protocol::H2;
    s.target.trust = Trust::CaPem(server.ca_pem.clone().unwrap());
    s
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_certificate_is_a_failure_to_connect() {
    let server = serve_h2_tls(1, Faults::default()).await;
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut s = h2(&server);
    s.target.trust = Trust::CaPem(other.cert.pem());
    let error = loadtest::run(&s, |_| {}, std::future::pending())
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("TLS handshake failed"),
        "{error:#}"
    );
    s.target.trust = Trust::Insecure;
    assert_eq!(run(&s).await.report.count(Outcome::Accepted), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_answer_is_a_timeout_of_its_own_kind() {
    let faults = Faults {
        swallow_every: Some(20),
        ..Faults::default()
    };
    let server = serve(10_000, faults).await;
    let mut s = scenario(&server, constant(200.0, 500));
    s.generator.request_timeout = Duration::from_millis(400);
    let report = run_and_check(&s).await;
    let timeout = report.outcome(Outcome::Timeout).unwrap();
    assert_eq!(timeout.count, 5);
    assert!(timeout.latency.p50_ms >= 400.0, "{timeout:?}");
    assert_eq!(report.count(Outcome::Accepted), 95);
    // Their orders exist: unanswered, so neither phantom nor lost.
    assert_eq!(report.exit_code, 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_the_bound_in_flight_is_shed_and_counted() {
    let now = Instant::now();
    let faults = Faults {
        stall: Some((now, now + Duration::from_millis(900))),
        ..Faults::default()
    };
    let server = serve(10_000, faults).await;
    let mut s = scenario(&server, constant(500.0, 400));
    s.generator.max_in_flight = 20;
    let report = run_and_check(&s).await;
    assert_eq!(report.count(Outcome::Shed), 200 - 20, "{report:?}");
    assert_eq!(report.count(Outcome::Accepted), 20);
    assert_eq!(report.verdict, loadtest::report::Verdict::ServerBound);
    assert!(report.error_share > 0.8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_answer_is_asked_about_until_it_is_known() {
    let faults = Faults {
        unknown_every: Some(10),
        ..Faults::default()
    };
    let server = serve(10_000, faults).await;
    let report = run_and_check(&scenario(&server, constant(100.0, 500))).await;
    assert_eq!(report.count(Outcome::Unknown), 5);
    assert_eq!(report.polls.sent, 10);
    assert_eq!(report.polls.settled, 5);
    assert_eq!(report.history.acknowledged, 50);
    assert_eq!(report.exit_code, 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_orders_is_paid_and_some_cards_are_declined() {
    let server = serve(10_000, Faults::default()).await;
    let mut s = scenario(&server, constant(200.0, 500));
    s.pay = Some(loadtest::scenario::Pay {
        share_percent: 60.0,
        decline_percent: 20.0,
        api_key: "sk_test".into(),
        amount_minor: 4900,
        currency: "usd".into(),
        delay: Duration::from_millis(20),
        delay_spread: Duration::from_millis(20),
    });
    let report = run_and_check(&s).await;
    let (paid, declined) = (report.count(Outcome::Paid), report.count(Outcome::Declined));
    assert!(
        (35..=85).contains(&(paid + declined)),
        "{paid} + {declined}"
    );
    assert!(declined > 0 && paid > declined, "{paid} and {declined}");
    assert_eq!(report.reconciliation.as_ref().unwrap().paid, paid);
    assert_eq!(report.exit_code, 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_ends_soon_with_a_partial_report() {
    let server = serve(10_000, Faults::default()).await;
    let s = scenario(&server, constant(100.0, 60_000));
    let begin = Instant::now();
    let stop = async {
        while server.purchases() < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let report = loadtest::run_and_check(&s, |_| {}, stop).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(report.interrupted);
    assert!(report.completed > 0);
    assert_eq!(report.exit_code, 130);
    assert!(report.reconciliation.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_is_a_failure_and_not_a_report() {
    let server = serve(1, Faults::default()).await;
    let mut s = scenario(&server, spike());
    s.target.url = "http://127.0.0.1:1".into();
    let error = loadtest::run(&s, |_| {}, std::future::pending())
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("cannot connect to 127.0.0.1:1"),
        "{error:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_threads_send_what_one_would() {
    let server = serve(50, Faults::default()).await;
    let mut s = scenario(&server, spike());
    s.buyers.count = 301;
    s.generator.threads = 2;
    s.bots.count = 3;
    s.bots.burst = 2;
    let report = run_and_check(&s).await;
    assert_eq!(report.exit_code, 0, "{report:?}");
    assert_eq!(report.planned, 301 + 6);
    assert_eq!(report.history.purchases, 301 + 6);
    assert_eq!(report.count(Outcome::Accepted), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_and_ends_complete() {
    let server = serve(50, Faults::default()).await;
    let s = scenario(&server, constant(100.0, 1300));
    let mut told = Vec::new();
    let output = loadtest::run(
        &s,
        |progress| told.push(progress.clone()),
        std::future::pending(),
    )
    .await
    .unwrap();
    assert!(told.len() >= 2);
    assert!(
        told.windows(2)
            .all(|two| two[0].done_total() <= two[1].done_total())
    );
    assert_eq!(told.last().unwrap().done_total(), output.report.planned);
}

#[tokio::test(flavor = "multi_thread")]
async fn t0_falls_on_the_wall_clock_instant_asked_for() {
    let server = serve(50, Faults::default()).await;
    let mut s = scenario(&server, spike());
    s.buyers.count = 20;
    let Shape::Spike { warm_up, .. } = &mut s.profile.shape else {
        unreachable!("spike() makes a spike");
    };
    *warm_up = Duration::from_millis(200);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let t0_ms = now.as_millis() as i64 + 600;
    s.profile.t0_unix_ms = Some(t0_ms);
    let report = run_and_check(&s).await;
    let late_ms = report.started_unix_ms + 200 - t0_ms;
    assert!((0..=5).contains(&late_ms), "{late_ms}");
    assert!(report.notes.is_empty(), "{:?}", report.notes);

    s.profile.t0_unix_ms = Some(t0_ms - 60_000);
    s.seed = 2;
    let report = run_and_check(&s).await;
    assert!(
        report.notes[0].contains("in the past"),
        "{:?}",
        report.notes
    );
}

#[test]
fn a_run_can_be_spawned_on_any_runtime() {
    fn is_send<T: Send>(_: &T) {}
    let s = Scenario::new("http://127.0.0.1:1", constant(1.0, 1));
    is_send(&loadtest::run_and_check(&s, |_| {}, std::future::pending()));
}

/// Broke: every second request was dropped, sent again in silence, and the run was flawless.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_dropped_are_not_a_flawless_run() {
    let faults = Faults {
        drop_every: Some(2),
        ..Faults::default()
    };
    let server = serve(10_000, faults).await;
    let report = run_and_check(&scenario(&server, constant(200.0, 500))).await;
    assert!(report.broken_share > 0.2, "{}", report.broken_share);
    assert_eq!(report.exit_code, 3, "{report:?}");
}

/// Broke: a run of minutes ended with the news that nothing had been on sale.
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_is_not_there_is_noticed_before_the_run() {
    let server = serve(10, Faults::default()).await;
    let mut s = scenario(&server, constant(100.0, 60_000));
    s.sale.as_mut().unwrap().id = "nothing".into();
    let begin = Instant::now();
    let error = loadtest::run_and_check(&s, |_| {}, std::future::pending())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no sale \"nothing\""), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}
