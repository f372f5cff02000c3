//! What the gateway refuses, and that a refused request reaches no upstream (INV-EDGE-2).

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::support::{Gateway, Origin, body, header, shop, status, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_over_its_rate_is_told_when_to_come_back() {
    let origin = Origin::named("shop").await;
    let text = shop(&[origin.address], "").replace(
        "name = \"shop\"\nupstream",
        "name = \"limited-shop\"\nlimits = [\"per-ip\"]\nupstream",
    );
    let gateway = Gateway::start(&format!(
        "{text}[[limit]]\nname = \"per-ip\"\nkey = \"ip\"\nrate = \"1/m\"\nburst = 2\n"
    ))
    .await;
    assert_eq!(status(&gateway.get("/").await), 200);
    assert_eq!(status(&gateway.get("/").await), 200);
    let refused = gateway.get("/").await;
    assert_eq!(status(&refused), 429);
    assert!(body(&refused).contains("\"code\":\"limited\""), "{refused}");
    let wait: u64 = header(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(
        header(&refused, "ratelimit")
            .unwrap()
            .starts_with("\"per-ip\";r=0;t=")
    );
    assert_eq!(origin.served(), 2);
    let series =
        "penstock_requests_total{route=\"limited-shop\",outcome=\"limited\",protocol=\"h1\"}";
    gateway.eventually_metric(series, 1.0).await;
    gateway
        .eventually_metric(
            "penstock_ratelimit_decisions_total{limiter=\"per-ip\",decision=\"limited\"}",
            1.0,
        )
        .await;
    gateway.stopped().await;
}

/// Broke: requests without the header shared one bucket, so one client took everybody's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_the_key_of_a_limit_do_not_share_one_bucket() {
    let origin = Origin::named("shop").await;
    let text = shop(&[origin.address], "").replace(
        "name = \"shop\"\nupstream",
        "name = \"limited-shop\"\nlimits = [\"per-buyer\"]\nupstream",
    );
    let gateway = Gateway::start(&format!(
        "{text}[[limit]]\nname = \"per-buyer\"\nkey = \"header:x-buyer-id\"\nrate = \"1/m\"\nburst = 2\n"
    ))
    .await;
    let ask_from = async |client: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(gateway.address()).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        status(&answer)
    };
    for _ in 0..2 {
        assert_eq!(ask_from("127.0.0.2").await, 200);
    }
    assert_eq!(ask_from("127.0.0.2").await, 429);
    assert_eq!(ask_from("127.0.0.3").await, 200);
    gateway.stopped().await;
}

/// Broke: with `buyer = "jwt:sub"` a limit by header put all buyers into one bucket. A forged token must not buy a bucket of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_by_buyer_follows_the_configured_identity() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("login.key");
    std::fs::write(&key_file, "a secret of the shop and its login").unwrap();
    let jwt = format!(
        "buyer = \"jwt:sub\"\njwt = {{ algorithm = \"HS256\", key_file = \"{}\" }}\n",
        key_file.display()
    );
    let header = "buyer = \"header:x-member\"\n".to_owned();
    for (identity, field) in [(jwt, "Authorization"), (header, "X-Member")] {
        let is_jwt = field == "Authorization";
        let named = |name: &str, secret: &str| match is_jwt {
            true => format!("Bearer {}", token(name, secret)),
            false => name.to_owned(),
        };
        let origin = Origin::named("shop").await;
        let text = shop(&[origin.address], "").replace(
            "name = \"shop\"\nupstream",
            "name = \"by-buyer\"\nlimits = [\"per-buyer\"]\nupstream",
        );
        let gateway = Gateway::start(&format!(
            "{text}[server]\ntrusted_headers_from = [\"127.0.0.1\"]\n\
             [[limit]]\nname = \"per-buyer\"\nkey = \"buyer\"\nrate = \"1/m\"\nburst = 1\n\
             [seckill]\nstore = \"embedded:{}\"\n{identity}",
            folder.path().join("store").display()
        ))
        .await;
        let ask = async |value: &str| {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{field}: {value}\r\nConnection: close\r\n\r\n"
            );
            status(&gateway.raw(&request).await)
        };
        let login = "a secret of the shop and its login";
        for buyer in ["ann", "bob", "cid"] {
            assert_eq!(ask(&named(buyer, login)).await, 200, "{field} {buyer}");
            assert_eq!(ask(&named(buyer, login)).await, 429, "{field} {buyer}");
        }
        if is_jwt {
            // Nobody's word for it: these go by the address they share.
            assert_eq!(ask(&named("dan", "another secret, of nobody")).await, 200);
            assert_eq!(ask(&named("eve", "another secret, of nobody")).await, 429);
        }
        gateway.stopped().await;
    }
}

