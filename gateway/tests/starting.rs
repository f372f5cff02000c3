//! A process whose stores are away when it starts: the shop is served at once, the sale when they are there, without another start. Over 500
//! lines because all of it needs the one process below, with real stores that come and go.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use sqlx::{Connection, Executor};

use crate::{
    crash::create_sale,
    postgres::Postgres,
    process::{API_KEY, Penstock, Process, eventually, free_port},
    support::{Origin, body, header, raw, status},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_penstock");

/// A configuration with a shop, sales and payments, and where it listens.
fn configure(folder: &Path, shop: SocketAddr, seckill: &str) -> (String, SocketAddr, SocketAddr) {
    let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = format!(
        "[server]\nworkers = 2\ntrusted_headers_from = [\"127.0.0.0/8\"]\n[log]\naccess = \"off\"\n\
         [[listener]]\naddress = \"{http}\"\n[admin]\naddress = \"{admin}\"\n\
         [[upstream]]\nname = \"shop\"\nendpoints = [{{ address = \"{shop}\" }}]\n\
         [[route]]\nname = \"shop\"\npath = \"/\"\nupstream = \"shop\"\n\
         [[route]]\nname = \"sales\"\npath = \"/v1/sales\"\nhandler = \"sales\"\n\
         [[route]]\nname = \"payments\"\npath = \"/v1/payment_intents\"\nhandler = \"payments\"\n\
         [seckill]\n{seckill}\nbuyer = \"header:x-buyer-id\"\nreclaim_after = \"1s\"\n\
         [payment]\napi_key = {{ file = \"{}\" }}\n",
        folder.join("api.key").display(),
    );
    std::fs::write(folder.join("api.key"), API_KEY).unwrap();
    let config = folder.join("penstock.toml");
    std::fs::write(&config, text).unwrap();
    (config.display().to_string(), http, admin)
}

fn words(config: &str) -> Vec<String> {
    ["serve", "--config", config].map(str::to_owned).to_vec()
}

async fn serve(folder: &Path, shop: SocketAddr, seckill: &str) -> Penstock {
    let (config, http, admin) = configure(folder, shop, seckill);
    let log = folder.join("penstock.log");
    let process = Process::start(PROGRAM, words(&config), log, http).await;
    Penstock {
        process,
        http,
        admin,
    }
}

fn stop(pid: u32) {
    let sent = Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

async fn redis(folder: &Path, port: u16, more: &[&str]) -> Process {
    let dir = folder.display().to_string();
    let port_text = port.to_string();
    let own = ["--port", &port_text, "--bind", "127.0.0.1", "--dir", &dir];
    let stored = [
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ];
    let words = own.iter().chain(&stored).chain(more);
    let words = words.map(|word| (*word).to_owned()).collect();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    Process::start("redis-server", words, folder.join("redis.log"), at).await
}

fn redis_cli(port: u16, words: &[&str]) -> String {
    let asked = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .output();
    String::from_utf8_lossy(&asked.unwrap().stdout).into_owned()
}

impl Penstock {
    async fn get(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
        raw(self.http, &request).await
    }

    async fn ask(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        raw(self.admin, &request).await
    }

    async fn post(&self, path: &str, more: &str, body: &str) -> String {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nx-buyer-id: ann\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        raw(self.http, &request).await
    }

    async fn buy(&self, sale: &str, sku: &str) -> String {
        let body = format!("{{\"sku\":\"{sku}\",\"quantity\":1}}");
        let more = format!("Idempotency-Key: {sku}\r\nContent-Type: application/json\r\n");
        self.post(&format!("/v1/sales/{sale}/orders"), &more, &body)
            .await
    }

    async fn pay(&self) -> String {
        let more = format!(
            "Authorization: Bearer {API_KEY}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        );
        self.post("/v1/payment_intents", &more, "amount=100&currency=usd")
            .await
    }

    /// Asserts that the shop is served, and its readiness with it.
    async fn assert_has_shop(&self) {
        assert_eq!(body(&self.get("/").await), "shop");
        assert_eq!(status(&self.ask("/ready").await), 200);
        assert_eq!(status(&self.ask("/ready?parts=").await), 200);
    }

    /// How often its log has this text.
    fn says(&self, text: &str) -> usize {
        self.process.log_text().matches(text).count()
    }
}

fn assert_refused(answer: &str, code: &str) {
    assert_eq!(status(answer), 503, "{answer}");
    assert!(header(answer, "retry-after").is_some(), "{answer}");
    assert!(
        body(answer).contains(&format!("\"code\":\"{code}\"")),
        "{answer}"
    );
}

// Broke: the edge of the whole shop did not start while one Redis was away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_at_the_start_keeps_no_shop_closed() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Origin::named("shop").await;
    let port = free_port();
    let mut store = redis(folder.path(), port, &[]).await;
    let stores = format!(
        "store = \"redis://127.0.0.1:{port}\"\nledger = \"sqlite:{}/ledger.db\"",
        folder.path().display()
    );
    let mut penstock = serve(folder.path(), shop.address, &stores).await;
    create_sale(penstock.admin);
    penstock.process.kill();
    store.kill();

    penstock.process.start_again().await;
    penstock.assert_has_shop().await;
    assert_refused(&penstock.buy("crash", "shoe").await, "unavailable");
    // What the ledger knows is answered.
    assert_eq!(status(&penstock.get("/v1/sales/crash").await), 200);
    let ready = penstock.ask("/ready/redis").await;
    assert_eq!(status(&ready), 503);
    assert!(body(&ready).contains("\"state\":\"failing\""), "{ready}");
    assert!(body(&ready).contains("cannot connect to redis"), "{ready}");
    assert_eq!(status(&penstock.ask("/ready/payments").await), 200);
    assert_eq!(status(&penstock.ask("/ready/nothing").await), 404);

    store.start_again().await;
    eventually("it sells", || async {
        penstock.assert_has_shop().await;
        status(&penstock.buy("crash", "shoe").await) == 201
    })
    .await;
    eventually("it says so", || async {
        status(&penstock.ask("/ready?parts=redis,sales").await) == 200
    })
    .await;
    assert_eq!(penstock.says("redis is not all there"), 1);
    assert_eq!(penstock.says("redis is all there again"), 1);

    // The same later: what is lost while it runs is told in the same way.
    store.kill();
    eventually("the loss is told", || async {
        status(&penstock.ask("/ready/redis").await) == 503
    })
    .await;
    penstock.assert_has_shop().await;
    assert_eq!(status(&penstock.buy("crash", "shoe").await) / 100, 5);
}

// Broke: the same for the ledger's database, which is the payments' too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_is_away_at_the_start_keeps_no_shop_closed() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Origin::named("shop").await;
    let postgres = Postgres::start().await;
    postgres.ask("createdb", &["shop"]).await;
    postgres.process.lock().await.kill();
    let stores = format!(
        "store = \"embedded:{}/journal\"\nledger = \"postgres://postgres@{}/shop\"",
        folder.path().display(),
        postgres.address
    );
    let penstock = serve(folder.path(), shop.address, &stores).await;
    penstock.assert_has_shop().await;
    assert_refused(&penstock.buy("crash", "shoe").await, "not_ready");
    let refused = penstock.pay().await;
    assert_refused(&refused, "not_ready");
    assert!(
        body(&refused).contains("\"type\":\"api_error\""),
        "{refused}"
    );
    for part in ["sales", "journal", "payments"] {
        let ready = penstock.ask(&format!("/ready/{part}")).await;
        assert_eq!(status(&ready), 503, "{part}");
        assert!(body(&ready).contains("\"state\":\"starting\""), "{ready}");
        assert!(body(&ready).contains("seckill.ledger: "), "{ready}");
    }
    let series = "penstock_part_ready{part=\"payments\"}";
    let shows = async |value: &str| {
        let page = penstock.ask("/metrics").await;
        page.lines().any(|line| line == format!("{series} {value}"))
    };
    eventually("the metric is there", || shows("0")).await;
    // A command is told why, and the configuration can be read again.
    let admin = format!("http://{}", penstock.admin);
    let run = |words: &[&str]| {
        let done = Command::new(PROGRAM)
            .args(words)
            .args(["--admin", &admin])
            .output();
        let done = done.unwrap();
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let (code, said) = run(&["sale", "list"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("have not started: seckill.ledger"), "{said}");
    assert_eq!(run(&["reload"]).0, Some(0));

    postgres.process.lock().await.start_again().await;
    eventually("it has started", || async {
        penstock.assert_has_shop().await;
        status(&penstock.ask("/ready?parts=sales,journal,payments").await) == 200
    })
    .await;
    create_sale(penstock.admin);
    assert_eq!(status(&penstock.buy("crash", "shoe").await), 201);
    assert_eq!(status(&penstock.pay().await), 200);
    eventually("the metric says so", || shows("1")).await;
    assert_eq!(penstock.says("sales and payments have started"), 1);
    // PostgreSQL says other things while it starts; each reason is told when it is new, not at each try.
    let log = penstock.process.log_text();
    let told = log.lines().filter_map(|line| {
        let told = line.contains("sales and payments cannot start yet");
        told.then(|| line.split_once("\"reason\":").map(|(_, reason)| reason))
    });
    let told: Vec<_> = told.collect();
    assert!(!told.is_empty() && !told.contains(&None), "{log}");
    assert!(told.windows(2).all(|two| two[0] != two[1]), "{log}");

    // Gone again: its workers wait for it, and the process ends all the same.
    postgres.process.lock().await.kill();
    stop(penstock.process.id());
    let (asked, mut process) = (tokio::time::Instant::now(), penstock.process);
    while process.is_running() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(asked.elapsed() < Duration::from_secs(10), "it goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_primaries_those_that_are_there_sell() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Origin::named("shop").await;
    let mut servers = Vec::new();
    for slots in [["0", "8191"], ["8192", "16383"]] {
        let (port, bus) = (free_port(), free_port().to_string());
        let own = folder.path().join(port.to_string());
        std::fs::create_dir(&own).unwrap();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let whole = ["--cluster-require-full-coverage", "no"];
        let server = redis(&own, port, &[cluster.as_slice(), &whole].concat()).await;
        redis_cli(port, &["cluster", "addslotsrange", slots[0], slots[1]]);
        redis_cli(
            port,
            &[
                "cluster",
                "set-config-epoch",
                &(servers.len() + 1).to_string(),
            ],
        );
        servers.push((server, port, bus));
    }
    let (second, bus) = (servers[1].1.to_string(), servers[1].2.clone());
    redis_cli(
        servers[0].1,
        &["cluster", "meet", "127.0.0.1", &second, &bus],
    );
    let ports = [servers[0].1, servers[1].1];
    eventually("the cluster forms", || async {
        ports.iter().all(|port| {
            let info = redis_cli(*port, &["cluster", "info"]);
            info.contains("cluster_state:ok") && info.contains("cluster_size:2")
        })
    })
    .await;
    let stores = format!(
        "store = \"redis-cluster://127.0.0.1:{},127.0.0.1:{}\"\nledger = \"sqlite:{}/ledger.db\"",
        ports[0],
        ports[1],
        folder.path().display()
    );
    let mut penstock = serve(folder.path(), shop.address, &stores).await;
    let skus: Vec<String> = (0..16).map(|n| format!("shoe-{n}")).collect();
    create_skus(&penstock, folder.path(), &skus);
    penstock.process.kill();
    servers[1].0.kill();

    penstock.process.start_again().await;
    penstock.assert_has_shop().await;
    let mut away = Vec::new();
    for sku in &skus {
        match status(&penstock.buy("spread", sku).await) {
            201 => {}
            503 => away.push(sku),
            other => panic!("{other} for {sku}"),
        }
    }
    assert!(!away.is_empty() && away.len() < skus.len(), "{away:?}");
    servers[1].0.start_again().await;
    for sku in away {
        eventually("the rest sells too", || async {
            status(&penstock.buy("spread", sku).await) == 201
        })
        .await;
    }
}

fn create_skus(penstock: &Penstock, folder: &Path, skus: &[String]) {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let skus = skus.iter();
    let skus: Vec<_> = skus
        .map(|sku| serde_json::json!({"sku": sku, "stock": 5, "price_minor": 100}))
        .collect();
    let sale = serde_json::json!({
        "id": "spread", "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "10m", "buyer_limit": 1,
        "currency": "usd", "skus": skus,
    });
    let file = folder.join("sale.json");
    std::fs::write(&file, sale.to_string()).unwrap();
    let created = Command::new(PROGRAM)
        .args([
            "sale",
            "create",
            "--admin",
            &format!("http://{}", penstock.admin),
            "--file",
        ])
        .arg(&file)
        .output();
    assert!(created.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_what_is_still_starting() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Origin::named("shop").await;
    // Accepts and never answers: the first try lasts.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let stores = format!(
        "store = \"embedded:{}/journal\"\nledger = \"postgres://postgres@{}/shop\"",
        folder.path().display(),
        deaf.local_addr().unwrap()
    );
    let (config, http, _) = configure(folder.path(), shop.address, &stores);
    for is_bound in [false, true] {
        let mut child = Command::new(PROGRAM)
            .args(words(&config))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let held = deaf.accept().unwrap();
        if is_bound {
            eventually("it listens although nothing has answered", || async {
                tokio::net::TcpStream::connect(http).await.is_ok()
            })
            .await;
        }
        stop(child.id());
        let asked = tokio::time::Instant::now();
        let ended = tokio::task::spawn_blocking(move || child.wait()).await;
        assert!(ended.unwrap().unwrap().success());
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}, bound: {is_bound}");
        drop(held);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_waiting_mends_still_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Origin::named("shop").await;
    let stores = format!(
        "store = \"embedded:{0}/journal\"\nledger = \"sqlite:{0}/ledger.db\"",
        folder.path().display()
    );
    let mut penstock = serve(folder.path(), shop.address, &stores).await;
    create_sale(penstock.admin);
    for _ in 0..3 {
        assert!(matches!(
            status(&penstock.buy("crash", "shoe").await),
            200 | 201
        ));
    }
    penstock.process.kill();
    let folder = folder.path().join("journal");
    let files = std::fs::read_dir(&folder).unwrap().flatten();
    let journal = files.map(|file| file.path()).find(|path| {
        path.extension()
            .is_some_and(|kind| kind == "log" || kind == "journal")
    });
    let journal = journal.unwrap_or_else(|| {
        panic!(
            "{:?}",
            std::fs::read_dir(&folder).unwrap().collect::<Vec<_>>()
        )
    });
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&journal, bytes).unwrap();
    let refused = penstock.process.try_start_again().await.unwrap_err();
    assert!(refused.contains("cannot serve"), "{refused}");
    assert!(refused.contains("seckill.store"), "{refused}");
    assert!(!refused.contains("trying again"), "{refused}");
}

/// A store that nothing mends but a backup.
fn damage(store: &Path) {
    std::fs::create_dir_all(store).unwrap();
    std::fs::write(store.join("journal-0000000001.log"), [7; 64]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_try_that_lasts_keeps_no_shop_closed_and_may_end_the_process_yet() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Origin::named("shop").await;
    let postgres = Postgres::start().await;
    postgres.ask("createdb", &["shop"]).await;
    // Whoever lays the tables waits for this lock: the try neither succeeds nor fails.
    let url = format!("postgres://postgres@{}/shop", postgres.address);
    let mut holder = sqlx::PgConnection::connect(&url).await.unwrap();
    let lock = "SELECT pg_advisory_lock(7363467)";
    holder.execute(lock).await.unwrap();
    damage(&folder.path().join("journal"));
    let stores = format!(
        "store = \"embedded:{}/journal\"\nledger = \"{url}\"",
        folder.path().display()
    );
    let mut penstock = serve(folder.path(), shop.address, &stores).await;
    penstock.assert_has_shop().await;
    assert_eq!(penstock.says("take long to start"), 1);
    let ready = penstock.ask("/ready/sales").await;
    assert!(
        body(&ready).contains("it has not been tried yet"),
        "{ready}"
    );
    assert_refused(&penstock.buy("crash", "shoe").await, "not_ready");

    drop(holder);
    let (asked, process) = (tokio::time::Instant::now(), &mut penstock.process);
    while process.is_running() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(asked.elapsed() < Duration::from_secs(20), "it goes on");
    }
    let log = penstock.process.log_text();
    assert!(
        log.contains("cannot serve") && log.contains("seckill.store"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_later_try_finds_is_told_and_the_shop_is_served_on() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Origin::named("shop").await;
    let postgres = Postgres::start().await;
    postgres.ask("createdb", &["shop"]).await;
    postgres.process.lock().await.kill();
    damage(&folder.path().join("journal"));
    let stores = format!(
        "store = \"embedded:{}/journal\"\nledger = \"postgres://postgres@{}/shop\"",
        folder.path().display(),
        postgres.address
    );
    let mut penstock = serve(folder.path(), shop.address, &stores).await;
    penstock.assert_has_shop().await;
    postgres.process.lock().await.start_again().await;
    eventually("the mistake is told", || async {
        body(&penstock.ask("/ready/journal").await).contains("seckill.store")
    })
    .await;
    penstock.assert_has_shop().await;
    assert!(penstock.process.is_running());
    assert_refused(&penstock.buy("crash", "shoe").await, "not_ready");
}
