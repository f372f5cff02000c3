//! kill -9 in mid-sale: of the gateway, and of Redis. Judged from the client's own history: whatever a buyer was told must be true
//! in the ledger after the restart.

use std::{net::SocketAddr, path::Path, time::Duration};

use loadtest::{
    Outcome, RunOutput,
    admin::AdminClient,
    scenario::{Admin, Buyers, Retry, Sale, Scenario, Shape},
};
use tokio::time::sleep;

use crate::process::{Penstock, Process, eventually, free_port};

pub const STOCK: u64 = 800;

pub fn create_sale(admin: SocketAddr) {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let sale = serde_json::json!({
        "id": "crash", "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "10m", "buyer_limit": 1,
        "currency": "usd", "skus": [{"sku": "shoe", "stock": STOCK, "price_minor": 100}],
    });
    let path = std::env::temp_dir().join(format!(
        "penstock-crash-{}-{}.json",
        std::process::id(),
        admin.port()
    ));
    std::fs::write(&path, sale.to_string()).unwrap();
    let created = std::process::Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args([
            "sale",
            "create",
            "--admin",
            &format!("http://{admin}"),
            "--file",
        ])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(
        created.status.success(),
        "{}",
        String::from_utf8_lossy(&created.stderr)
    );
}

/// 1,500 buyers for 800 units over ten seconds; a third of them sends its request twice. Slow enough that a restart or a backup on a
/// busy machine still falls into the sale.
pub fn scenario(penstock: &Penstock) -> Scenario {
    let shape = Shape::Constant {
        rate: 150.0,
        duration: Duration::from_secs(10),
    };
    let mut scenario = Scenario::new(format!("http://{}", penstock.http), shape);
    scenario.seed = 11;
    scenario.generator.connections = 32;
    scenario.generator.request_timeout = Duration::from_secs(5);
    scenario.admin = Some(Admin {
        url: format!("http://{}", penstock.admin),
        token_file: None,
    });
    scenario.sale = Some(Sale {
        id: "crash".into(),
        skus: vec!["shoe".into()],
        ..Sale::default()
    });
    scenario.buyers = Buyers {
        count: 1500,
        header: "x-buyer-id".into(),
        address_header: None,
    };
    scenario.retry = Retry {
        percent: 33.0,
        concurrent_percent: 30.0,
        within: Duration::from_secs(2),
    };
    scenario.reconcile.settle_timeout = Duration::from_secs(20);
    scenario.reconcile.returns_timeout = Duration::ZERO;
    scenario
}

/// Runs the load beside `faults`, waits until the gateway answers again, and judges.
pub async fn judge(penstock: &Penstock, scenario: &Scenario, output: RunOutput) {
    let admin = AdminClient::new(scenario.admin.as_ref().unwrap()).unwrap();
    eventually("the admin API answers for the sale", || async {
        admin.report("crash").await.is_ok()
    })
    .await;
    let found = loadtest::reconcile(scenario, &output.log).await.unwrap();
    assert!(
        found.findings.is_empty(),
        "{:#?}\n{:#?}\n{}",
        found.findings,
        output.report.outcomes,
        penstock.process.log_text()
    );
    let accepted = output.report.count(Outcome::Accepted);
    assert!(
        accepted > 100,
        "the run is of no use: {:#?}",
        output.report.outcomes
    );
    assert!(
        found.settled >= accepted,
        "{} settled, {accepted} acknowledged",
        found.settled
    );
    assert!(
        found.settled <= STOCK,
        "INV-STOCK-1: {} settled of {STOCK}",
        found.settled
    );
}

/// Waits until a sale has accepted so many orders.
pub async fn until_accepted(admin: SocketAddr, least: u64) {
    let url = format!("http://{admin}");
    let admin = AdminClient::new(&Admin {
        url,
        token_file: None,
    });
    let admin = admin.unwrap();
    eventually("so many orders are accepted", || async {
        let report = admin.report("crash").await;
        report.is_ok_and(|report| report.accepted >= least)
    })
    .await;
}

pub async fn load(scenario: &Scenario) -> RunOutput {
    loadtest::run(scenario, |_| {}, std::future::pending())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_gateway_killed_in_mid_sale_keeps_every_promise() {
    let folder = tempfile::tempdir().unwrap();
    let stores = format!(
        "store = \"embedded:{0}/journal\"\nledger = \"sqlite:{0}/ledger.db\"\ndurability = \"durable\"\nsnapshot_every = \"64KiB\"",
        folder.path().display()
    );
    let mut penstock = Penstock::start(folder.path(), &stores).await;
    create_sale(penstock.admin);
    let scenario = scenario(&penstock);
    let (output, ()) = tokio::join!(load(&scenario), async {
        for least in [STOCK / 8, STOCK / 4] {
            until_accepted(penstock.admin, least).await;
            penstock.process.kill();
            penstock.process.start_again().await;
        }
    });
    judge(&penstock, &scenario, output).await;
}

async fn redis(folder: &Path, port: u16) -> Process {
    let arguments = [
        ("--port", port.to_string()),
        ("--bind", "127.0.0.1".into()),
        ("--dir", folder.display().to_string()),
        ("--appendonly", "yes".into()),
        ("--appendfsync", "always".into()),
        ("--save", String::new()),
        ("--maxmemory-policy", "noeviction".into()),
    ];
    let arguments = arguments
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
    let ready = SocketAddr::from(([127, 0, 0, 1], port));
    Process::start("redis-server", arguments, folder.join("redis.log"), ready).await
}

#[tokio::test]
async fn a_redis_killed_in_mid_sale_keeps_every_promise() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut redis = redis(folder.path(), port).await;
    let stores = format!(
        "store = \"redis://127.0.0.1:{port}\"\nledger = \"sqlite:{}/ledger.db\"\ndurability = \"durable\"",
        folder.path().display()
    );
    let penstock = Penstock::start(folder.path(), &stores).await;
    create_sale(penstock.admin);
    let scenario = scenario(&penstock);
    let (output, ()) = tokio::join!(load(&scenario), async {
        until_accepted(penstock.admin, STOCK / 4).await;
        redis.kill();
        // Long enough that buyers meet the outage.
        sleep(Duration::from_millis(300)).await;
        redis.start_again().await;
    });
    judge(&penstock, &scenario, output).await;
}
