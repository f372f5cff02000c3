//! `penstock sale …` and `penstock reconcile`: the admin API from the command line.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use http::Method;
use seckill::sale::parse_duration_ms;
use serde_json::{Value, json};

use crate::admin_client::{Admin, call, call_on, print};

/// What to do with sales.
#[derive(Debug, Clone, Subcommand)]
pub enum SaleCommand {
    /// Create a sale
    #[command(
        after_help = "Example:\n  penstock sale create --id spring --sku shoe-42 --stock 1000 --price 1999 --currency usd \
                            --starts-in 10m --lasts 2h --buyer-limit 2 --pay-within 15m"
    )]
    Create(Box<CreateArgs>),
    /// List all sales
    List,
    /// Show a sale: its rules and its counts
    Show {
        /// Id of the sale
        sale: String,
    },
    /// Make a draft visible to buyers and open its stock
    Publish {
        /// Id of the sale
        sale: String,
    },
    /// Change a draft, or the window of a published sale, from the version that is in force
    #[command(
        after_help = "Example:\n  penstock sale edit spring --set buyer_limit=3 --set 'pay_within=\"20m\"'"
    )]
    Edit {
        /// Id of the sale
        sale: String,
        /// Fields to change as a JSON object; `-` is standard input
        #[arg(long, required_unless_present = "set")]
        file: Option<PathBuf>,
        /// One field to change, its value as JSON (text without quotes is taken as text)
        #[arg(long, value_name = "FIELD=VALUE", conflicts_with = "file")]
        set: Vec<String>,
    },
    /// Move the end of a sale's window: later, or with a minus sign earlier
    Extend {
        /// Id of the sale
        sale: String,
        /// By how much, as in 10m or -10m
        #[arg(long, allow_hyphen_values = true)]
        by: String,
    },
    /// How each slot stands: booked, checked in, cancelled, no show
    Slots {
        /// Id of the sale
        sale: String,
    },
    /// Check a buyer in who shows the code of a booking
    Checkin {
        /// Id of the sale
        sale: String,
        /// Id of the order
        order: String,
        /// The code
        code: String,
    },
    /// Refuse purchases for now (503 with Retry-After)
    Pause {
        /// Id of the sale
        sale: String,
    },
    /// Let purchases through again
    Resume {
        /// Id of the sale
        sale: String,
    },
    /// End a sale for good
    Close {
        /// Id of the sale
        sale: String,
    },
    /// Add units; the same --id adds them once
    Restock {
        /// Id of the sale
        sale: String,
        /// Sku to add to
        #[arg(long)]
        sku: String,
        /// Units to add
        #[arg(long)]
        units: u64,
        /// Id of this restock, chosen by you
        #[arg(long)]
        id: String,
    },
}

/// A new sale with one sku; sales with several skus are created with `--file`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The whole sale as JSON, or as TOML in a file named so, instead of the options below; `-` is standard input
    #[arg(long, conflicts_with_all = ["id", "sku"])]
    file: Option<PathBuf>,
    /// Id of the sale
    #[arg(long, required_unless_present = "file")]
    id: Option<String>,
    /// Sku
    #[arg(long, required_unless_present = "file")]
    sku: Option<String>,
    /// Units on sale
    #[arg(long, required_unless_present = "file")]
    stock: Option<u64>,
    /// Price of one unit in minor units
    #[arg(long, required_unless_present = "file")]
    price: Option<i64>,
    /// ISO 4217 currency, lower case
    #[arg(long, default_value = "usd")]
    currency: String,
    /// When the window begins, from now
    #[arg(long, default_value = "0s")]
    starts_in: String,
    /// How long the window lasts
    #[arg(long, default_value = "1h")]
    lasts: String,
    /// Live units one buyer may hold
    #[arg(long, default_value_t = 1)]
    buyer_limit: u32,
    /// How long an order may stay unpaid
    #[arg(long, default_value = "15m")]
    pay_within: String,
    /// Most units of one order
    #[arg(long)]
    order_limit: Option<u32>,
    /// Who may buy: open, allow_list, token, or lottery (with --file)
    #[arg(long, default_value = "open")]
    admission: String,
    /// Leave it a draft, to be edited and published
    #[arg(long)]
    draft: bool,
    /// Segments that the stock is cut into, 1 to 64: more than one spreads a hot sku over the primaries of a cluster
    #[arg(long, default_value_t = 1)]
    segments: u16,
    /// Let buyers take several skus in one step; not together with --segments
    #[arg(long)]
    carts: bool,
    /// What an acceptance waits for: fast, replicated or durable; the store's own level if missing
    #[arg(long)]
    durability: Option<String>,
}

