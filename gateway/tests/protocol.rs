//! HTTP/1.1, HTTP/2 and TLS on the client's side.

use gateway::compose::edge::Handlers;
use http::{Request, Version};
use http_body_util::Empty;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Gateway, Origin, body, h2, header, read_response, shop, status, text, tls, within,
};

async fn with_tls(origin: &Origin) -> Gateway {
    let text = format!(
        "[log]\naccess = \"off\"\n{}
        [admin]\naddress = \"127.0.0.1:0\"\n
        [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"self-signed\"\n
        [[listener]]\naddress = \"127.0.0.1:0\"\n",
        shop(&[origin.address], "")
    );
    Gateway::start_as_is(&text, Handlers::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_speaks_what_the_client_prefers() {
    let origin = Origin::echo().await;
    let gateway = with_tls(&origin).await;

    let handshakes = "penstock_tls_handshakes_total{result=\"ok\"}";
    let before = gateway.metric(handshakes).await;
    let stream = tls(&gateway, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = h2(stream).await;
    let request = Request::get("https://shop.test:8443/page?x=1")
        .body(Empty::new())
        .unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let seen = text(response).await;
    assert!(seen.starts_with("GET /page?x=1 HTTP/1.1\n"), "{seen}");
    assert!(seen.contains("host: shop.test:8443\n"), "{seen}");
    assert!(seen.contains("x-forwarded-proto: https\n"), "{seen}");

    let mut stream = tls(&gateway, &[b"http/1.1"]).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(status(&answer), 200);

    gateway
        .eventually_metric_from(handshakes, before + 2.0)
        .await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_listener_takes_http2_with_prior_knowledge() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut sender = h2(TcpStream::connect(gateway.address()).await.unwrap()).await;
    // Streams of one connection are answered side by side.
    let answers: Vec<_> = (0..20)
        .map(|n| {
            let request = Request::get(format!("http://shop.test/{n}"))
                .body(Empty::new())
                .unwrap();
            sender.send_request(request)
        })
        .collect();
    for (n, answer) in answers.into_iter().enumerate() {
        let seen = text(within(answer).await.unwrap()).await;
        assert!(seen.starts_with(&format!("GET /{n} HTTP/1.1\n")), "{seen}");
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut both = String::new();
    within(stream.read_to_string(&mut both)).await.unwrap();
    let (first, second) = (both.find("GET /1 ").unwrap(), both.find("GET /2 ").unwrap());
    assert!(first < second);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_stay_so() {
    let origin = Origin::start(|request| async move {
        match request.uri().path() {
            "/304" => crate::support::reply(304, ""),
            "/204" => crate::support::reply(204, ""),
            _ => crate::support::reply(200, "twelve bytes"),
        }
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert_eq!(
        (status(&head), header(&head, "content-length")),
        (200, Some("12"))
    );
    // The same connection is still in step.
    for code in [304, 204] {
        stream
            .write_all(format!("GET /{code} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let answer = read_response(&mut stream).await;
        assert_eq!((status(&answer), body(&answer)), (code, ""));
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_of_h2c_is_dropped_and_the_request_keeps_its_body() {
    // What broke: every `Upgrade` went to the tunnel, which sends no body; `curl --http2 -d` on a plain port posted nothing.
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let answer = gateway
        .raw(
            "POST /form HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Length: 7\r\n\r\na=1&b=2",
        )
        .await;
    assert_eq!(status(&answer), 200);
    let seen = body(&answer);
    assert!(
        seen.starts_with("POST /form HTTP/1.1\n") && seen.contains("length: 7\n"),
        "{seen}"
    );
    for gone in ["upgrade", "http2-settings", "connection"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    // The settings alone are no offer and belong to the connection all the same.
    let answer = gateway
        .raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
        .await;
    assert!(!body(&answer).contains("http2-settings"), "{answer}");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_handshake_with_a_body_is_a_plain_request() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    for method in ["POST", "GET"] {
        let answer = gateway
            .raw(&format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nbody"
            ))
            .await;
        let seen = body(&answer);
        assert!(
            seen.contains("length: 4\n") && !seen.contains("upgrade"),
            "{answer}"
        );
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_101_that_nobody_asked_for_is_a_502() {
    let origin = Origin::scripted(|_, mut stream| async move {
        crate::support::read_head(&mut stream).await;
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    assert_eq!(status(&gateway.get("/").await), 502);
    gateway.stopped().await;
}
