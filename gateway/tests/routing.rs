//! Requests go where the configuration sends them.

use axum::routing::get;
use gateway::compose::edge::{Handlers, Late};

use crate::support::{Gateway, Origin, body, header, status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_prefix_and_method_choose_the_route() {
    let (shop, images, api) = tokio::join!(
        Origin::named("shop"),
        Origin::named("images"),
        Origin::named("api")
    );
    let upstream = |name: &str, origin: &Origin| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nendpoints = [{{ address = \"{}\" }}]\n",
            origin.address
        )
    };
    let gateway = Gateway::start(&format!(
        "{}{}{}
        [[route]]\npath = \"/\"\nupstream = \"shop\"\n
        [[route]]\npath = \"/\"\nhost = \"img.shop.test\"\nupstream = \"images\"\n
        [[route]]\npath = \"/api\"\nmethods = [\"POST\"]\nupstream = \"api\"\n
        [[route]]\npath = \"/only\"\nhost = \"other.test\"\nupstream = \"api\"\n",
        upstream("shop", &shop),
        upstream("images", &images),
        upstream("api", &api),
    ))
    .await;
    let ask = async |method: &str, host: &str, path: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        body(&gateway.raw(&request).await).to_owned()
    };
    assert_eq!(ask("GET", "shop.test", "/x").await, "shop");
    assert_eq!(ask("GET", "IMG.shop.test:8080", "/x").await, "images");
    assert_eq!(ask("POST", "shop.test", "/api/v1").await, "api");
    assert_eq!(ask("GET", "shop.test", "/api/v1").await, "shop");
    assert_eq!(ask("POST", "shop.test", "/apis").await, "shop");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_route_has_is_a_problem_document() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/here\"\nmethods = [\"GET\"]\nhandler = \"redirect\"\nto = \"https://shop.example\"\n",
    )
    .await;
    let nothing = gateway.get("/there").await;
    assert_eq!(status(&nothing), 404);
    assert_eq!(
        header(&nothing, "content-type"),
        Some("application/problem+json")
    );
    assert!(body(&nothing).contains("\"code\":\"no_route\""));
    let posted = gateway
        .raw("POST /here HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(status(&posted), 405);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_keeps_path_and_query() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/\"\nhandler = \"redirect\"\nto = \"https\"\n
         [[route]]\npath = \"/old\"\nhandler = \"redirect\"\nto = \"http://new.example/\"\nstatus = 302\n",
    )
    .await;
    let answer = gateway.get("/a?b=c").await;
    assert_eq!(
        (status(&answer), header(&answer, "location")),
        (308, Some("https://shop.test/a?b=c"))
    );
    let answer = gateway.get("/old/x").await;
    assert_eq!(
        (status(&answer), header(&answer, "location")),
        (302, Some("http://new.example/old/x"))
    );
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_serve_their_routes_and_absent_ones_say_so() {
    let sales = axum::Router::new()
        .route(
            "/v1/sales/{sale}",
            get(|axum::extract::Path(sale): axum::extract::Path<String>| async { sale }),
        )
        .route(
            "/v1/sales/echo",
            axum::routing::post(async |bytes: bytes::Bytes| bytes),
        );
    let handlers = Handlers {
        sales: Late::from(sales),
        ..Handlers::default()
    };
    let gateway = Gateway::start_with(
        "[seckill]\n[payment]\napi_key = { env = \"KEY\" }\n
         [[route]]\npath = \"/v1/sales\"\nhandler = \"sales\"\nmax_body = \"1KiB\"\n
         [[route]]\npath = \"/v1/payment_intents\"\nhandler = \"payments\"\n",
        handlers,
    )
    .await;
    assert_eq!(body(&gateway.get("/v1/sales/flash").await), "flash");
    let post = |length: usize, framing: &str, body: &str| {
        format!("POST /v1/sales/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{framing}\r\n\r\n{body}")
            .replace("{length}", &length.to_string())
    };
    let echoed = gateway
        .raw(&post(5, "Content-Length: {length}", "hello"))
        .await;
    assert_eq!(body(&echoed), "hello");
    let too_large = gateway
        .raw(&post(1025, "Content-Length: {length}", ""))
        .await;
    assert_eq!(status(&too_large), 413);
    let piece = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    let too_large = gateway
        .raw(&post(0, "Transfer-Encoding: chunked", &piece))
        .await;
    assert_eq!(status(&too_large), 413);
    let absent = gateway.get("/v1/payment_intents").await;
    assert_eq!(status(&absent), 503);
    assert!(body(&absent).contains("\"code\":\"not_ready\""));
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchases_run_on_the_core_and_what_reads_sql_on_the_control_runtime() {
    let thread = async || std::thread::current().name().unwrap_or_default().to_owned();
    let router = axum::Router::new().route("/{*path}", axum::routing::any(thread));
    let handlers = Handlers {
        sales: Late::from(router.clone()),
        payments: Late::from(router),
        ..Handlers::default()
    };
    let gateway = Gateway::start_with(
        "[seckill]\n[payment]\napi_key = { env = \"KEY\" }\n
         [[route]]\npath = \"/v1/\"\nhandler = \"sales\"\n
         [[route]]\npath = \"/v1/payment_intents\"\nhandler = \"payments\"\n",
        handlers,
    )
    .await;
    for (method, path, is_core) in [
        ("POST", "/v1/sales/flash/orders", true),
        ("POST", "/v1/sales/flash/carts", true),
        // They are POSTs, and write to the ledger.
        ("POST", "/v1/sales/flash/entries", false),
        ("POST", "/v1/orders/ord_1/code", false),
        ("GET", "/v1/sales/flash/orders", false),
        ("GET", "/v1/orders/ord_1", false),
        ("DELETE", "/v1/orders/ord_1", false),
        ("POST", "/v1/payment_intents", false),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = gateway.raw(&request).await;
        let thread = body(&answer);
        assert_eq!(
            thread.starts_with("edge-"),
            is_core,
            "{method} {path}: {answer}"
        );
    }
    gateway.stopped().await;
}
