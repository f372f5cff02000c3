//! A configuration that is read again while requests go on: none of them fails, what stays is kept, and a bad one changes nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use gateway::compose::{
    edge::Handlers,
    reload::{ReloadError, Reloader},
};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    Gateway, Origin, body, header, read_response, shop, status, trusting, try_config,
};

/// A gateway whose file is the text in `file`.
struct Reloading {
    gateway: Gateway,
    reloader: Reloader,
    file: Arc<Mutex<String>>,
}

impl Reloading {
    async fn start(text: &str) -> Self {
        let file = Arc::new(Mutex::new(with_listeners(text)));
        let source = Arc::clone(&file);
        let reloader = Reloader::new(move || try_config(&source.lock().unwrap()));
        let text = file.lock().unwrap().clone();
        let gateway = Gateway::start_reloading(&text, Handlers::default(), reloader.clone()).await;
        Self {
            gateway,
            reloader,
            file,
        }
    }

    async fn reload(&self, text: &str) -> Result<u64, ReloadError> {
        *self.file.lock().unwrap() = with_listeners(text);
        self.reloader.reload().await.map(|done| done.generation)
    }

    async fn get(&self, path: &str) -> String {
        self.gateway.get(path).await
    }
}

fn with_listeners(text: &str) -> String {
    format!(
        "[log]\naccess = \"off\"\n{text}\n[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n"
    )
}

