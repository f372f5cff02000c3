//! What operators see: the admin listener, metrics, logs, configuration files.

use std::collections::BTreeMap;

use gateway::{
    admin::{Part, PartState, with_refusals},
    compose::edge::{App, AppError, Handlers, Late},
};

use crate::support::{Gateway, Origin, body, config, raw, shop, status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_series_is_there_before_the_first_request() {
    let text = shop(&[Origin::nobody().await], "").replace("\"shop\"", "\"quiet\"");
    let gateway = Gateway::start(&format!(
        "{text}[[limit]]\nname = \"quiet\"\nkey = \"ip\"\nrate = \"1/s\"\n"
    ))
    .await;
    gateway
        .eventually_metric("penstock_upstream_retries_total{upstream=\"quiet\"}", 0.0)
        .await;
    gateway
        .eventually_metric("penstock_ratelimit_keys{limiter=\"quiet\"}", 0.0)
        .await;
    let page = gateway.admin("/metrics").await;
    for series in [
        "penstock_build_info{version=",
        "penstock_requests_total{route=\"quiet\",outcome=\"aborted\",protocol=\"h2\"} 0",
        "penstock_requests_total{route=\"none\",outcome=\"client_error\",protocol=\"h1\"}",
        "penstock_request_duration_seconds_bucket{route=\"quiet\",outcome=\"ok\",le=\"0.001\"} 0",
        "penstock_request_duration_seconds_bucket{route=\"quiet\",outcome=\"ok\",le=\"10\"} 0",
        "penstock_requests_in_flight ",
        "penstock_connections_open{protocol=\"h2\"}",
        "penstock_connections_total{protocol=\"h1\"}",
        "penstock_tls_handshakes_total{result=\"failed\"}",
        "penstock_ratelimit_decisions_total{limiter=\"quiet\",decision=\"allowed\"} 0",
        "penstock_circuit_breaker_state{upstream=\"quiet\",endpoint=",
        "penstock_circuit_breaker_transitions_total{upstream=\"quiet\",endpoint=",
        "penstock_circuit_breaker_rejected_total{upstream=\"quiet\"} 0",
        "penstock_upstream_requests_total{upstream=\"quiet\",outcome=\"unavailable\"} 0",
        "penstock_upstream_duration_seconds_bucket{upstream=\"quiet\",le=\"0.001\"} 0",
        "penstock_upstream_connections{upstream=\"quiet\",state=\"idle\"} 0",
        "penstock_upstream_connects_total{upstream=\"quiet\",result=\"failed\"} 0",
        "penstock_access_log_dropped_total",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(page.contains(series), "{series} is missing");
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_family_says_what_it_is() {
    let gateway = Gateway::start(&shop(&[Origin::nobody().await], "")).await;
    let page = gateway.admin("/metrics").await;
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(
            page.contains(&format!("# HELP {name} ")),
            "{name} has no HELP"
        );
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scraper_gets_the_format_that_it_asks_for() {
    let gateway = Gateway::start(&shop(&[Origin::nobody().await], "")).await;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n";
    let answer = raw(gateway.addresses.admin, request).await;
    for part in [
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n",
        "# TYPE penstock_requests counter\n",
        "# UNIT penstock_request_duration_seconds seconds\n",
        "# EOF\n",
    ] {
        assert!(answer.contains(part), "{part} is missing");
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_by_route_outcome_and_protocol() {
    let origin = Origin::named("shop").await;
    let text = shop(&[origin.address], "").replace("\"shop\"", "\"counted\"");
    let gateway = Gateway::start(&text).await;
    for _ in 0..5 {
        gateway.get("/").await;
    }
    let labels = "route=\"counted\",outcome=\"ok\"";
    gateway
        .eventually_metric(
            &format!("penstock_requests_total{{{labels},protocol=\"h1\"}}"),
            5.0,
        )
        .await;
    gateway
        .eventually_metric(
            &format!("penstock_request_duration_seconds_count{{{labels}}}"),
            5.0,
        )
        .await;
    gateway
        .eventually_metric(
            "penstock_upstream_requests_total{upstream=\"counted\",outcome=\"ok\"}",
            5.0,
        )
        .await;
    gateway
        .eventually_metric(
            "penstock_upstream_connections{upstream=\"counted\",state=\"active\"}",
            0.0,
        )
        .await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_asks_for_its_token_and_probes_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let text = format!(
        "[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n
         [[route]]\npath = \"/\"\nhandler = \"redirect\"\nto = \"https\"\n
         [admin]\naddress = \"127.0.0.1:0\"\ntoken_file = \"{}\"\n",
        token.display()
    );
    let is_settling = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = std::sync::Arc::clone(&is_settling);
    let handlers = Handlers {
        admin: Some(Late::from(
            axum::Router::new().route("/admin/v1/sales", axum::routing::get(async || "sales")),
        )),
        parts: vec![Part {
            name: "settlement",
            counts: true,
            state: std::sync::Arc::new(move || {
                match asked.load(std::sync::atomic::Ordering::SeqCst) {
                    true => PartState::Ready,
                    false => PartState::Failing("it rests".to_owned()),
                }
            }),
        }],
        ..Handlers::default()
    };
    let gateway = Gateway::start_as_is(&text, handlers).await;
    assert_eq!(status(&gateway.admin("/live").await), 200);
    assert_eq!(status(&gateway.admin("/metrics").await), 200);
    let unready = gateway.admin("/ready").await;
    assert_eq!(status(&unready), 503);
    assert!(unready.contains("\"settlement\""), "{unready}");
    is_settling.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(status(&gateway.admin("/ready").await), 200);

    assert_eq!(status(&gateway.admin("/admin/v1/sales").await), 401);
    assert_eq!(status(&gateway.admin("/admin/v1/nothing").await), 401);
    let with = async |token: &str| {
        let request = format!(
            "GET /admin/v1/sales HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        raw(gateway.addresses.admin, &request).await
    };
    assert_eq!(status(&with("wrong").await), 401);
    assert_eq!(body(&with("s3cret").await), "sales");
    gateway.stopped().await;
}

/// An admin listener with one call, with or without a token.
async fn admin_with(token: &str) -> Gateway {
    let handlers = Handlers {
        admin: Some(Late::from(with_refusals(axum::Router::new().route(
            "/admin/v1/sales",
            axum::routing::post(async |bytes: bytes::Bytes| bytes.len().to_string()),
        )))),
        ..Handlers::default()
    };
    let text = format!(
        "[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n
         [[route]]\npath = \"/\"\nhandler = \"redirect\"\nto = \"https\"\n
         [admin]\naddress = \"127.0.0.1:0\"\n{token}"
    );
    Gateway::start_as_is(&text, handlers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_answers_no_web_page() {
    let gateway = admin_with("").await;
    let call = async |headers: &str| {
        let request = format!(
            "POST /admin/v1/sales HTTP/1.1\r\n{headers}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
        );
        raw(gateway.addresses.admin, &request).await
    };
    for allowed in [
        "Host: localhost:9900",
        "Host: 127.0.0.1",
        "Host: [::1]:9900",
        "Host: localhost\r\nSec-Fetch-Site: none",
    ] {
        assert_eq!(body(&call(allowed).await), "2", "{allowed}");
    }
    for refused in [
        "Host: localhost\r\nOrigin: https://evil.example",
        "Host: localhost\r\nOrigin: null",
        "Host: localhost\r\nSec-Fetch-Site: cross-site",
        // A name that was pointed here after its page was loaded: no Origin, and of one site to the browser.
        "Host: evil.example:9900",
        "Host: evil.example:9900\r\nSec-Fetch-Site: same-origin",
    ] {
        let answer = call(refused).await;
        assert_eq!(status(&answer), 403, "{refused}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(body(&answer).contains("\"code\":\"cross_site\""));
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_the_admin_api_has_any_name_but_still_answers_no_web_page() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let gateway = admin_with(&format!("token_file = \"{}\"\n", token.display())).await;
    let call = async |more: &str| {
        let request = format!(
            "POST /admin/v1/sales HTTP/1.1\r\nHost: penstock.internal\r\nAuthorization: Bearer s3cret\r\n{more}Connection: close\r\nContent-Length: 2\r\n\r\nhi"
        );
        raw(gateway.addresses.admin, &request).await
    };
    assert_eq!(body(&call("").await), "2");
    assert_eq!(status(&call("Origin: https://evil.example\r\n").await), 403);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_admin_api_refuses_is_a_problem_document() {
    let gateway = admin_with("").await;
    let call = async |line: &str, framing: &str, sent: &str| {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}\r\n\r\n{sent}"
        );
        raw(gateway.addresses.admin, &request).await
    };
    let piece = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let streamed = call(
        "POST /admin/v1/sales",
        "Transfer-Encoding: chunked",
        &format!("{piece}1\r\nx\r\n0\r\n\r\n"),
    )
    .await;
    assert_eq!(status(&streamed), 413);
    for (line, framing, code) in [
        (
            "POST /admin/v1/sales",
            "Content-Length: 1048577",
            "body_too_large",
        ),
        (
            "PUT /admin/v1/sales",
            "Content-Length: 0",
            "method_not_allowed",
        ),
        ("GET /admin/v1/nothing", "Content-Length: 0", "not_found"),
        ("GET /nothing", "Content-Length: 0", "not_found"),
    ] {
        let answer = call(line, framing, "").await;
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(
            body(&answer).contains(&format!("\"code\":\"{code}\"")),
            "{answer}"
        );
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_has_a_line_per_request_and_samples_refusals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let origin = Origin::named("shop").await;
    let text = shop(&[origin.address], "").replace(
        "name = \"shop\"\nupstream",
        "name = \"logged\"\nlimits = [\"one\"]\nupstream",
    );
    let gateway = Gateway::start(&format!(
        "[log]\naccess = \"{}\"\nsample_refusals = 10\n[server]\nworkers = 1\n{text}
         [[limit]]\nname = \"one\"\nkey = \"ip\"\nrate = \"1/h\"\nburst = 2\n",
        path.display()
    ))
    .await;
    for _ in 0..22 {
        gateway.get("/page?secret=1").await;
    }
    gateway.stopped().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let mut by_status: BTreeMap<u64, Vec<serde_json::Value>> = BTreeMap::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        by_status
            .entry(line["status"].as_u64().unwrap())
            .or_default()
            .push(line);
    }
    assert_eq!(by_status[&200].len(), 2);
    assert_eq!(by_status[&200][0]["path"], "/page");
    assert_eq!(by_status[&200][0]["route"], "logged");
    assert_eq!(by_status[&200][0]["bytes"], 4);
    // 20 refusals, one line for ten.
    assert_eq!(by_status[&429].len(), 2);
    assert_eq!(by_status[&429][0]["sampled"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_an_error_not_a_second_listener() {
    let gateway = Gateway::start(&shop(&[Origin::nobody().await], "")).await;
    let text = format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"{}\"\n
         [[route]]\npath = \"/\"\nhandler = \"redirect\"\nto = \"https\"\n",
        gateway.address()
    );
    let second = App::try_new(config(&text), Handlers::default());
    assert!(matches!(second, Err(AppError::Bind { .. })));
    gateway.stopped().await;
}
