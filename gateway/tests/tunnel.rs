//! WebSockets: the handshake, the tunnel, and what a tunnel holds while it lives.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Gateway, Origin, body, header, read_head, read_response, shop, status, within,
};

const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Tunnels, echoing, if it is asked to; any other request gets `ok`.
pub async fn echoing() -> Origin {
    Origin::scripted(|_, mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            if header(&head, "upgrade").is_some() {
                stream.write_all(SWITCH).await.unwrap();
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                return;
            }
            let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(ok).await.unwrap();
        }
    })
    .await
}

/// A client's end of a tunnel.
pub async fn tunnel(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let handshake =
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let answer = within(read_head(&mut stream)).await.unwrap();
    assert_eq!(status(&answer), 101, "{answer}");
    stream
}

pub async fn ping(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    within(stream.read_exact(&mut pong)).await.unwrap();
    assert_eq!(&pong, b"ping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_without_traffic_is_closed() {
    let origin = echoing().await;
    let gateway = Gateway::start(&format!(
        "[server]\ntunnel_timeout = \"200ms\"\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    let mut stream = tunnel(&gateway).await;
    ping(&mut stream).await;
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_counts_among_the_connections_to_its_endpoint() {
    // What broke: tunnels were counted nowhere, so a few thousand of them met no bound at all.
    let origin = echoing().await;
    let bounds = "retries = 0\npool = { max_active = 1 }\n";
    let gateway = Gateway::start(&format!(
        "[server]\nworkers = 1\n{}",
        shop(&[origin.address], bounds)
    ))
    .await;
    let mut stream = tunnel(&gateway).await;
    ping(&mut stream).await;
    let refused = gateway.get("/").await;
    assert_eq!(status(&refused), 503);
    assert!(
        body(&refused).contains("\"code\":\"upstream_busy\""),
        "{refused}"
    );
    drop(stream);
    for _ in 0..200 {
        if status(&gateway.get("/").await) == 200 {
            return gateway.stopped().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the tunnel's place was never given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_counts_among_the_client_connections() {
    let origin = echoing().await;
    let gateway = Gateway::start(&format!(
        "[server]\nworkers = 1\nmax_connections = 1\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    let mut first = tunnel(&gateway).await;
    let mut second = TcpStream::connect(gateway.address()).await.unwrap();
    second
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    // Many round trips of the tunnel later the second client still waits in the listening queue.
    for _ in 0..100 {
        ping(&mut first).await;
    }
    assert_eq!(origin.served(), 1);
    drop(first);
    assert_eq!(body(&read_response(&mut second).await), "ok");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_answered_503_is_a_failure_to_the_breaker() {
    let origin = Origin::start(|_| async { crate::support::reply(503, "unwell") }).await;
    let extra = "breaker = { consecutive_failures = 2, open_for = \"30s\" }\n";
    let gateway = Gateway::start(&shop(&[origin.address], extra)).await;
    let handshake =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n";
    for _ in 0..2 {
        assert_eq!(body(&gateway.raw(handshake).await), "unwell");
    }
    let refused = gateway.raw(handshake).await;
    assert!(
        body(&refused).contains("\"code\":\"breaker_open\""),
        "{refused}"
    );
    assert_eq!(origin.served(), 2);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_becomes_a_tunnel() {
    let origin = Origin::scripted(|_, mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        assert_eq!(header(&head, "sec-websocket-key"), Some("abc"));
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
            .await
            .unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    while !seen.ends_with("hello") {
        let mut piece = [0; 512];
        let count = within(stream.read(&mut piece)).await.unwrap();
        assert!(count > 0, "closed after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    assert_eq!(status(&seen), 101);
    stream.write_all(b"ping").await.unwrap();
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "ping");
    gateway.stopped().await;
}

/// What broke: an endpoint that answered a handshake like any request, and then stalled, was bounded by nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_place_of_a_tunnel_has_the_upstreams_time() {
    let origin = Origin::scripted(|_, mut stream| async move {
        let _ = read_head(&mut stream).await;
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        stream.write_all(half).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = Gateway::start(&shop(&[origin.address], "body_timeout = \"200ms\"")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let handshake =
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!((status(&answer), body(&answer)), (200, "half"));
    gateway.stopped().await;
}
