//! `penstock demo`: the whole flow on free ports of this machine. A gateway, a sample shop behind it, one sale, a peak with
//! payments and abandoned orders, and a verdict from the client's own history against the order ledger.

mod scenario;
mod shop;
mod verdict;

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::Args;
use loadtest::{Report, live::Live, scenario::Scenario};
use seckill::engine::SaleEngine;
use tokio_util::sync::CancellationToken;

use self::{
    shop::{EVENTS_PATH, PRODUCT_PATH, Shop, Till},
    verdict::Deliveries,
};
use crate::{
    compose::{
        self,
        edge::{Addresses, App, AppError},
    },
    config::{Config, Inputs},
    signals,
};

const CONFIG: &str = include_str!("config.toml");
const SALE: &str = "demo";
const SKU: &str = "trail-shoe";
const PRICE_MINOR: u64 = 1999;
/// Short enough that abandoned orders go back on sale while buyers still come.
const PAY_WITHIN: Duration = Duration::from_secs(6);
/// The sale of the product page (`--keep`), and how long its orders are kept.
const KEPT_SALE: &str = "corner";
const KEPT_PAY_WITHIN: Duration = Duration::from_secs(600);
/// The sale outlives the peak, its payments and its returns.
const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Options of the demo.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Write the verdict as one JSON object to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave everything running afterwards, print the URLs
    #[arg(long)]
    keep: bool,
    /// Distinct buyers; each comes once
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    buyers: u32,
    /// Units on sale
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    stock: u64,
    /// Seed of all random choices of the load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Append progress lines instead of drawing in place
    #[arg(long)]
    plain: bool,
}

/// Runs the demo and gives its exit code.
pub async fn run(args: &DemoArgs) -> anyhow::Result<u8> {
    // Opened first: half a minute is too long to learn that a file cannot be written.
    let json = args.json.as_ref().map(|path| {
        std::fs::File::create(path).with_context(|| format!("--json {}", path.display()))
    });
    let json = json.transpose()?;
    let folder = Folder::new()?;
    let api_key = format!("sk_test_{:032x}", rand::random::<u128>());
    let secret = format!("whsec_{:032x}", rand::random::<u128>());
    let shop = Shop::new(secret.as_bytes());
    let shop_address = shop
        .clone()
        .serve()
        .await
        .context("the sample shop cannot listen")?;
    let text = CONFIG
        .replace("@shop@", &shop_address.to_string())
        .replace("@events@", EVENTS_PATH)
        .replace("@data@", &folder.0.display().to_string());
    let environment = |name: &str| match name {
        "DEMO_API_KEY" => Some(api_key.clone()),
        "DEMO_WEBHOOK_SECRET" => Some(secret.clone()),
        _ => None,
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let inputs = Inputs {
        read: &|path| std::fs::read(path),
        is_folder: &std::path::Path::is_dir,
        env: &environment,
        cores,
    };
    let config = Config::try_parse(&text, &inputs)?;

    let (mut app, services) = compose::build(config).await?;
    let services = services.context("the demo's configuration has no sales")?;
    let addresses = app.addresses().clone();
    let certificate = app
        .certificates()
        .first()
        .map(|leaf| pem(leaf))
        .context("the demo's listener has no certificate")?;
    let engine = services.engine().await.context("the demo did not start")?;
    create_sale(&engine, args.stock).await?;
    shop.open_till(Till {
        gateway: addresses.listeners[1],
        api_key: api_key.clone(),
        price_minor: PRICE_MINOR,
    });
    announce(args, &addresses, shop_address);

    let stop = CancellationToken::new();
    let serving: tokio::task::JoinHandle<Result<App, AppError>> = tokio::spawn({
        let stop = stop.clone();
        async move {
            app.run(stop.cancelled_owned()).await?;
            Ok(app)
        }
    });
    let mut scenario = scenario::scenario(args, &addresses, certificate, &api_key);
    let report = peak(args, &mut scenario).await?;
    let deliveries = delivered(&shop, &engine).await;
    let code = verdict::conclude(args, json, &report, &deliveries)?;

    if args.keep && !report.interrupted {
        create_kept(&engine).await?;
        print(&keep_text(&addresses, shop_address, &api_key))?;
        signals::shutdown().await;
    }
    stop.cancel();
    let app = serving.await.context("the gateway ended badly")??;
    services.stop().await?;
    // Joins the cores' threads: not on a runtime's own thread.
    tokio::task::spawn_blocking(move || drop(app)).await?;
    Ok(code)
}

/// The sale of the peak.
async fn create_sale(engine: &SaleEngine, stock: u64) -> anyhow::Result<()> {
    create(engine, SALE, stock, PAY_WITHIN, 1).await
}

/// The sale of the product page, with time to look at it.
async fn create_kept(engine: &SaleEngine) -> anyhow::Result<()> {
    create(engine, KEPT_SALE, 100, KEPT_PAY_WITHIN, 5).await
}

async fn create(
    engine: &SaleEngine,
    id: &str,
    stock: u64,
    pay_within: Duration,
    buyer_limit: u32,
) -> anyhow::Result<()> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_millis() as u64;
    let sale = serde_json::from_value::<seckill::sale::NewSale>(serde_json::json!({
        "id": id, "starts_at_ms": now, "ends_at_ms": now + WINDOW.as_millis() as u64,
        "pay_within": format!("{}s", pay_within.as_secs()), "buyer_limit": buyer_limit, "currency": "usd",
        "skus": [{"sku": SKU, "stock": stock, "price_minor": PRICE_MINOR}],
    }))?;
    let sale = sale
        .check()
        .map_err(|problems| anyhow::anyhow!("the demo's sale has problems: {problems:?}"))?;
    engine.create_sale(sale).await?;
    Ok(())
}

