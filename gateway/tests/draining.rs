//! Stopping: what is in flight ends, what is new is refused, nothing is cut off before the deadline.

use std::sync::Arc;

use http::Request;
use http_body_util::Empty;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

use crate::support::{
    Gateway, Origin, body, h2, header, read_response, reply, shop, status, text, within,
};

/// An origin that answers one request per permit.
async fn gated() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let for_origin = Arc::clone(&gate);
    let origin = Origin::start(move |_| {
        let gate = Arc::clone(&for_origin);
        async move {
            gate.acquire().await.unwrap().forget();
            reply(200, "finished")
        }
    })
    .await;
    (origin, gate)
}

async fn until(is_so: impl Fn() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Broke: an HTTP/2 client that is asleep, and so never answers GOAWAY, held a drain up until its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_asleep_holds_no_drain_up() {
    let origin = Origin::named("shop").await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    // Preface, empty SETTINGS, and a GET of / on stream 1 in static HPACK entries; then nothing is read or answered any more.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let block = [0x82, 0x84, 0x86, 0x41, 0x01, b'a'];
    bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    stream.write_all(&bytes).await.unwrap();
    until(|| origin.served() == 1).await;
    let begun = tokio::time::Instant::now();
    gateway.stopped().await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_finish_and_new_connections_are_refused() {
    let (origin, gate) = gated().await;
    let mut gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut h1 = TcpStream::connect(gateway.address()).await.unwrap();
    h1.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut sender = h2(TcpStream::connect(gateway.address()).await.unwrap()).await;
    let request = Request::get("http://a/").body(Empty::new()).unwrap();
    let over_h2 = tokio::spawn(sender.send_request(request));
    until(|| origin.served() == 2).await;

    gateway.stop();
    let address = gateway.address();
    within(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let ready = gateway.admin("/ready").await;
    assert_eq!(status(&ready), 503);
    assert!(ready.contains("draining"), "{ready}");
    assert_eq!(status(&gateway.admin("/live").await), 200);

    gate.add_permits(2);
    let answer = read_response(&mut h1).await;
    assert_eq!((status(&answer), body(&answer)), (200, "finished"));
    assert_eq!(header(&answer, "connection"), Some("close"));
    assert_eq!(within(h1.read(&mut [0; 1])).await.unwrap(), 0);
    assert_eq!(
        text(within(over_h2).await.unwrap().unwrap()).await,
        "finished"
    );
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_hold_a_drain_up() {
    let origin = Origin::named("shop").await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    let mut idle = TcpStream::connect(gateway.address()).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&read_response(&mut idle).await), 200);
    let sender = h2(TcpStream::connect(gateway.address()).await.unwrap()).await;
    gateway.stopped().await;
    assert_eq!(within(idle.read(&mut [0; 1])).await.unwrap(), 0);
    drop(sender);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_ends_what_never_would() {
    let (origin, _gate) = gated().await;
    let gateway = Gateway::start(&format!(
        "[server]\ndrain_deadline = \"200ms\"\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    until(|| origin.served() == 1).await;
    gateway.stopped().await;
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}
