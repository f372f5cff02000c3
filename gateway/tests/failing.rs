//! Endpoints that fail: who is asked next, what is sent twice (INV-EDGE-1), and what the client hears.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::Instant,
};

use crate::support::{
    Gateway, Origin, body, h2, header, read_head, read_response, reply, shop, status, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connection_goes_to_the_next_endpoint() {
    let origin = Origin::named("alive").await;
    let dead = Origin::nobody().await;
    let gateway = Gateway::start(&shop(&[dead, origin.address], "")).await;
    for _ in 0..8 {
        let answer = gateway
            .raw("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        assert_eq!((status(&answer), body(&answer)), (200, "alive"));
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ring_keeps_a_key_on_its_endpoint_and_walks_on_when_it_dies() {
    let (a, b, c) = tokio::join!(Origin::named("a"), Origin::named("b"), Origin::named("c"));
    let ring = "policy = \"ring-hash\"\nhash_on = \"header:x-user-id\"\n";
    let gateway = Gateway::start(&shop(&[a.address, b.address, c.address], ring)).await;
    let ask = async |user: usize| {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-User-Id: user-{user}\r\n\r\n"
        );
        body(&gateway.raw(&request).await).to_owned()
    };
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..24 {
        let first = ask(user).await;
        assert_eq!(ask(user).await, first);
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3, "all endpoints have users");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_opens_on_a_dead_endpoint_and_says_when_to_come_back() {
    let dead = Origin::nobody().await;
    let extra = "retries = 0\nbreaker = { consecutive_failures = 3, open_for = \"30s\" }\n";
    let text = shop(&[dead], extra).replace("\"shop\"", "\"broken\"");
    let gateway = Gateway::start(&text).await;
    for _ in 0..3 {
        assert_eq!(status(&gateway.get("/").await), 502);
    }
    let refused = gateway.get("/").await;
    assert_eq!(status(&refused), 503);
    assert!(
        body(&refused).contains("\"code\":\"breaker_open\""),
        "{refused}"
    );
    let wait: u64 = header(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait));
    let labels = format!("upstream=\"broken\",endpoint=\"{dead}\"");
    gateway
        .eventually_metric(
            &format!("penstock_circuit_breaker_state{{{labels},state=\"open\"}}"),
            1.0,
        )
        .await;
    gateway
        .eventually_metric(
            "penstock_circuit_breaker_rejected_total{upstream=\"broken\"}",
            1.0,
        )
        .await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_does_not_answer_is_a_504() {
    let origin = Origin::scripted(|_, mut stream| async move {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "response_timeout = \"150ms\"\n")).await;
    let answer = gateway.get("/").await;
    assert_eq!(status(&answer), 504);
    assert!(body(&answer).contains("\"code\":\"upstream_timeout\""));
    assert_eq!(
        origin.served(),
        1,
        "a request that was sent is not sent again"
    );
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_to_answer_counts_from_the_end_of_the_upload() {
    // What broke: the clock ran from the request's header and was moved only if the upload was still going on when it fired, so an
    // upload that had just ended left the endpoint next to nothing.
    let origin = Origin::start(|request| async move {
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        crate::support::reply(200, "taken")
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "response_timeout = \"1500ms\"\n")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    stream.write_all(b"half").await.unwrap();
    let answer = read_response(&mut stream).await;
    assert_eq!((status(&answer), body(&answer)), (200, "taken"));
    gateway.stopped().await;
}

/// Broke: a lost SYN, which is sent again after a second, used up the time of the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_to_answer_counts_from_the_connection() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // A full backlog drops every further SYN.
    let mut waiting = Vec::new();
    let pause = Duration::from_millis(100);
    while let Ok(stream) = tokio::time::timeout(pause, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let timeout = Duration::from_millis(600);
    let extra = "response_timeout = \"600ms\"\nconnect_timeout = \"10s\"\nretries = 0\n";
    let gateway = Gateway::start(&shop(&[address], extra)).await;
    let began = Instant::now();
    let serve = async {
        tokio::time::sleep(pause).await;
        for _ in &waiting {
            listener.accept().await.unwrap();
        }
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What came of the connection that gave up above says nothing.
            if read_head(&mut stream).await.is_none() {
                continue;
            }
            assert!(began.elapsed() > timeout, "the SYN was not lost");
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
            stream.write_all(answer).await.unwrap();
            return;
        }
    };
    let (answer, ()) = tokio::join!(gateway.get("/"), within(serve));
    assert_eq!((status(&answer), body(&answer)), (200, "late"));
    gateway.stopped().await;
}

/// Larger than every buffer on the way.
const ENDLESS: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_holds_no_upstream_connection() {
    let origin = Origin::start(|request| async move {
        let length = match request.uri().path() {
            "/large" => ENDLESS,
            _ => 2,
        };
        crate::support::reply(200, vec![b'y'; length])
    })
    .await;
    let text = shop(
        &[origin.address],
        "retries = 0\npool = { max_active = 1 }\n",
    )
    .replace("name = \"shop\"\nupstream", "name = \"unread\"\nupstream");
    let gateway = Gateway::start(&format!(
        "[server]\nworkers = 1\nsend_timeout = \"500ms\"\n{text}"
    ))
    .await;
    let free = async || {
        for _ in 0..200 {
            if status(&gateway.get("/").await) == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the connection was never given back");
    };

    let mut h1 = TcpStream::connect(gateway.address()).await.unwrap();
    h1.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within(h1.read_exact(&mut [0; 1024])).await.unwrap();
    assert_eq!(status(&gateway.get("/").await), 503);
    free().await;
    let mut rest = Vec::new();
    let _ = within(h1.read_to_end(&mut rest)).await;
    assert!(rest.len() < ENDLESS, "it was cut");

    // One stream of an HTTP/2 connection is not read; the others go on.
    let mut sender = h2(TcpStream::connect(gateway.address()).await.unwrap()).await;
    let ask = |path: &str| {
        http::Request::get(format!("http://a{path}"))
            .body(http_body_util::Empty::new())
            .unwrap()
    };
    let unread = within(sender.send_request(ask("/large"))).await.unwrap();
    assert_eq!(status(&gateway.get("/").await), 503);
    free().await;
    drop(unread);
    let series = "penstock_requests_total{route=\"unread\",outcome=\"aborted\",protocol=\"h2\"}";
    gateway.eventually_metric(series, 1.0).await;
    gateway.stopped().await;
}

/// Broke: of the first burst after an outage all were refused but the one that found out that it was over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_burst_after_an_outage_waits_for_the_probe() {
    let is_down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let down = is_down.clone();
    let origin = Origin::start(move |_| {
        let is_down = down.load(std::sync::atomic::Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            reply(if is_down { 503 } else { 200 }, "x")
        }
    })
    .await;
    let breaker = "breaker = { consecutive_failures = 2, open_for = \"300ms\" }\n";
    let gateway = Gateway::start(&shop(&[origin.address], breaker)).await;
    for _ in 0..3 {
        gateway.get("/").await;
    }
    assert!(gateway.get("/").await.contains("breaker_open"));
    is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let burst = futures_util::future::join_all((0..40).map(|_| gateway.get("/"))).await;
    for answer in burst {
        assert_eq!(status(&answer), 200, "{answer}");
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_a_slow_upstream_is_not_taken_for_one_that_does_not_read() {
    let origin = Origin::scripted(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            .await;
        // Longer than send_timeout and two sweeps.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let _ = stream.write_all(b"half").await;
    })
    .await;
    let gateway = Gateway::start(&format!(
        "[server]\nsend_timeout = \"100ms\"\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    assert_eq!(body(&gateway.get("/").await), "halfhalf");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_breaks_off_is_not_passed_as_whole() {
    let origin = Origin::scripted(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .await
            .unwrap();
    })
    .await;
    let text = shop(&[origin.address], "")
        .replace("name = \"shop\"\nupstream", "name = \"breaks\"\nupstream");
    let gateway = Gateway::start(&text).await;
    let answer = gateway.get("/").await;
    assert!(
        !body(&answer).contains("0\r\n\r\n") && body(&answer).len() < 100,
        "{answer}"
    );
    let series = "penstock_requests_total{route=\"breaks\",outcome=\"aborted\",protocol=\"h1\"}";
    gateway.eventually_metric(series, 1.0).await;
    gateway.stopped().await;
}

/// Broke: the error of a body that fails before its first piece was lost, and the client got a clean, empty 200 (INV-EDGE-3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_breaks_before_its_first_piece_is_not_passed_as_an_empty_whole() {
    for broken in [
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Content-Length: 5\r\n\r\n",
    ] {
        let origin = Origin::scripted(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\n{broken}");
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let gateway = Gateway::start(&shop(&[origin.address], "")).await;
        for _ in 0..20 {
            let answer = gateway.get("/").await;
            let is_clean =
                answer.ends_with("\r\n0\r\n\r\n") || header(&answer, "content-length") == Some("0");
            assert!(
                status(&answer) == 502 || !is_clean,
                "{broken:?}: {answer:?}"
            );
        }
        gateway.stopped().await;
    }
}

/// Answers the first request of its first connection, then reads the second and closes without a word: what a server looks like
/// that closed its idle connection while the request was on its way.
async fn closes_on_the_second_request() -> Origin {
    Origin::scripted(|connection, mut stream| async move {
        let mut request = 0;
        while read_head(&mut stream).await.is_some() {
            if connection == 0 && request == 1 {
                return;
            }
            request += 1;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_request_is_sent_again_when_a_reused_connection_dies() {
    let origin = closes_on_the_second_request().await;
    let gateway = Gateway::start(&format!(
        "[server]\nworkers = 1\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    assert_eq!(body(&gateway.get("/").await), "ok");
    // Only of a connection that has been idle is the death taken for the end of its keep-alive time.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(body(&gateway.get("/").await), "ok");
    assert_eq!(origin.served(), 2, "a second connection was made");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_was_written_is_never_sent_again() {
    let origin = closes_on_the_second_request().await;
    let gateway = Gateway::start(&format!(
        "[server]\nworkers = 1\n{}",
        shop(&[origin.address], "retries = 5\n")
    ))
    .await;
    assert_eq!(body(&gateway.get("/").await), "ok");
    let posted = gateway
        .raw("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(status(&posted), 502);
    assert_eq!(origin.served(), 1);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_that_was_closed_is_noticed_before_it_is_used() {
    // Closes right after its answer without saying so.
    let origin = Origin::scripted(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let gateway = Gateway::start(&format!(
        "[server]\nworkers = 1\n{}",
        shop(&[origin.address], "retries = 0\n")
    ))
    .await;
    for _ in 0..5 {
        let posted = gateway
            .raw("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(status(&posted), 200);
        // The close has to arrive; there is nothing to see it by.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_whose_health_check_fails_gets_no_requests() {
    let (well, sick) = tokio::join!(
        Origin::named("well"),
        Origin::start(|request| async move {
            let is_check = request.uri().path() == "/healthz";
            crate::support::reply(if is_check { 500 } else { 200 }, "sick")
        }),
    );
    let health = "health = { path = \"/healthz\", interval = \"20ms\", unhealthy = 1 }\n";
    let gateway = Gateway::start(&shop(&[well.address, sick.address], health)).await;
    let mut in_a_row = 0;
    for _ in 0..500 {
        match body(&gateway.get("/").await) {
            "well" => in_a_row += 1,
            _ => in_a_row = 0,
        }
        if in_a_row == 10 {
            return gateway.stopped().await;
        }
    }
    panic!("the sick endpoint is still asked");
}

/// What broke: a slow upload made the shop look slow, for its time counted from the client's header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upload_is_no_slow_shop() {
    let origin = Origin::echo().await;
    let text = shop(&[origin.address], "").replace("\"shop\"", "\"uploads\"");
    let gateway = Gateway::start(&text).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n1";
    stream.write_all(head.as_bytes()).await.unwrap();
    // The time itself is the fact.
    tokio::time::sleep(Duration::from_millis(700)).await;
    stream.write_all(b"2").await.unwrap();
    assert_eq!(status(&read_response(&mut stream).await), 200);
    let count = "penstock_upstream_duration_seconds_count{upstream=\"uploads\"}";
    gateway.eventually_metric(count, 1.0).await;
    let sum = "penstock_upstream_duration_seconds_sum{upstream=\"uploads\"}";
    let took = gateway.metric(sum).await;
    assert!(took < 0.5, "{took}");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_too_many_header_lines_is_none() {
    // With Content-Length, a hundred; the path says how many others.
    let origin = Origin::scripted(|_, mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let path = head.split(' ').nth(1).unwrap();
            let lines = "Set-Cookie: a=1\r\n".repeat(path[1..].parse().unwrap());
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nok");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "breaker = false\n")).await;
    for (path, expected) in [("/99", 200), ("/100", 502), ("/99", 200)] {
        assert_eq!(status(&gateway.get(path).await), expected, "{path}");
    }
    gateway.stopped().await;
}