async fn peak(args: &DemoArgs, scenario: &mut Scenario) -> anyhow::Result<Report> {
    let mut live = Live::new(args.plain);
    let report = loadtest::run_and_check(
        scenario,
        |progress| live.show(progress),
        signals::shutdown(),
    )
    .await?;
    live.end();
    Ok(report)
}

/// Waits until all events are delivered, for ten seconds at most.
async fn delivered(shop: &Shop, engine: &SaleEngine) -> Deliveries {
    let mut pending = u64::MAX;
    for _ in 0..100 {
        let sale = SALE.parse().expect("a valid id");
        pending = match engine.ledger().report(&sale).await {
            Ok(Some(report)) => report.outbox_pending,
            _ => u64::MAX,
        };
        if pending == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (signed, forged) = shop.events();
    Deliveries {
        signed,
        forged,
        pending,
    }
}

fn announce(args: &DemoArgs, addresses: &Addresses, shop: std::net::SocketAddr) {
    eprintln!(
        "gateway  https://{}   (TLS 1.3, certificate made just now)\nshop     http://{shop}   (behind it)\nadmin    http://{}/metrics\n\
         {} units, {} buyers, one in ten clicks twice, a quarter does not pay\n",
        addresses.listeners[0], addresses.admin, args.stock, args.buyers
    );
}

fn keep_text(addresses: &Addresses, shop: std::net::SocketAddr, api_key: &str) -> String {
    let (tls, plain, admin) = (
        addresses.listeners[0],
        addresses.listeners[1],
        addresses.admin,
    );
    format!(
        "\nStill running; Ctrl-C ends it.\n\
         \x20 product page  http://{plain}{PRODUCT_PATH}\n\
         \x20               buy, pay and cancel there; it goes through the gateway\n\
         \x20 the same, TLS https://{tls}{PRODUCT_PATH}\n\
         \x20 shop itself   http://{shop}/\n\
         \x20 metrics       http://{admin}/metrics\n\
         \x20 its counts    http://{admin}/admin/v1/sales/{KEPT_SALE}/report\n\
         \x20 payment key   {api_key}\n\
         \x20 by hand       curl http://{plain}/v1/sales/{KEPT_SALE}/orders \\\n\
         \x20   -H 'x-buyer-id: me' -H 'idempotency-key: 1' \\\n\
         \x20   -H 'content-type: application/json' -d '{{\"sku\":\"{SKU}\"}}'\n"
    )
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("standard output")
}

fn pem(certificate: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// A folder for one run, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!(
            "penstock-demo-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        ));
        std::fs::create_dir_all(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leaving a temporary folder behind is no reason to end badly.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