/// Broke: a refusal by the second limit had spent the first one's token, and of two reports the last one only was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_one_limit_refuses_costs_the_others_nothing() {
    let origin = Origin::named("shop").await;
    let limit = |name: &str, count: u32| {
        format!("[[limit]]\nname = \"{name}\"\nkey = \"ip\"\nrate = \"{count}/h\"\nreport = true\n")
    };
    let gateway = Gateway::start(&format!(
        "{}[[route]]\npath = \"/both\"\nupstream = \"shop\"\nlimits = [\"wide\", \"narrow\"]\n\
         [[route]]\npath = \"/wide\"\nupstream = \"shop\"\nlimits = [\"wide\"]\n{}{}",
        shop(&[origin.address], ""),
        limit("wide", 5),
        limit("narrow", 1)
    ))
    .await;
    let first = gateway.get("/both").await;
    assert_eq!(first.matches("ratelimit: ").count(), 2, "{first}");
    for _ in 0..5 {
        assert_eq!(status(&gateway.get("/both").await), 429);
    }
    for _ in 0..4 {
        assert_eq!(status(&gateway.get("/wide").await), 200);
    }
    assert_eq!(status(&gateway.get("/wide").await), 429);
    gateway.stopped().await;
}

/// Broke: an upload of one byte before every pause went on for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_below_the_least_rate_is_answered_408() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&format!(
        "{}[server]\nbody_timeout = \"1s\"\nmin_rate = \"1KiB\"\n",
        shop(&[origin.address], "")
    ))
    .await;
    let mut stream = tokio::net::TcpStream::connect(gateway.address())
        .await
        .unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let drip = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let mut answer = String::new();
    let _ = within(read.read_to_string(&mut answer)).await;
    assert_eq!(status(&answer), 408);
    assert_eq!(origin.served(), 0);
    drip.abort();
    gateway.stopped().await;
}

fn token(sub: &str, secret: &str) -> String {
    let claims = serde_json::json!({"sub": sub, "exp": 4_000_000_000_u64});
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    seckill::jwt::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused() {
    let origin = Origin::named("shop").await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "NONSENSE\r\n\r\n",
    ] {
        let answer = gateway.raw(bad).await;
        assert_eq!(status(&answer), 400, "{bad:?} got {answer:?}");
    }
    let traced = gateway
        .raw("TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status(&traced), 405);
    assert_eq!(origin.served(), 0);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_framings_never_make_two_requests() {
    // Content-Length and Transfer-Encoding together: hyper reads the chunks, drops the length and closes the connection, so
    // what a smuggler hides behind the body is neither a request here nor at the origin.
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&shop(&[origin.address], "")).await;
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ] {
        let before = origin.served();
        let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = gateway
            .raw(&format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\n{hidden}"
            ))
            .await;
        assert!(!answer.contains("/hidden"), "{answer}");
        assert!(!body(&answer).contains("content-length"), "{answer}");
        assert_eq!(header(&answer, "connection"), Some("close"), "{answer}");
        assert!(origin.served() - before <= 1);
    }
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_beyond_their_bounds_are_refused() {
    let origin = Origin::named("shop").await;
    let gateway = Gateway::start(&format!(
        "[server]\nmax_header_bytes = \"16KiB\"\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n",
        "x".repeat(17 << 10)
    );
    assert_eq!(status(&gateway.raw(&long).await), 431);
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X-Many: 1\r\n".repeat(150)
    );
    assert_eq!(status(&gateway.raw(&many).await), 431);
    assert_eq!(origin.served(), 0);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_beyond_their_bound_are_refused_announced_or_not() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&format!(
        "[server]\nmax_body = \"1KiB\"\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    let announced = gateway
        .raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n")
        .await;
    assert_eq!(status(&announced), 413);
    assert!(body(&announced).contains("\"code\":\"body_too_large\""));
    assert_eq!(origin.served(), 0);
    let piece = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let streamed = gateway
        .raw(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{piece}{piece}0\r\n\r\n"))
        .await;
    assert_eq!(status(&streamed), 413);
    let exact = gateway
        .raw(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1024\r\n\r\n{}",
            "x".repeat(1024)
        ))
        .await;
    assert_eq!(status(&exact), 200);
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers_and_idle_connections_are_closed() {
    let origin = Origin::named("shop").await;
    let gateway = Gateway::start(&format!(
        "[server]\nheader_timeout = \"300ms\"\nidle_timeout = \"300ms\"\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    let since = Instant::now();
    let mut slow = TcpStream::connect(gateway.address()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-")
        .await
        .unwrap();
    let mut idle = TcpStream::connect(gateway.address()).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    // An HTTP/2 client that never finishes its preface.
    let mut half = TcpStream::connect(gateway.address()).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = within(slow.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    let _ = within(half.read_to_end(&mut Vec::new())).await;
    let _ = within(idle.read_to_end(&mut rest)).await;
    assert_eq!(status(&String::from_utf8_lossy(&rest)), 200);
    assert!(since.elapsed() >= Duration::from_millis(300));
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_pauses_for_too_long_is_answered_408() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&format!(
        "[server]\nbody_timeout = \"200ms\"\n{}",
        shop(&[origin.address], "")
    ))
    .await;
    let answer = gateway
        .raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    assert_eq!(status(&answer), 408, "{answer}");
    gateway.stopped().await;
}
