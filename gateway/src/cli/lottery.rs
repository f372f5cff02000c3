//! `penstock lottery …`: makes a seed, draws a lottery, verifies a published draw.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use http::{Method, Uri};
use seckill::lottery::{Published, Seed, entry_of, verify};
use serde_json::{Value, json};

use super::client::read_json;
use super::client::{Admin, Output, call, get, sale_id};

/// Entries of one page of a published draw.
const PAGE: usize = 10_000;
/// Pages read at most: a hundred million entries.
const PAGES_MAX: usize = 10_000;

/// What to do with lotteries.
#[derive(Debug, Clone, Subcommand)]
pub enum LotteryCommand {
    /// Make a secret seed, and its commitment for the sale
    Seed {
        /// File for the seed; it must not exist
        #[arg(long)]
        out: PathBuf,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Draw the lottery of a sale whose entries are closed
    Draw {
        /// Where the admin API is.
        #[command(flatten)]
        admin: Admin,
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
        /// File with the seed
        #[arg(long)]
        seed_file: PathBuf,
        /// The beacon, if one was announced
        #[arg(long, default_value = "")]
        beacon: String,
    },
    /// Draw the next winners from the reserve
    Reserve {
        /// Where the admin API is.
        #[command(flatten)]
        admin: Admin,
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
        /// Number of this round; the draw was round 1
        #[arg(long, value_name = "N")]
        round: u32,
        /// How many winners
        #[arg(long, value_name = "N")]
        winners: u64,
    },
    /// Repeat a published draw; exits with 1 if the result differs
    Verify {
        /// URL of the sale (http://…/v1/sales/ID), or a file of --save
        source: String,
        /// Writes what was published to this file
        #[arg(long)]
        save: Option<PathBuf>,
        /// Also looks for this buyer's entry
        #[arg(long, requires = "nonce")]
        buyer: Option<String>,
        /// The nonce that the buyer got when entering
        #[arg(long, requires = "buyer")]
        nonce: Option<String>,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
}

/// Runs a lottery command; false if a draw does not hold.
pub(super) async fn run(command: &LotteryCommand) -> anyhow::Result<bool> {
    match command {
        LotteryCommand::Seed { out, output } => {
            let seed = Seed::new(rand::random());
            write_secret(out, &seed.to_hex())
                .with_context(|| format!("--out {}", out.display()))?;
            output.print(&json!({"seed_file": out, "commitment": seed.commitment()}))?;
        }
        LotteryCommand::Draw {
            admin,
            sale,
            seed_file,
            beacon,
        } => {
            let seed = std::fs::read_to_string(seed_file)
                .with_context(|| format!("--seed-file {}", seed_file.display()))?;
            let body = json!({"seed": seed.trim(), "beacon": beacon});
            let path = format!("/admin/v1/sales/{sale}/draw");
            admin
                .output
                .print(&call(admin, Method::POST, &path, body).await?)?;
        }
        LotteryCommand::Reserve {
            admin,
            sale,
            round,
            winners,
        } => {
            let body = json!({"round": round, "winners": winners});
            let path = format!("/admin/v1/sales/{sale}/draw/rounds");
            admin
                .output
                .print(&call(admin, Method::POST, &path, body).await?)?;
        }
        LotteryCommand::Verify {
            source,
            save,
            buyer,
            nonce,
            output,
        } => {
            let published = match source.starts_with("http://") {
                true => fetch(source).await?,
                false => read_json(&PathBuf::from(source))?,
            };
            if let Some(path) = save {
                std::fs::write(path, published.to_string())
                    .with_context(|| format!("--save {}", path.display()))?;
            }
            let person = buyer.as_deref().zip(nonce.as_deref());
            return check(&published, person, *output);
        }
    }
    Ok(true)
}

/// Repeats the draw of `{"draw": …, "entries": […]}` and prints the result.
fn check(published: &Value, person: Option<(&str, &str)>, output: Output) -> anyhow::Result<bool> {
    let mut draw = published["draw"].clone();
    if draw["state"] != json!("drawn") {
        bail!("the lottery was not drawn yet");
    }
    if let Some(fields) = draw.as_object_mut() {
        fields.retain(|field, _| {
            !["object", "state", "closes_at_ms", "winners"].contains(&field.as_str())
        });
    }
    let draw: Published = serde_json::from_value(draw).context("draw")?;
    let entries: Vec<String> =
        serde_json::from_value(published["entries"].clone()).context("entries")?;
    let verdict = verify(&draw, entries.iter().map(String::as_str));
    let mut told = json!({
        "ok": verdict.faults.is_empty(), "faults": verdict.faults, "sale": draw.sale, "entries": entries.len(),
        "winners": verdict.winners,
    });
    if let Some((buyer, nonce)) = person {
        let buyer = buyer.parse().context("--buyer")?;
        let entry = entry_of(&draw.sale, &buyer, nonce);
        let place = verdict.winners.iter().position(|winner| *winner == entry);
        told["yours"] = json!({
            "entered": entries.binary_search(&entry).is_ok(), "entry": entry, "place": place,
            "round": place.and_then(|place| draw.rounds.iter()
                .find(|round| (round.first..round.first + round.count).contains(&(place as u64)))
                .map(|round| round.round)),
        });
    }
    output.print(&told)?;
    Ok(verdict.faults.is_empty())
}

/// Reads a published draw with all its entries.
async fn fetch(sale: &str) -> anyhow::Result<Value> {
    let sale: Uri = sale.parse().context("the URL")?;
    let base = sale.path().trim_end_matches('/').to_owned();
    let draw = get(&sale, &format!("{base}/draw")).await?;
    let mut entries = BTreeSet::new();
    let mut after = String::new();
    for _ in 0..PAGES_MAX {
        let path = format!("{base}/draw/entries?limit={PAGE}&after={after}");
        let page = get(&sale, &path).await?;
        let found: Vec<String> =
            serde_json::from_value(page["entries"].clone()).context("entries")?;
        entries.extend(found);
        match page["next"].as_str() {
            Some(next) if next > after.as_str() => after = next.to_owned(),
            Some(_) => bail!("the pages of entries do not go forward"),
            None => return Ok(json!({"draw": draw, "entries": entries})),
        }
    }
    bail!("more than {} entries", PAGE * PAGES_MAX)
}

/// A new file that only its owner can read.
fn write_secret(path: &PathBuf, text: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")
}
