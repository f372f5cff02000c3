//! Buyers who wait for news, through the real edge: TLS and HTTP/2, HTTP/1.1 in chunks, clients that leave, a drain.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use gateway::{
    compose::{Services, ServicesConfig},
    config::Role,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use seckill::{clock::WallClock, engine::SaleEngine, sale::NewSale};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Gateway, config, h2, header, raw, status, text, tls, within};

/// The edge's clocks are this short here, so that what they would cut is cut.
const EDGE_CLOCK: Duration = Duration::from_secs(1);

/// A gateway with a sale of 100 shoes, whose edge has the patience of [`EDGE_CLOCK`].
pub struct Shop {
    pub gateway: Gateway,
    pub engine: Arc<SaleEngine>,
    services: Services,
    _folder: TempDir,
}

impl Shop {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[log]\naccess = \"off\"\n\
             [server]\nworkers = 2\ntrusted_headers_from = [\"127.0.0.0/8\"]\n\
             idle_timeout = \"1s\"\nsend_timeout = \"1s\"\nheader_timeout = \"1s\"\nbody_timeout = \"1s\"\n\
             [[route]]\nname = \"orders\"\npath = \"/\"\nhandler = \"sales\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"self-signed\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n\
             [seckill]\nstore = \"embedded:{0}/journal\"\nledger = \"sqlite:{0}/ledger.db\"\njournal = \"plain\"\n",
            folder.path().display()
        );
        gateway::meters::install().unwrap();
        let parsed = config(&text);
        let clock: WallClock = Arc::new(|| UNIX_EPOCH.elapsed().unwrap().as_millis() as u64);
        let asked = ServicesConfig {
            sale: parsed.seckill.unwrap(),
            payments: None,
            role: Role::All,
            clock,
            accepts_clock: false,
        };
        let services = Services::start(asked).await.unwrap();
        let engine = services.engine().await.unwrap();
        let now = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let sale = serde_json::json!({
            "id": "spring", "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "10m",
            "buyer_limit": 1, "currency": "usd", "skus": [{"sku": "shoe", "stock": 100, "price_minor": 100}],
        });
        let sale: NewSale = serde_json::from_value(sale).unwrap();
        engine.create_sale(sale.check().unwrap()).await.unwrap();
        let gateway = Gateway::start_as_is(&text, services.handlers(&parsed.routes)).await;
        Self {
            gateway,
            engine,
            services,
            _folder: folder,
        }
    }

    /// Buys one shoe; the order's path.
    pub async fn buy(&self, buyer: &str) -> String {
        let body = "{\"sku\":\"shoe\"}";
        let request = format!(
            "POST /v1/sales/spring/orders HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nx-buyer-id: {buyer}\r\n\
             idempotency-key: 1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = raw(self.gateway.address(), &request).await;
        assert_eq!(status(&answer), 201, "{answer}");
        header(&answer, "location").unwrap().to_owned()
    }

    async fn cancel(&self, buyer: &str, path: &str) {
        let request = format!(
            "DELETE {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nx-buyer-id: {buyer}\r\n\r\n"
        );
        let answer = raw(self.gateway.address(), &request).await;
        assert_eq!(status(&answer), 200, "{answer}");
    }

    /// An HTTP/2 connection over TLS.
    async fn h2(&self) -> SendRequest<Empty<Bytes>> {
        h2(tls(&self.gateway, &[b"h2"]).await).await
    }

    /// Sends a GET over HTTP/1.1 and leaves the connection open.
    async fn h1(&self, path: &str, buyer: &str, more: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.gateway.address()).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nx-buyer-id: {buyer}\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    pub async fn close(self) {
        self.gateway.stopped().await;
        self.services.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_purchase_costs_store_and_database_is_counted_by_kind() {
    let shop = Shop::open().await;
    shop.buy("counted").await;
    let gateway = &shop.gateway;
    for series in [
        "penstock_sale_purchases_total{sale=\"spring\",outcome=\"accepted\"}",
        "penstock_store_call_seconds_count{operation=\"buy\"}",
        "penstock_store_call_seconds_count{operation=\"pull\"}",
        "penstock_database_call_seconds_count{operation=\"read\"}",
        "penstock_database_call_seconds_count{operation=\"write\"}",
        "penstock_database_call_seconds_count{operation=\"transaction\"}",
        "penstock_database_wait_seconds_count{pool=\"write\"}",
        "penstock_database_connections_max{pool=\"write\"}",
        "penstock_connections_max",
        "penstock_control_requests_max",
        "penstock_order_waiters_max",
    ] {
        gateway.eventually_metric_from(series, 1.0).await;
    }
    let page = gateway.admin("/metrics").await;
    for series in [
        "penstock_sale_purchases_total{sale=\"\",outcome=\"not_found\"} 0",
        "penstock_sale_purchases_waiting{sale=\"spring\",sku=\"shoe\"} 0",
        "penstock_store_errors_total{error=\"unknown\"} 0",
        "penstock_database_errors_total{operation=\"transaction\"} 0",
    ] {
        assert!(page.contains(series), "{series} is missing");
    }
    shop.close().await;
}

fn get(path: &str, buyer: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("https://shop.test{path}")).header("x-buyer-id", buyer);
    request.body(Empty::new()).unwrap()
}

/// Reads a stream until it has this text.
async fn read_until(body: &mut Incoming, seen: &mut String, end: &str) {
    within(async {
        while !seen.contains(end) {
            let frame = body.frame().await.expect("the stream ended").unwrap();
            seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    })
    .await;
}

/// The same of an HTTP/1.1 connection.
async fn read_raw_until(stream: &mut TcpStream, seen: &mut String, end: &str) {
    within(async {
        while !seen.contains(end) {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).await.unwrap();
            assert!(count > 0, "the connection ended: {seen:?}");
            seen.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_the_buyer_one_by_one_over_tls_and_http2_and_outlive_the_edges_clocks() {
    let shop = Shop::open().await;
    let path = shop.buy("ann").await;
    let mut sender = shop.h2().await;
    let events = format!("{path}/events");
    let response = within(sender.send_request(get(&events, "ann")))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut body = response.into_body();
    let mut seen = String::new();
    read_until(&mut body, &mut seen, "\"status\":\"reserved\"").await;
    assert!(
        seen.starts_with("retry: 2000\n\nid: 1\nevent: order\ndata: {"),
        "{seen}"
    );
    // Silent for longer than every clock of the edge.
    let silence = timeout(3 * EDGE_CLOCK, body.frame()).await;
    assert!(silence.is_err(), "{silence:?}");
    // Other streams of the connection go on beside it.
    let beside = within(sender.send_request(get(&path, "ann")))
        .await
        .unwrap();
    assert_eq!(beside.headers()["etag"], "W/\"1\"");
    shop.cancel("ann", &path).await;
    read_until(&mut body, &mut seen, "\"status\":\"released\"").await;
    assert!(seen.contains("\n\nid: 2\nevent: order\n"), "{seen}");
    let rest = within(body.collect())
        .await
        .expect("ended, not cut")
        .to_bytes();
    seen.push_str(std::str::from_utf8(&rest).unwrap());
    assert_eq!(
        seen.matches("event: order").count(),
        2,
        "a final status ends the stream"
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_chunks_over_http1_and_a_drain_ends_them_cleanly() {
    let mut shop = Shop::open().await;
    let path = shop.buy("ann").await;
    let mut stream = shop.h1(&format!("{path}/events"), "ann", "").await;
    let mut seen = String::new();
    read_raw_until(&mut stream, &mut seen, "\"status\":\"reserved\"").await;
    assert_eq!(header(&seen, "transfer-encoding"), Some("chunked"));
    let silence = timeout(3 * EDGE_CLOCK, stream.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    shop.gateway.stop();
    read_raw_until(&mut stream, &mut seen, "\r\n0\r\n\r\n").await;
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    // The drain did not have to wait for its deadline of thirty seconds.
    timeout(Duration::from_secs(10), shop.close())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_is_answered_by_the_change_and_by_the_drain() {
    let mut shop = Shop::open().await;
    let mut sender = shop.h2().await;
    let poll = |path: &str, buyer: &str| {
        let mut request = get(path, buyer);
        for (name, value) in [("if-none-match", "W/\"1\""), ("prefer", "wait=30")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request
    };
    let path = shop.buy("ann").await;
    let waiting = sender.send_request(poll(&path, "ann"));
    let change = async {
        let series = "penstock_order_waiters{kind=\"order\"}";
        shop.gateway.eventually_metric(series, 1.0).await;
        shop.cancel("ann", &path).await;
    };
    let (answer, ()) = tokio::join!(within(waiting), change);
    let answer: Response<Incoming> = answer.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            &answer.headers()["preference-applied"]
        ),
        (200, &"wait=30".parse().unwrap())
    );
    assert!(text(answer).await.contains("\"status\":\"released\""));

    // A client that leaves frees its place: over HTTP/1.1 by closing, over HTTP/2 by resetting its stream.
    let other = shop.buy("bob").await;
    let series = "penstock_order_waiters{kind=\"order\"}";
    let known = "if-none-match: W/\"1\"\r\nprefer: wait=30\r\n";
    let closing = shop.h1(&other, "bob", known).await;
    let resetting = sender.send_request(poll(&other, "bob"));
    let resetting = tokio::spawn(resetting);
    shop.gateway.eventually_metric(series, 2.0).await;
    drop(closing);
    shop.gateway.eventually_metric(series, 1.0).await;
    resetting.abort();
    shop.gateway.eventually_metric(series, 0.0).await;

    let waiting = sender.send_request(poll(&other, "bob"));
    let waiting = tokio::spawn(waiting);
    shop.gateway.eventually_metric(series, 1.0).await;
    shop.gateway.stop();
    let answer = within(waiting).await.unwrap().unwrap();
    assert_eq!(answer.status(), 304, "the present state, at once");
    timeout(Duration::from_secs(10), shop.close())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_buyer_waited_for_is_no_latency() {
    let shop = Shop::open().await;
    let path = shop.buy("ann").await;
    let known = "if-none-match: W/\"1\"\r\nprefer: wait=3\r\nconnection: close\r\n";
    let mut waited = shop.h1(&path, "ann", known).await;
    let mut answer = String::new();
    within(waited.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(status(&answer), 304);
    // All requests of this route so far took less than the three seconds that this one waited.
    shop.gateway
        .eventually_metric("penstock_requests_in_flight", 0.0)
        .await;
    let page = shop.gateway.admin("/metrics").await;
    let slow = page.lines().find(|line| {
        line.starts_with("penstock_request_duration_seconds_bucket")
            && line.contains("le=\"2.5\"")
            && line.contains("route=\"orders\"")
            && line.contains("outcome=\"ok\"")
    });
    let all = page.lines().find(|line| {
        line.starts_with("penstock_request_duration_seconds_count")
            && line.contains("route=\"orders\"")
            && line.contains("outcome=\"ok\"")
    });
    let count =
        |line: Option<&str>| line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(count(all).unwrap() >= 2.0, "{all:?}");
    assert_eq!(count(slow), count(all));
    shop.close().await;
}
