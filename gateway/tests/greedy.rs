//! Clients that want too much, or take too long (INV-EDGE-4): nobody takes everybody's place.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Gateway, Origin, read_response, reply, shop, status, within};

/// A socket from one of this machine's addresses.
async fn from(client: &str, gateway: &Gateway) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // Small buffers, so that little is taken off the gateway's hands.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
    socket.connect(gateway.address()).await.unwrap()
}

/// An origin with a large page, a slow one and a small one.
async fn pages() -> Origin {
    Origin::start(|request| async move {
        let path = request.uri().path().to_owned();
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        if path == "/slow" {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        match path.as_str() {
            "/large" => reply(200, large()),
            _ => reply(200, "small"),
        }
    })
    .await
}

fn large() -> Vec<u8> {
    (0..4 << 20).map(|at: u32| (at / 7 % 251) as u8).collect()
}

const ASK: &str = "Host: a\r\nConnection: close\r\n\r\n";

/// Broke: answers that nobody read and uploads of a byte now and then held every place of the pool, and everybody else got 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_late_loses_its_place_to_one_that_is_not() {
    let origin = pages().await;
    for (request, drip) in [
        (format!("GET /large HTTP/1.1\r\n{ASK}"), &b""[..]),
        (
            "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n".to_owned(),
            b"x",
        ),
        // What came quickly is no credit for what drips.
        (
            format!(
                "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n{}",
                "y".repeat(70_000)
            ),
            b"x",
        ),
    ] {
        let pool = "pool = { max_active = 4, max_per_client = 4 }\n";
        let text = shop(&[origin.address], pool).replace(
            "upstream = \"shop\"\n",
            "upstream = \"shop\"\nrequest_buffer = \"0B\"\nresponse_buffer = \"0B\"\n",
        );
        let gateway = Gateway::start(&format!("{text}[server]\nworkers = 1\n")).await;
        let mut greedy = Vec::new();
        for _ in 0..4 {
            let mut stream = from("127.0.0.2", &gateway).await;
            stream.write_all(request.as_bytes()).await.unwrap();
            greedy.push(stream);
        }
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            for stream in &mut greedy {
                let _ = stream.write_all(drip).await;
            }
        }
        for _ in 0..3 {
            let shown = &request[..20];
            assert_eq!(status(&gateway.get("/small").await), 200, "{shown}");
        }
        gateway
            .eventually_metric_from("penstock_upstream_evicted_total{upstream=\"shop\"}", 1.0)
            .await;
        drop(greedy);
        gateway.stopped().await;
    }
}

/// The answer goes to memory and then to a file, the connection to the next request; who reads at last gets every byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_read_lets_go_of_its_connection_and_is_whole() {
    let origin = pages().await;
    // The last has no room at all: the answer is streamed, and stalls nobody (its reader did, for ever).
    for (memory, disk) in [
        ("0B", "1GiB"),
        ("4MiB", "1GiB"),
        ("64MiB", "0B"),
        ("0B", "0B"),
    ] {
        let has_room = memory != disk;
        let gateway = Gateway::start(&format!(
            "{}[server]\nworkers = 1\nbuffer_memory = \"{memory}\"\nbuffer_disk = \"{disk}\"\n",
            shop(&[origin.address], "pool = { max_active = 2 }\n")
        ))
        .await;
        let mut stream = from("127.0.0.2", &gateway).await;
        let request = format!("GET /large HTTP/1.1\r\n{ASK}");
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert_eq!(status(&gateway.get("/small").await), 200, "{memory}");
        let active = "penstock_upstream_connections{upstream=\"shop\",state=\"active\"}";
        gateway
            .eventually_metric(active, if has_room { 0.0 } else { 1.0 })
            .await;
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        let head = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .unwrap()
            + 4;
        assert!(answer[head..] == large(), "{memory}: {}", answer.len());
        gateway.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_its_share_of_a_pool_that_is_filling() {
    let origin = pages().await;
    let gateway = Gateway::start(&format!(
        "{}[server]\nworkers = 1\n",
        shop(
            &[origin.address],
            "pool = { max_active = 4, max_per_client = 1 }\n"
        )
    ))
    .await;
    let slow = format!("GET /slow HTTP/1.1\r\n{ASK}");
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let mut stream = from("127.0.0.2", &gateway).await;
        stream.write_all(slow.as_bytes()).await.unwrap();
        greedy.push(stream);
    }
    let mut statuses = Vec::new();
    let mut other = from("127.0.0.3", &gateway).await;
    other.write_all(slow.as_bytes()).await.unwrap();
    greedy.push(other);
    for mut stream in greedy {
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        statuses.push(status(&answer));
    }
    statuses[..4].sort_unstable();
    assert_eq!(statuses, [200, 200, 429, 429, 200]);
    gateway.stopped().await;
}

/// Broke: connections that had said nothing, or half a header, kept everybody else waiting until their own time was up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_given_up_for_those_that_do() {
    let origin = pages().await;
    for half in ["", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let gateway = Gateway::start(&format!(
            "{}[server]\nworkers = 1\nmax_connections = 4\n",
            shop(&[origin.address], "")
        ))
        .await;
        let mut silent = Vec::new();
        for _ in 0..4 {
            let mut stream = from("127.0.0.2", &gateway).await;
            stream.write_all(half.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        let begun = tokio::time::Instant::now();
        assert_eq!(status(&gateway.get("/").await), 200);
        assert!(
            begun.elapsed().as_secs() < 4,
            "{half:?}: {:?}",
            begun.elapsed()
        );
        gateway.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_given_up_for_those_that_wait() {
    let origin = pages().await;
    let gateway = Gateway::start(&format!(
        "{}[server]\nworkers = 1\nmax_connections = 2\n",
        shop(&[origin.address], "")
    ))
    .await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = from("127.0.0.2", &gateway).await;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        read_response(&mut stream).await;
        idle.push(stream);
    }
    assert_eq!(status(&gateway.get("/").await), 200);
    gateway.stopped().await;
}