/// Runs a sale command and prints the answer as JSON.
pub async fn run(admin: &Admin, command: &SaleCommand) -> anyhow::Result<()> {
    let post = |sale: &str, verb: &str| {
        (
            Method::POST,
            format!("/admin/v1/sales/{sale}/{verb}"),
            Value::Null,
        )
    };
    let (method, path, body) = match command {
        SaleCommand::Create(args) => (Method::POST, "/admin/v1/sales".to_owned(), new_sale(args)?),
        SaleCommand::List => (Method::GET, "/admin/v1/sales".to_owned(), Value::Null),
        SaleCommand::Show { sale } => {
            let mut shown = call(
                admin,
                Method::GET,
                &format!("/admin/v1/sales/{sale}"),
                Value::Null,
            )
            .await?;
            // The store knows nothing of a draft.
            if shown["stage"] != json!("draft") {
                shown["report"] = call(
                    admin,
                    Method::GET,
                    &format!("/admin/v1/sales/{sale}/report"),
                    Value::Null,
                )
                .await?;
            }
            return print(&shown);
        }
        SaleCommand::Publish { sale } => post(sale, "publish"),
        SaleCommand::Edit { sale, file, set } => {
            let patch = match file {
                Some(path) => read_json(path)?,
                None => fields(set)?,
            };
            return print(&change(admin, sale, |_| Ok(patch)).await?);
        }
        SaleCommand::Extend { sale, by } => {
            let later = |shown: &Value| {
                let ends = shown["ends_at_ms"]
                    .as_i64()
                    .context("the sale has no end")?;
                let (sign, length) = match by.strip_prefix('-') {
                    Some(length) => (-1, length),
                    None => (1, by.as_str()),
                };
                let ms = duration_ms("--by", length)?;
                let ms = i64::try_from(ms).context("--by: too long")?;
                Ok(json!({"ends_at_ms": ends.saturating_add(sign * ms)}))
            };
            return print(&change(admin, sale, later).await?);
        }
        SaleCommand::Slots { sale } => (
            Method::GET,
            format!("/admin/v1/sales/{sale}/slots"),
            Value::Null,
        ),
        SaleCommand::Checkin { sale, order, code } => (
            Method::POST,
            format!("/admin/v1/sales/{sale}/checkin"),
            json!({"order": order, "code": code}),
        ),
        SaleCommand::Pause { sale } => post(sale, "pause"),
        SaleCommand::Resume { sale } => post(sale, "resume"),
        SaleCommand::Close { sale } => post(sale, "close"),
        SaleCommand::Restock {
            sale,
            sku,
            units,
            id,
        } => (
            Method::POST,
            format!("/admin/v1/sales/{sale}/restock"),
            json!({"sku": sku, "units": units, "id": id}),
        ),
    };
    print(&call(admin, method, &path, body).await?)
}

/// Checks the promises of one sale, or of all sales and of the payment books, and mends what can be mended unless it is a
/// `dry_run`; false if one does not hold.
pub async fn reconcile(admin: &Admin, sale: Option<&str>, dry_run: bool) -> anyhow::Result<bool> {
    let get = |path: String| async move { call(admin, Method::GET, &path, Value::Null).await };
    let method = if dry_run { Method::GET } else { Method::POST };
    let visit = |path: String| {
        let method = method.clone();
        async move { call(admin, method, &path, Value::Null).await }
    };
    let of_sale = |sale: &str| format!("/admin/v1/sales/{sale}/reconcile");
    let answer = match sale {
        Some(sale) => visit(of_sale(sale)).await?,
        None => {
            let list = get("/admin/v1/sales".to_owned()).await?;
            let ids = list["sales"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|sale| sale["id"].as_str());
            let mut sales = Vec::new();
            for id in ids {
                sales.push(visit(of_sale(id)).await?);
            }
            let payments = get("/admin/v1/payments/reconcile".to_owned()).await?;
            let ok =
                payments["ok"] == json!(true) && sales.iter().all(|sale| sale["ok"] == json!(true));
            json!({"ok": ok, "sales": sales, "payments": payments})
        }
    };
    print(&answer)?;
    Ok(answer["ok"] == json!(true))
}

