//! What reaches the origin, what comes back, and that both flow.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

use crate::support::{Gateway, Origin, body, header, reply, shop, status, within};

/// Larger than every buffer on the way.
const LARGE: usize = 8 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_a_connection_stay_on_it_and_claims_are_replaced() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&format!(
        "{}[server]\ntrusted_headers = [\"x-buyer-id\"]\n",
        shop(&[origin.address], "")
    ))
    .await;
    let answer = gateway
        .raw(
            "GET /a?b HTTP/1.1\r\nHost: shop.test\r\nConnection: close, x-private\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
             TE: gzip\r\nProxy-Authorization: Basic x\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
             X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Buyer-Id: eve\r\nAccept: */*\r\n\r\n",
        )
        .await;
    let seen = body(&answer);
    for gone in [
        "x-private",
        "keep-alive",
        "te:",
        "proxy-auth",
        "6.6.6.6",
        "x-real-ip",
        "forwarded: for",
        "x-buyer",
        "connection",
    ] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    for kept in [
        "GET /a?b HTTP/1.1\n",
        "host: shop.test\n",
        "accept: */*\n",
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: shop.test\n",
    ] {
        assert!(seen.contains(kept), "{kept} not in {seen}");
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_with_an_underscore_come_from_trusted_proxies_only() {
    // What broke: x_buyer_id passed, and PHP reads it as HTTP_X_BUYER_ID, the same as x-buyer-id.
    let origin = Origin::echo().await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX_Buyer_Id: eve\r\nX_Forwarded-For: 6.6.6.6\r\nX-Kept: 1\r\n\r\n";
    for (server, is_kept) in [
        ("trusted_headers = [\"x-buyer-id\"]", false),
        ("trusted_proxies = [\"127.0.0.0/8\"]", true),
    ] {
        let gateway = Gateway::start(&format!(
            "{}[server]\n{server}\n",
            shop(&[origin.address], "")
        ))
        .await;
        let answer = gateway.raw(request).await;
        assert!(answer.contains("x-kept: 1\n"), "{answer}");
        assert_eq!(answer.contains("x_buyer_id: eve\n"), is_kept, "{answer}");
        assert_eq!(answer.contains("6.6.6.6"), is_kept, "{answer}");
        gateway.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_believed_and_added_to_the_list() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&format!(
        "{}[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\ntrusted_headers = [\"x-buyer-id\"]\n\
         trusted_headers_from = [\"127.0.0.1\"]\n",
        shop(&[origin.address], "")
    ))
    .await;
    let answer = gateway
        .raw("GET / HTTP/1.1\r\nHost: in.test\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Buyer-Id: ann\r\n\r\n")
        .await;
    for kept in [
        "x-forwarded-for: 192.0.2.9, 127.0.0.1\n",
        "x-forwarded-proto: https\n",
        "x-buyer-id: ann\n",
    ] {
        assert!(answer.contains(kept), "{kept} not in {answer}");
    }
    gateway.stopped().await;
}

/// Broke: behind any proxy on the same machine a visitor's own `x-buyer-id` was believed, because the proxy's address was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_does_not_say_who_the_buyer_is() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&format!(
        "{}[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[seckill]\nbuyer = \"header:x-buyer-id\"\n",
        shop(&[origin.address], "")
    ))
    .await;
    let answer = gateway
        .raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Buyer-Id: victim\r\nX_Buyer_Id: victim\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n")
        .await;
    assert!(!answer.contains("victim"), "{answer}");
    assert!(
        answer.contains("x-forwarded-for: 192.0.2.9, 127.0.0.1"),
        "{answer}"
    );
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_the_origins_connection_stay_behind() {
    let origin = Origin::scripted(|_, mut stream| async move {
        while crate::support::read_head(&mut stream).await.is_some() {
            let answer = "HTTP/1.1 200 OK\r\nConnection: x-inner, keep-alive\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\nX-Outer: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let answer = gateway.get("/").await;
    assert_eq!(header(&answer, "x-outer"), Some("2"));
    assert_eq!(header(&answer, "x-inner"), None);
    assert_eq!(header(&answer, "keep-alive"), None);
    // It all came at once, so its length is known by now.
    assert_eq!(
        (header(&answer, "content-length"), body(&answer)),
        (Some("2"), "hi")
    );
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_flows_through() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {LARGE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    within(stream.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    within(stream.write_all(&vec![b'x'; LARGE])).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains(&format!("length: {LARGE}\n")), "{answer}");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_upload_flows_through() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let answer = gateway
        .raw("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n5\r\npedia\r\n0\r\n\r\n")
        .await;
    assert!(
        answer.contains("length: 9\n") && answer.contains("transfer-encoding: chunked\n"),
        "{answer}"
    );
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_response_waits_for_a_slow_reader_and_is_whole() {
    let origin = Origin::start(|_| async { reply(200, vec![b'y'; LARGE]) }).await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        tokio::task::yield_now().await;
        match within(stream.read(&mut piece)).await.unwrap() {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    let at = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    assert_eq!(answer.len() - at, LARGE);
    assert!(answer[at..].iter().all(|byte| *byte == b'y'));
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickled_response_is_passed_on_piece_by_piece() {
    // The origin sends a piece per permit; the client has seen the last one before it gives the next.
    let permits = Arc::new(Semaphore::new(1));
    let given = Arc::clone(&permits);
    let origin = Origin::start(move |_| {
        let permits = Arc::clone(&permits);
        async move {
            let pieces = futures_util::stream::unfold((0, permits), |(n, permits)| async move {
                if n == 3 {
                    return None;
                }
                permits.acquire().await.unwrap().forget();
                let frame = Frame::data(Bytes::from(format!("piece-{n};")));
                Some((Ok(frame), (n + 1, permits)))
            });
            Response::new(StreamBody::new(pieces).boxed_unsync())
        }
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    for n in 0..3 {
        let wanted = format!("piece-{n};");
        while !seen.contains(&wanted) {
            let mut piece = [0; 512];
            let count = within(stream.read(&mut piece)).await.unwrap();
            assert!(count > 0, "closed after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        given.add_permits(1);
    }
    assert_eq!(status(&seen), 200);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_origin_are_used_again() {
    let origin = Origin::scripted(|_, mut stream| async move {
        while crate::support::read_head(&mut stream).await.is_some() {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
    })
    .await;
    let gateway = Gateway::start(&format!(
        "[server]\nworkers = 1\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    for _ in 0..10 {
        assert_eq!(body(&gateway.get("/").await), "ok");
    }
    assert_eq!(origin.served(), 1, "one connection carried all requests");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_cut_by_http2_arrive_as_one_line() {
    // What broke: PHP saw one cookie where the browser had sent three.
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut sender = crate::support::h2(TcpStream::connect(gateway.address()).await.unwrap()).await;
    let request = http::Request::get("http://shop.test/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("cookie", "c=3")
        .body(http_body_util::Empty::new())
        .unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let seen = crate::support::text(response).await;
    assert!(seen.contains("cookie: a=1; b=2; c=3\n"), "{seen}");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_two_lengths_cannot_poison_the_next_one() {
    let origin = Origin::scripted(|_, mut stream| async move {
        while crate::support::read_head(&mut stream).await.is_some() {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let two =
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answers = gateway.raw(two).await;
    assert_eq!(answers.matches("\r\n\r\nhello").count(), 2, "{answers}");
    assert!(
        !answers.to_ascii_lowercase().contains("content-length: 3"),
        "{answers}"
    );
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_is_not_the_connections_to_remove() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: host, close\r\n\r\n";
    let answer = gateway.raw(request).await;
    assert!(answer.contains("host: shop.test\n"), "{answer}");
    gateway.stopped().await;
}