fn weighted(endpoints: &[(SocketAddr, u32)]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|(address, weight)| format!("{{ address = \"{address}\", weight = {weight} }}"))
        .collect();
    format!(
        "[[route]]\npath = \"/\"\nname = \"shop\"\nupstream = \"shop\"\n[[upstream]]\nname = \"shop\"\nendpoints = [{}]\n",
        endpoints.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_endpoints_come_go_and_change_their_weight() {
    let (one, two, three) = tokio::join!(
        Origin::named("one"),
        Origin::named("two"),
        Origin::named("three")
    );
    let (a, b, c) = (one.address, two.address, three.address);
    let gateway = Arc::new(Reloading::start(&weighted(&[(a, 1), (b, 1)])).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let address = gateway.gateway.address();
            let (is_over, served) = (Arc::clone(&is_over), Arc::clone(&served));
            tokio::spawn(async move {
                // One connection for all of it: a reload drops none.
                let mut stream = TcpStream::connect(address).await.unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    stream
                        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                        .await
                        .unwrap();
                    let answer = read_response(&mut stream).await;
                    assert_eq!(status(&answer), 200, "{answer}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let plans = [
        vec![(a, 1), (b, 5)],
        vec![(b, 1)],
        vec![(b, 1), (c, 3)],
        vec![(a, 2), (b, 2), (c, 2)],
    ];
    for (at, plan) in plans.iter().cycle().take(40).enumerate() {
        let generation = gateway.reload(&weighted(plan)).await.unwrap();
        assert_eq!(generation, at as u64 + 2);
        let before = served.load(Ordering::Relaxed);
        while served.load(Ordering::Relaxed) < before + 20 {
            tokio::task::yield_now().await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(three.served() > 0 && one.served() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_keeps_its_connections_and_its_breaker() {
    let (good, dead) = (Origin::named("good").await, Origin::nobody().await);
    let breaker =
        "[upstream.breaker]\nconsecutive_failures = 1\nopen_for = \"1h\"\nfailure_ratio = 1.0";
    let one = format!(
        "{}{breaker}\n",
        weighted(&[(good.address, 1)]).replace("\"shop\"", "\"kept\"")
    );
    let gateway = Reloading::start(&one).await;
    for _ in 0..10 {
        assert_eq!(status(&gateway.get("/").await), 200);
    }
    let connects = "penstock_upstream_connects_total{upstream=\"kept\",result=\"ok\"}";
    let before = gateway.gateway.metric(connects).await;
    let both = weighted(&[(good.address, 1), (dead, 1)]).replace("\"shop\"", "\"kept\"");
    gateway.reload(&format!("{both}{breaker}\n")).await.unwrap();
    // The dead one is found out once, and its breaker stays open over the next reload.
    for _ in 0..6 {
        assert_eq!(status(&gateway.get("/").await), 200);
    }
    let failed = "penstock_upstream_connects_total{upstream=\"kept\",result=\"failed\"}";
    gateway.gateway.eventually_metric(failed, 1.0).await;
    let turned = weighted(&[(dead, 3), (good.address, 1)]).replace("\"shop\"", "\"kept\"");
    gateway
        .reload(&format!("{turned}{breaker}\n"))
        .await
        .unwrap();
    for _ in 0..6 {
        assert_eq!(status(&gateway.get("/").await), 200);
    }
    // Counts come together: when those of all requests are there, so are those of their connections.
    let answered = "penstock_requests_total{route=\"kept\",outcome=\"ok\",protocol=\"h1\"}";
    gateway.gateway.eventually_metric(answered, 22.0).await;
    assert_eq!(gateway.gateway.metric(failed).await, 1.0);
    // Both cores may have had to make one of their own; none was made anew for a reload.
    assert!(gateway.gateway.metric(connects).await <= before.max(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_keeps_the_route_it_began_with() {
    let go_on = Arc::new(tokio::sync::Notify::new());
    let waiting = Arc::clone(&go_on);
    let slow = Origin::start(move |_| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.notified().await;
            crate::support::reply(200, "slow")
        }
    })
    .await;
    let other = Origin::named("other").await;
    let gateway = Arc::new(Reloading::start(&shop(&[slow.address], "")).await);
    let asking = Arc::clone(&gateway);
    let asked = tokio::spawn(async move { asking.get("/").await });
    while slow.served() == 0 {
        tokio::task::yield_now().await;
    }
    gateway.reload(&shop(&[other.address], "")).await.unwrap();
    assert_eq!(body(&gateway.get("/").await), "other");
    go_on.notify_one();
    assert_eq!(body(&asked.await.unwrap()), "slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_limits_and_server_settings_change() {
    let origin = Origin::named("shop").await;
    let gateway = Reloading::start(&shop(&[origin.address], "")).await;
    assert_eq!(status(&gateway.get("/old").await), 200);
    let changed = format!(
        "[server]\nmax_headers = 10\n{}[[route]]\npath = \"/old\"\nhandler = \"redirect\"\nto = \"https://new.example\"\n\
         [[route]]\npath = \"/slow\"\nupstream = \"shop\"\nlimits = [\"once\"]\n\
         [[limit]]\nname = \"once\"\nkey = \"ip\"\nrate = \"1/h\"\nburst = 1\n",
        shop(&[origin.address], "")
    );
    gateway.reload(&changed).await.unwrap();
    let moved = gateway.get("/old").await;
    assert_eq!(header(&moved, "location"), Some("https://new.example/old"));
    assert_eq!(status(&gateway.get("/slow").await), 200);
    assert_eq!(status(&gateway.get("/slow").await), 429);
    // A limit that stays as it is keeps what it has counted.
    gateway
        .reload(&format!("{changed}\n# nothing new"))
        .await
        .unwrap();
    assert_eq!(status(&gateway.get("/slow").await), 429);
    let many: String = (0..12).map(|at| format!("X-{at}: 1\r\n")).collect();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{many}\r\n");
    assert_eq!(status(&gateway.gateway.raw(&request).await), 431);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_with_problems_or_fixed_keys_changes_nothing() {
    let (old, new) = tokio::join!(Origin::named("old"), Origin::named("new"));
    let gateway = Reloading::start(&shop(&[old.address], "")).await;
    let wrong = format!(
        "{}[server]\nmax_headres = 10\nvia = 3\n",
        shop(&[new.address], "")
    );
    let refused = gateway.reload(&wrong).await.unwrap_err().to_string();
    assert!(refused.contains("max_headers"), "{refused}");
    assert!(refused.contains("server.via"), "{refused}");
    assert_eq!(body(&gateway.get("/").await), "old");
    let fixed = format!("{}[server]\nworkers = 1\n", shop(&[new.address], ""));
    let refused = gateway.reload(&fixed).await.unwrap_err();
    assert!(
        matches!(&refused, ReloadError::Fixed(keys) if *keys == ["server.workers"]),
        "{refused}"
    );
    assert_eq!(body(&gateway.get("/").await), "old");
    gateway.reload(&shop(&[new.address], "")).await.unwrap();
    assert_eq!(body(&gateway.get("/").await), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_reloads_and_names_every_problem() {
    let origin = Origin::named("shop").await;
    let gateway = Reloading::start(&shop(&[origin.address], "")).await;
    let admin = gateway.gateway.addresses.admin;
    let post = async || {
        let request = "POST /admin/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let answer = crate::support::raw(admin, request).await;
        let document: Value = serde_json::from_str(body(&answer)).unwrap();
        (status(&answer), document)
    };
    let (code, done) = post().await;
    assert_eq!((code, &done["generation"]), (200, &Value::from(2)));
    *gateway.file.lock().unwrap() = "[admin]\nadress = \"x\"\n".to_owned();
    let (code, refused) = post().await;
    assert_eq!(
        (code, refused["code"].as_str()),
        (422, Some("bad_configuration"))
    );
    assert!(
        refused["problems"].as_array().unwrap().len() >= 2,
        "{refused}"
    );
    *gateway.file.lock().unwrap() =
        with_listeners(&shop(&[origin.address], "")).replace("off", "stdout");
    let (code, refused) = post().await;
    assert_eq!(
        (code, &refused["problems"][0]),
        (409, &Value::from("log.access"))
    );
    let refusals = gateway
        .gateway
        .metric("penstock_config_reloads_total{result=\"refused\"}");
    assert!(refusals.await >= 2.0);
}

/// The files of a certificate for `shop.example` and another name, and its leaf.
fn certificate(folder: &std::path::Path, name: &str) -> CertificateDer<'static> {
    let names = vec!["shop.example".to_owned(), name.to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.join("shop.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("shop.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_and_an_open_connection_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let old = certificate(folder.path(), "old.example");
    let origin = Origin::named("shop").await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "{}[[listener]]\naddress = \"127.0.0.1:0\"\ntls = [{{ cert = \"{}\", key = \"{}\" }}]\n",
        shop(&[origin.address], ""),
        path("shop.pem"),
        path("shop.key")
    );
    let gateway = Reloading::start(&text).await;
    let address = gateway.gateway.addresses.listeners[0];
    let mut open = trusting(address, &old).await.unwrap();
    let new = certificate(folder.path(), "new.example");
    assert!(
        trusting(address, &new).await.is_err(),
        "not before the reload"
    );
    gateway.reload(&text).await.unwrap();
    assert!(trusting(address, &new).await.is_ok());
    assert!(trusting(address, &old).await.is_err());
    open.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&read_response(&mut open).await), 200);
    // A key that is no pair of the certificate changes nothing.
    let other = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    std::fs::write(
        folder.path().join("shop.key"),
        other.signing_key.serialize_pem(),
    )
    .unwrap();
    assert!(gateway.reload(&text).await.is_err());
    assert!(trusting(address, &new).await.is_ok());
}