/// Reads a sale, makes a change of it, and sends that as made from the version that was read.
async fn change(
    admin: &Admin,
    sale: &str,
    make: impl FnOnce(&Value) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    let path = format!("/admin/v1/sales/{sale}");
    let shown = call(admin, Method::GET, &path, Value::Null).await?;
    let version = shown["version"]
        .as_u64()
        .context("the sale has no version")?;
    let patch = make(&shown)?;
    call_on(admin, Method::PATCH, &path, patch, Some(version)).await
}

/// `--set a=1 --set b=text` as a JSON object.
fn fields(set: &[String]) -> anyhow::Result<Value> {
    let mut patch = serde_json::Map::new();
    for pair in set {
        let (field, value) = pair
            .split_once('=')
            .with_context(|| format!("--set {pair}: must be FIELD=VALUE"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        patch.insert(field.to_owned(), value);
    }
    Ok(Value::Object(patch))
}

pub(crate) fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = read_text(path)?;
    serde_json::from_str(&text).with_context(|| format!("--file {}", path.display()))
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    text.with_context(|| format!("--file {}", path.display()))
}

fn duration_ms(option: &str, text: &str) -> anyhow::Result<u64> {
    parse_duration_ms(text)
        .with_context(|| format!("{option} = {text:?}: must be a duration, as in 30s, 15m or 2h"))
}

fn new_sale(args: &CreateArgs) -> anyhow::Result<Value> {
    if let Some(path) = &args.file {
        let is_toml = path.extension().is_some_and(|ending| ending == "toml");
        return match is_toml {
            true => toml::from_str(&read_text(path)?)
                .with_context(|| format!("--file {}", path.display())),
            false => read_json(path),
        };
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the clock stands before 1970")?;
    let starts =
        (now.as_millis() as u64).saturating_add(duration_ms("--starts-in", &args.starts_in)?);
    let ends = starts.saturating_add(duration_ms("--lasts", &args.lasts)?);
    let mut sale = json!({
        "id": args.id, "starts_at_ms": starts, "ends_at_ms": ends, "pay_within": args.pay_within,
        "buyer_limit": args.buyer_limit, "order_limit": args.order_limit, "draft": args.draft, "admission": args.admission,
        "currency": args.currency, "segments": args.segments, "carts": args.carts,
        "skus": [{"sku": args.sku, "stock": args.stock, "price_minor": args.price}],
    });
    if let Some(durability) = &args.durability {
        sale["durability"] = json!(durability);
    }
    Ok(sale)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use seckill::{sale::NewSale, store::Durability};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: SaleCommand,
    }

    fn create(words: &str) -> seckill::sale::Sale {
        let line = Line::try_parse_from(format!("sale create {words}").split(' ')).unwrap();
        let SaleCommand::Create(args) = line.command else {
            panic!("{words}")
        };
        let document = new_sale(&args).unwrap();
        let sale: NewSale = serde_json::from_value(document).unwrap();
        sale.check().unwrap()
    }

    #[test]
    fn segments_carts_and_durability_reach_the_sale() {
        let plain = create("--id s --sku k --stock 9 --price 1");
        assert_eq!(
            (plain.segments, plain.carts, plain.durability),
            (1, false, None)
        );
        let cut = create("--id s --sku k --stock 9 --price 1 --segments 8 --durability fast");
        assert_eq!((cut.segments, cut.durability), (8, Some(Durability::Fast)));
        assert!(create("--id s --sku k --stock 9 --price 1 --carts").carts);
    }

    #[test]
    fn a_sale_is_read_from_toml_and_from_json() {
        let folder = tempfile::tempdir().unwrap();
        let toml = "id = 's'\nstarts_at_ms = 1\nends_at_ms = 2\npay_within = '15m'\nbuyer_limit = 2\ncurrency = 'usd'\n\
            carts = true\nskus = [{ sku = 'k', stock = 9, price_minor = 1 }]\n";
        let json = json!({"id": "s", "starts_at_ms": 1, "ends_at_ms": 2, "pay_within": "15m", "buyer_limit": 2,
            "currency": "usd", "carts": true, "skus": [{"sku": "k", "stock": 9, "price_minor": 1}]});
        for (name, text) in [
            ("sale.toml", toml.to_owned()),
            ("sale.json", json.to_string()),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let sale = create(&format!("--file {}", path.display()));
            assert!(sale.carts && sale.skus[0].stock == 9, "{name}");
        }
    }
}
