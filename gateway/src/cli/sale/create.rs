//! What `penstock sale create` sends: options, a document, or both together.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{
    super::client::{read_json, read_text},
    duration_ms,
};

/// A new sale: its document, or options for a sale with one sku. Options beside `--file` override what the file says.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The sale as JSON (`-` is standard input) or `.toml`; options override
    #[arg(long, conflicts_with_all = ["sku", "stock", "price"])]
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
    #[arg(long, required_unless_present = "file", allow_negative_numbers = true)]
    price: Option<i64>,
    /// ISO 4217 currency, lower case [default: usd]
    #[arg(long)]
    currency: Option<String>,
    /// When the window begins, from now [default: 0s]
    #[arg(long)]
    starts_in: Option<String>,
    /// How long the window lasts [default: 1h]
    #[arg(long)]
    lasts: Option<String>,
    /// Live units of one sku that one buyer may hold [default: 1]
    #[arg(long)]
    buyer_limit: Option<u32>,
    /// How long an order may stay unpaid [default: 15m]
    #[arg(long)]
    pay_within: Option<String>,
    /// Most units of one order
    #[arg(long)]
    order_limit: Option<u32>,
    /// Who may buy: open, allow_list, token or (in a file) lottery
    #[arg(long)]
    admission: Option<String>,
    /// Leave it a draft, to be edited and published
    #[arg(long)]
    draft: bool,
    /// Segments of the stock, 1 to 64: spreads a hot sku over a cluster
    #[arg(long)]
    segments: Option<u16>,
    /// Let buyers take several skus in one step; not together with --segments
    #[arg(long)]
    carts: bool,
    /// What an acceptance waits for: fast, replicated or durable
    #[arg(long)]
    durability: Option<String>,
}

/// The document that the options, and the file if there is one, make together.
pub(super) fn new_sale(args: &CreateArgs, now_ms: u64) -> anyhow::Result<Value> {
    let mut sale = match &args.file {
        Some(path) => read_document(path)?,
        None => json!({
            "currency": "usd", "buyer_limit": 1, "pay_within": "15m",
            "skus": [{"sku": args.sku, "stock": args.stock, "price_minor": args.price}],
        }),
    };
    let fields = sale
        .as_object_mut()
        .context("--file: a sale is an object of fields")?;
    let given = [
        ("id", args.id.as_ref().map(|id| json!(id))),
        ("currency", args.currency.as_ref().map(|code| json!(code))),
        ("buyer_limit", args.buyer_limit.map(|units| json!(units))),
        (
            "pay_within",
            args.pay_within.as_ref().map(|time| json!(time)),
        ),
        ("order_limit", args.order_limit.map(|units| json!(units))),
        ("admission", args.admission.as_ref().map(|who| json!(who))),
        ("draft", args.draft.then_some(json!(true))),
        ("segments", args.segments.map(|parts| json!(parts))),
        ("carts", args.carts.then_some(json!(true))),
        (
            "durability",
            args.durability.as_ref().map(|level| json!(level)),
        ),
    ];
    for (field, value) in given {
        if let Some(value) = value {
            fields.insert(field.to_owned(), value);
        }
    }
    let length = |option, text: &Option<String>, default| {
        duration_ms(option, text.as_deref().unwrap_or(default))
    };
    if args.starts_in.is_some() || !fields.contains_key("starts_at_ms") {
        let starts = now_ms.saturating_add(length("--starts-in", &args.starts_in, "0s")?);
        fields.insert("starts_at_ms".to_owned(), json!(starts));
    }
    // The end follows a beginning that was moved, unless the file says when it is and nobody asked for a length.
    if args.lasts.is_some() || !fields.contains_key("ends_at_ms") {
        let starts = fields["starts_at_ms"]
            .as_u64()
            .context("starts_at_ms: must be unix milliseconds")?;
        let ends = starts.saturating_add(length("--lasts", &args.lasts, "1h")?);
        fields.insert("ends_at_ms".to_owned(), json!(ends));
    }
    Ok(sale)
}

/// A sale's document: TOML in a file named so, JSON otherwise.
fn read_document(path: &Path) -> anyhow::Result<Value> {
    let is_toml = path.extension().is_some_and(|ending| ending == "toml");
    match is_toml {
        true => {
            toml::from_str(&read_text(path)?).with_context(|| format!("--file {}", path.display()))
        }
        false => read_json(path),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use seckill::sale::NewSale;
    use stock::Durability;

    use super::{super::SaleCommand, *};

    /// 2026-11-21.
    const NOW_MS: u64 = 1_795_219_200_000;

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
        let document = new_sale(&args, NOW_MS).unwrap();
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

    /// `--draft` beside `--file` was not heard: the sale was on at once.
    #[test]
    fn options_go_before_what_the_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sale.toml");
        let text = "id = 's'\nstarts_at_ms = 1\nends_at_ms = 2\npay_within = '15m'\nbuyer_limit = 2\ncurrency = 'usd'\n\
            skus = [{ sku = 'k', stock = 9, price_minor = 1 }]\n";
        std::fs::write(&path, text).unwrap();
        let file = format!("--file {}", path.display());
        let as_written = create(&file);
        assert_eq!((as_written.starts_at_ms, as_written.ends_at_ms), (1, 2));
        let moved = create(&format!(
            "{file} --id t --draft --buyer-limit 3 --starts-in 10m --lasts 1h --segments 4"
        ));
        assert_eq!(
            (moved.id.as_str(), moved.buyer_limit, moved.segments),
            ("t", 3, 4)
        );
        assert_eq!(moved.rules.stage, seckill::sale::Stage::Draft);
        assert_eq!(moved.starts_at_ms, NOW_MS + 600_000);
        assert_eq!(moved.ends_at_ms, NOW_MS + 4_200_000);
        let longer = create(&format!("{file} --lasts 1m"));
        assert_eq!((longer.starts_at_ms, longer.ends_at_ms), (1, 60_001));
        for silent in ["--stock 5", "--sku x", "--price 1"] {
            let line = format!("sale create {file} {silent}");
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{silent}");
        }
    }

    #[test]
    fn every_example_of_a_sale_is_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/sales");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let sale = create(&format!("--file {}", path.display()));
            assert!(sale.starts_at_ms >= NOW_MS, "{}", path.display());
            names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
        names.sort();
        let page = std::fs::read_to_string(folder.join("../../docs/configuration.md")).unwrap();
        for name in &names {
            assert!(
                page.contains(&format!("(../config/sales/{name})")),
                "docs/configuration.md does not name {name}"
            );
        }
        assert_eq!(
            names,
            [
                "allow-list.json",
                "cart.toml",
                "hot-sku.toml",
                "lottery.toml",
                "outfit.toml",
                "plain.toml",
                "slots.toml",
                "tokens.toml"
            ]
        );
    }
}
