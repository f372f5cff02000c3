//! `penstock sale …` and `penstock reconcile`: the admin API from the command line.

mod create;

use std::{path::PathBuf, time::SystemTime};

use anyhow::Context;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

pub(super) use self::create::CreateArgs;
use self::create::new_sale;
use super::client::{Admin, call, call_on, read_json, sale_id};

/// What to do with sales.
#[derive(Debug, Clone, Subcommand)]
pub enum SaleCommand {
    /// Create a sale
    Create(Box<CreateArgs>),
    /// List all sales
    List,
    /// Show a sale: its rules and its counts
    Show {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
    },
    /// Make a draft visible to buyers and open its stock
    Publish {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
    },
    /// Change a draft, or the window of a published sale
    Edit {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
        /// Fields to change as a JSON object; `-` is standard input
        #[arg(long, required_unless_present = "set")]
        file: Option<PathBuf>,
        /// One field to change, its value as JSON or plain text
        #[arg(long, value_name = "FIELD=VALUE", conflicts_with = "file")]
        set: Vec<String>,
    },
    /// Move the end of a sale's window: later, or with a minus sign earlier
    Extend {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
        /// By how much, as in 10m or -10m
        #[arg(long, allow_hyphen_values = true)]
        by: String,
    },
    /// How each slot stands: booked, checked in, cancelled, no show
    Slots {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
    },
    /// Check in a buyer who shows the code of a booking
    Checkin {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
        /// Id of the order
        order: String,
        /// The code
        code: String,
    },
    /// Refuse purchases for now (503 with Retry-After)
    Pause {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
    },
    /// Let purchases through again
    Resume {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
    },
    /// End a sale for good
    Close {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
    },
    /// Add units; the same --id adds them once
    Restock {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
        /// Sku to add to
        #[arg(long)]
        sku: String,
        /// Units to add
        #[arg(long, value_name = "N")]
        units: u64,
        /// Id of this restock, chosen by you
        #[arg(long)]
        id: String,
    },
}

/// Runs a sale command and prints the answer.
pub(super) async fn run(admin: &Admin, command: &SaleCommand) -> anyhow::Result<()> {
    let post = |sale: &str, verb: &str| {
        (
            Method::POST,
            format!("/admin/v1/sales/{sale}/{verb}"),
            Value::Null,
        )
    };
    let (method, path, body) = match command {
        SaleCommand::Create(args) => (
            Method::POST,
            "/admin/v1/sales".to_owned(),
            new_sale(args, now_ms()?)?,
        ),
        SaleCommand::List => {
            let list = get(admin, "/admin/v1/sales").await?;
            return admin.output.print(&match admin.output.is_text() {
                true => overview(&list),
                false => list,
            });
        }
        SaleCommand::Show { sale } => return admin.output.print(&shown(admin, sale).await?),
        SaleCommand::Publish { sale } => post(sale, "publish"),
        SaleCommand::Edit { sale, file, set } => {
            let patch = match file {
                Some(path) => read_json(path)?,
                None => fields(set)?,
            };
            return admin
                .output
                .print(&change(admin, sale, |_| Ok(patch)).await?);
        }
        SaleCommand::Extend { sale, by } => {
            let later = change(admin, sale, |shown| later_end(shown, by));
            return admin.output.print(&later.await?);
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
    admin.output.print(&call(admin, method, &path, body).await?)
}

async fn get(admin: &Admin, path: &str) -> anyhow::Result<Value> {
    call(admin, Method::GET, path, Value::Null).await
}

/// A sale with its report.
async fn shown(admin: &Admin, sale: &str) -> anyhow::Result<Value> {
    let path = format!("/admin/v1/sales/{sale}");
    let mut shown = get(admin, &path).await?;
    // The store knows nothing of a draft.
    if shown["stage"] != json!("draft") {
        shown["report"] = get(admin, &format!("{path}/report")).await?;
    }
    Ok(shown)
}

/// The end of a sale, moved by a duration that may be negative.
fn later_end(shown: &Value, by: &str) -> anyhow::Result<Value> {
    let ends = shown["ends_at_ms"]
        .as_i64()
        .context("the sale has no end")?;
    let (sign, length) = match by.strip_prefix('-') {
        Some(length) => (-1, length),
        None => (1, by),
    };
    let ms = i64::try_from(duration_ms("--by", length)?).context("--by: too long")?;
    Ok(json!({"ends_at_ms": ends.saturating_add(sign * ms)}))
}

/// A line a sale, for people.
fn overview(list: &Value) -> Value {
    let sales = list["sales"].as_array().into_iter().flatten();
    let line = |sale: &Value| {
        let skus = sale["skus"].as_array().into_iter().flatten();
        let units: u64 = skus.clone().filter_map(|sku| sku["stock"].as_u64()).sum();
        json!({
            "id": sale["id"], "state": sale["state"], "starts_at_ms": sale["starts_at_ms"], "ends_at_ms": sale["ends_at_ms"],
            "skus": skus.count(), "units": units,
        })
    };
    Value::Array(sales.map(line).collect())
}

/// Checks the promises of one sale, or of all sales and of the payment ledger, and repairs what can be repaired unless it is a
/// `dry_run`; false if one does not hold.
pub(super) async fn reconcile(
    admin: &Admin,
    sale: Option<&str>,
    dry_run: bool,
) -> anyhow::Result<bool> {
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
            // Of a draft nothing can have been sold.
            let ids = list["sales"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|sale| sale["stage"] != json!("draft"))
                .filter_map(|sale| sale["id"].as_str());
            let mut sales = Vec::new();
            for id in ids {
                // One sale that cannot be compared does not keep the others from it.
                sales.push(visit(of_sale(id)).await.unwrap_or_else(
                    |error| json!({"sale": id, "ok": false, "error": format!("{error:#}")}),
                ));
            }
            let payments = get("/admin/v1/payments/reconcile".to_owned()).await?;
            let ok =
                payments["ok"] == json!(true) && sales.iter().all(|sale| sale["ok"] == json!(true));
            json!({"ok": ok, "sales": sales, "payments": payments})
        }
    };
    admin.output.print(&answer)?;
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

fn duration_ms(option: &str, text: &str) -> anyhow::Result<u64> {
    settings::units::duration_ms(text)
        .with_context(|| format!("{option} = {text:?}: must be a duration, as in 30s, 15m or 2h"))
}

fn now_ms() -> anyhow::Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(now.context("the clock stands before 1970")?.as_millis() as u64)
}
