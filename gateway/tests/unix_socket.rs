//! A shop on the same machine, at the path of its socket.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
    task::JoinHandle,
};

use crate::{
    support::{Gateway, Origin, body, shop, status, within},
    tunnel::{echoing, ping, tunnel},
};

/// The socket of an origin: bytes go to its port and back.
struct Socket {
    bridge: JoinHandle<()>,
}

impl Socket {
    fn bind(path: &Path, origin: &Origin) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let address = origin.address;
        let bridge = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(address).await.unwrap();
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Self { bridge }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.bridge.abort();
    }
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.sock");
    (folder, path)
}

fn shop_at(path: &Path, extra: &str) -> String {
    let anywhere = "127.0.0.1:9".parse().unwrap();
    shop(&[anywhere], extra).replace("127.0.0.1:9", &format!("unix:{}", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_behind_a_socket_is_asked_as_any_other() {
    let origin = Origin::echo().await;
    let (_folder, path) = place();
    let _socket = Socket::bind(&path, &origin);
    let gateway = Gateway::start(&shop_at(&path, "")).await;
    let large = "x".repeat(1 << 20);
    let length = large.len();
    for _ in 0..3 {
        let request = format!(
            "POST /cart HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{large}"
        );
        let answer = gateway.raw(&request).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let seen = body(&answer);
        assert!(seen.contains("host: shop.test\n"), "{seen}");
        assert!(seen.contains(&format!("length: {length}\n")), "{seen}");
    }
    let series = "penstock_upstream_connects_total{upstream=\"shop\",result=\"ok\"}";
    gateway.eventually_metric_from(series, 1.0).await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_whose_socket_is_made_later_is_found() {
    let origin = Origin::named("here").await;
    let (_folder, path) = place();
    let gateway = Gateway::start(&shop_at(&path, "breaker = false\n")).await;
    assert_eq!(status(&gateway.get("/").await), 502);
    let first = Socket::bind(&path, &origin);
    assert_eq!(body(&gateway.get("/").await), "here");
    // A server that is started again makes its socket anew.
    drop(first);
    std::fs::remove_file(&path).unwrap();
    let _second = Socket::bind(&path, &origin);
    assert_eq!(body(&gateway.get("/").await), "here");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_of_a_socket_asks_localhost() {
    let origin = Origin::start(|request| async move {
        let host = request.headers()["host"].clone();
        let is_check = request.uri().path() == "/healthz";
        let is_sick = is_check && host != "localhost";
        crate::support::reply(if is_sick { 400 } else { 200 }, "well")
    })
    .await;
    let (_folder, path) = place();
    let _socket = Socket::bind(&path, &origin);
    let health = "health = { path = \"/healthz\", interval = \"20ms\", unhealthy = 1 }\n";
    let gateway = Gateway::start(&shop_at(&path, health)).await;
    within(async {
        while origin.served() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(body(&gateway.get("/").await), "well");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_leads_through_a_socket() {
    let origin = echoing().await;
    let (_folder, path) = place();
    let _socket = Socket::bind(&path, &origin);
    let gateway = Gateway::start(&shop_at(&path, "")).await;
    let mut stream = tunnel(&gateway).await;
    ping(&mut stream).await;
    drop(stream);
    gateway.stopped().await;
}
