//! What HTTP says, case by case: targets, hosts, lengths, codings, hops. Each case failed once beside nginx or HAProxy.

use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Gateway, Origin, body, h2, header, raw, reply, shop, status, within};

/// An origin that echoes, with a guarded part.
async fn echo() -> (Origin, Gateway) {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&format!(
        "{}[[route]]\npath = \"/checkout\"\nupstream = \"shop\"\nmax_body = \"0B\"\nmethods = [\"GET\"]\n",
        shop(&[origin.address], "")
    ))
    .await;
    (origin, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_path_walks_round_its_route() {
    let (_origin, gateway) = echo().await;
    for path in [
        "/checkout",
        "/%63heckout",
        "//checkout",
        "/checkout%2fa",
        "/checkout;x",
        "/checkout/%2e%2e%2e",
        "/%2fcheckout",
    ] {
        let post = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = gateway.raw(&post).await;
        // Both routes have the path; the guarded one has no POST, so the other serves it: what counts is its limit.
        let big = post.replace("Content-Length: 0", "Content-Length: 1") + "x";
        let get = big.replacen("POST", "GET", 1);
        assert_eq!(status(&gateway.raw(&get).await), 413, "{path}: {answer}");
    }
    for path in [
        "/x/..%2fcheckout",
        "/x/..%5ccheckout",
        "/x/..;/checkout",
        "/a%00",
        "/a%zz",
    ] {
        assert_eq!(status(&gateway.get(path).await), 400, "{path}");
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_and_hosts_are_read_as_the_rfc_says() {
    let (origin, gateway) = echo().await;
    let close = "Connection: close\r\n\r\n";
    for (request, expected) in [
        // Absolute form: the target counts, Host has to be there.
        ("GET http://a:80/x HTTP/1.1\r\nHost: a\r\n", 200),
        ("GET http://a/x HTTP/1.1\r\nHost: other\r\n", 200),
        ("GET http://a/x HTTP/1.1\r\n", 400),
        ("GET ftp://a/x HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a:http\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:80:80\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a[b]c\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n", 200),
        ("GET / HTTP/1.0\r\n", 200),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n",
            501,
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n", 405),
        ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n", 204),
        ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n", 200),
        ("HEAD /checkout HTTP/1.1\r\nHost: a\r\n", 200),
    ] {
        let answer = gateway.raw(&format!("{request}{close}")).await;
        assert_eq!(status(&answer), expected, "{request}");
    }
    let seen = gateway
        .raw(&format!(
            "GET http://in.test/x HTTP/1.1\r\nHost: other\r\n{close}"
        ))
        .await;
    assert!(body(&seen).contains("host: in.test\n"), "{seen}");
    assert!(body(&seen).contains("via: 1.1 penstock-"), "{seen}");
    let seen = gateway
        .raw(&format!(
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n{close}"
        ))
        .await;
    assert!(body(&seen).contains("max-forwards: 6\n"), "{seen}");
    // HTTP/1.0 names no host; HTTP/1.1 says so.
    let seen = gateway.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert!(body(&seen).contains("host: \n"), "{seen}");
    assert!(origin.served() > 0);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_is_not_allowed_is_told_what_is() {
    let origin = Origin::named("shop").await;
    let text = shop(&[origin.address], "").replace(
        "path = \"/\"\n",
        "path = \"/\"\nmethods = [\"GET\", \"POST\"]\n",
    );
    let gateway = Gateway::start(&text).await;
    let answer = gateway
        .raw("DELETE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status(&answer), 405);
    assert_eq!(header(&answer, "allow"), Some("GET, HEAD, POST"));
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_a_get_reaches_the_shop_over_both_protocols() {
    let (_origin, gateway) = echo().await;
    for method in ["GET", "HEAD", "DELETE"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        let answer = gateway.raw(&request).await;
        assert_eq!(status(&answer), 200);
        if method != "HEAD" {
            assert!(body(&answer).contains("length: 3\n"), "{method}: {answer}");
        }
    }
    // HTTP/2 with DATA and no length, longer than what is read ahead.
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(TcpStream::connect(gateway.address()).await.unwrap()),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    for length in [3, 300_000] {
        let whole = Full::new(bytes::Bytes::from(vec![b'x'; length]));
        let stream = http_body_util::StreamBody::new(whole.into_data_stream_frames());
        let request = http::Request::get("http://a/").body(stream).unwrap();
        let answer = within(sender.send_request(request)).await.unwrap();
        let text = within(answer.into_body().collect())
            .await
            .unwrap()
            .to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains(&format!("length: {length}\n")), "{text}");
    }
    gateway.stopped().await;
}

/// A body without a known length.
trait Frames {
    fn into_data_stream_frames(
        self,
    ) -> futures_util::stream::BoxStream<
        'static,
        Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>,
    >;
}

impl Frames for Full<bytes::Bytes> {
    fn into_data_stream_frames(
        self,
    ) -> futures_util::stream::BoxStream<
        'static,
        Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>,
    > {
        use futures_util::StreamExt;
        self.into_data_stream()
            .map(|data| data.map(http_body::Frame::data))
            .boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_lines_are_bounded_over_http2_too() {
    let (_origin, gateway) = echo().await;
    let mut sender = h2(TcpStream::connect(gateway.address()).await.unwrap()).await;
    let mut request = http::Request::get("http://a/");
    for at in 0..150 {
        request = request.header(format!("x-{at}"), "1");
    }
    let request = request.body(http_body_util::Empty::new()).unwrap();
    let answer = within(sender.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 431);
    // The gateway's own refusal: the origin's parser would refuse it too.
    let told = crate::support::text(answer).await;
    assert!(told.contains("too_many_headers"), "{told}");
    gateway.stopped().await;
}

/// Broke: the client of an early answer got a reset instead of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_reaches_a_client_that_still_writes() {
    let origin = Origin::named("shop").await;
    let gateway = Gateway::start(&format!(
        "{}[[route]]\npath = \"/small\"\nupstream = \"shop\"\nmax_body = \"1KiB\"\n\
         [[route]]\npath = \"/limited\"\nupstream = \"shop\"\nlimits = [\"one\"]\n\
         [[limit]]\nname = \"one\"\nkey = \"ip\"\nrate = \"1/h\"\n",
        shop(&[origin.address], "")
    ))
    .await;
    assert_eq!(status(&gateway.get("/limited").await), 200);
    for (path, expected) in [("/small", 413), ("/limited", 429)] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            let length = 4 << 20;
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let written = async {
                stream.write_all(head.as_bytes()).await?;
                for _ in 0..length / 65536 {
                    stream.write_all(&[b'x'; 65536]).await?;
                }
                std::io::Result::Ok(())
            };
            within(written)
                .await
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut answer = String::new();
            within(stream.read_to_string(&mut answer)).await.unwrap();
            assert_eq!(status(&answer), expected);
            assert_eq!(header(&answer, "connection"), Some("close"), "{path}");
        }
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_and_codings_of_the_shop_are_passed_on_in_one_reading() {
    for (answer, expected, length) in [
        ("Content-Length: 5, 5\r\n\r\nhello", 200, Some("5")),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            200,
            Some("5"),
        ),
        (
            "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            502,
            None,
        ),
    ] {
        let origin = Origin::scripted(move |_, mut stream| async move {
            crate::support::read_head(&mut stream).await;
            let _ = stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{answer}").as_bytes())
                .await;
        })
        .await;
        let gateway = Gateway::start(&shop(&[origin.address], "breaker = false\n")).await;
        let seen = gateway.get("/").await;
        assert_eq!(status(&seen), expected, "{answer}");
        if length.is_some() {
            assert_eq!(header(&seen, "content-length"), length);
            assert_eq!(body(&seen), "hello");
        }
        gateway.stopped().await;
    }
}

/// Broke: one request to an upstream that is the gateway itself became 1,025.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_back_is_a_loop() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = port.local_addr().unwrap();
    drop(port);
    let second = Gateway::start(&shop(&[first], "")).await;
    let gateway = Gateway::start_as_is(
        &format!(
            "[log]\naccess = \"off\"\n{}[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"{first}\"\n",
            shop(&[second.address()], "")
        ),
        gateway::compose::edge::Handlers::default(),
    )
    .await;
    let answer = raw(
        first,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(status(&answer), 508);
    second.stopped().await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_is_told_in_html_and_a_program_in_json() {
    let gateway = Gateway::start(&shop(&[Origin::nobody().await], "")).await;
    for (accept, kind) in [
        (
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/html; charset=utf-8",
        ),
        ("*/*", "application/problem+json"),
    ] {
        let answer = gateway
            .raw(&format!(
                "GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!(status(&answer), 502);
        assert_eq!(header(&answer, "content-type"), Some(kind));
        let length: usize = header(&answer, "content-length").unwrap().parse().unwrap();
        assert_eq!(body(&answer).len(), length);
    }
    gateway.stopped().await;
}

/// Broke: a page of another origin could not call the sale API at all: its preflight was 405.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_an_allowed_origin_may_call_and_read_refusals_too() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = asked.clone();
    let sales = axum::Router::new().fallback(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async { "sale" }
    });
    let handlers = gateway::compose::edge::Handlers {
        sales: gateway::compose::edge::Late::from(sales),
        ..Default::default()
    };
    let gateway = Gateway::start_with(
        "[seckill]\n[[route]]\npath = \"/\"\nhandler = \"sales\"\nmethods = [\"GET\", \"POST\"]\nlimits = [\"one\"]\n\
         allow_origins = [\"https://shop.test\"]\n[[limit]]\nname = \"one\"\nkey = \"ip\"\nrate = \"1/h\"\n",
        handlers,
    )
    .await;
    let ask = async |method: &str, from: &str, more: &str| {
        gateway
            .raw(&format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nOrigin: {from}\r\nConnection: close\r\n{more}\r\n"
            ))
            .await
    };
    let preflight = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: idempotency-key\r\n";
    for _ in 0..3 {
        let answer = ask("OPTIONS", "https://shop.test", preflight).await;
        assert_eq!(status(&answer), 204, "{answer}");
        assert_eq!(
            header(&answer, "access-control-allow-origin"),
            Some("https://shop.test")
        );
        assert!(
            header(&answer, "access-control-allow-headers")
                .unwrap()
                .contains("idempotency-key")
        );
    }
    let stranger = ask("OPTIONS", "https://evil.test", preflight).await;
    assert_eq!(header(&stranger, "access-control-allow-origin"), None);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
    for expected in [200, 429] {
        let answer = ask("GET", "https://shop.test", "").await;
        assert_eq!(status(&answer), expected);
        assert_eq!(
            header(&answer, "access-control-allow-origin"),
            Some("https://shop.test")
        );
        assert_eq!(header(&answer, "vary"), Some("origin"));
    }
    gateway.stopped().await;
}

/// Broke: what hyper refuses by itself was in no metric and no log line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_counted_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let origin = Origin::start(|_| async { reply(200, "x") }).await;
    let gateway = Gateway::start(&format!(
        "[log]\naccess = \"{}\"\n{}",
        log.display(),
        shop(&[origin.address], "")
    ))
    .await;
    let before = gateway
        .metric("penstock_requests_total{route=\"none\",outcome=\"client_error\",protocol=\"h1\"}")
        .await;
    let answer = gateway.raw("G\u{1}T / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&answer), 400);
    gateway
        .eventually_metric_from(
            "penstock_requests_total{route=\"none\",outcome=\"client_error\",protocol=\"h1\"}",
            before + 1.0,
        )
        .await;
    gateway.stopped().await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("\"method\":\"-\",\"path\":\"*\"") && text.contains("\"status\":400"),
        "{text}"
    );
}
