//! `penstock dead-letters …`: orders that could not be settled, and events that could not be delivered, from the command line.

use anyhow::bail;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::{Admin, call, sale_id};

/// What to do with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadLettersCommand {
    /// List orders that could not be settled, and events not delivered
    List {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
    },
    /// Settle entries again, each exactly once
    Replay(ReplayArgs),
    /// Deliver events again that were given up
    ReplayEvents {
        /// Id of the sale
        #[arg(value_parser = sale_id)]
        sale: String,
        /// Id of one event, as `list` shows it; all of the sale if it is left out
        event: Option<String>,
    },
}

/// Which entries, and how.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Id of the sale
    #[arg(value_parser = sale_id)]
    sale: String,
    /// Id of the entry, as `list` shows it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    letter: Option<String>,
    /// All entries of the sale
    #[arg(long)]
    all: bool,
    /// Refuse an entry for good if no unit is left for it
    #[arg(long)]
    or_refuse: bool,
}

/// Runs a command and prints the answer as JSON; false if an entry stays.
pub(super) async fn run(admin: &Admin, command: &DeadLettersCommand) -> anyhow::Result<bool> {
    match command {
        DeadLettersCommand::List { sale } => {
            let path = format!("/admin/v1/sales/{sale}/dead-letters");
            let letters = pages(admin, Method::GET, &path, Value::Null, "dead_letters").await?;
            let path = format!("/admin/v1/sales/{sale}/dead-events");
            let events = pages(admin, Method::GET, &path, Value::Null, "dead_events").await?;
            admin
                .output
                .print(&json!({"sale": sale, "dead_letters": letters, "dead_events": events}))?;
            Ok(true)
        }
        DeadLettersCommand::Replay(args) => replay(admin, args).await,
        DeadLettersCommand::ReplayEvents { sale, event } => {
            let base = format!("/admin/v1/sales/{sale}/dead-events");
            let path = match event {
                Some(event) => format!("{base}/{event}/replay"),
                None => format!("{base}/replay"),
            };
            admin
                .output
                .print(&call(admin, Method::POST, &path, Value::Null).await?)?;
            Ok(true)
        }
    }
}

async fn replay(admin: &Admin, args: &ReplayArgs) -> anyhow::Result<bool> {
    let how = json!({"or_refuse": args.or_refuse});
    let base = format!("/admin/v1/sales/{}/dead-letters", args.sale);
    let replays = match &args.letter {
        Some(letter) => {
            let path = format!("{base}/{letter}/replay");
            vec![call(admin, Method::POST, &path, how).await?]
        }
        None => {
            pages(
                admin,
                Method::POST,
                &format!("{base}/replay"),
                how,
                "replays",
            )
            .await?
        }
    };
    let closed = replays
        .iter()
        .filter(|replay| replay["closed"] == json!(true))
        .count();
    let stay = replays.len() - closed;
    admin
        .output
        .print(&json!({"sale": args.sale, "closed": closed, "stay": stay, "replays": replays}))?;
    Ok(stay == 0)
}

/// All pages of a list. The cursor only moves forward, so that an entry which fails again is not tried twice.
async fn pages(
    admin: &Admin,
    method: Method,
    path: &str,
    body: Value,
    list: &str,
) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = format!("{path}?limit=1000&after={after}");
        let mut answer = call(admin, method.clone(), &page, body.clone()).await?;
        match answer[list].take() {
            Value::Array(rows) => all.extend(rows),
            _ => bail!("the admin API's answer has no {list}: is it of another version?"),
        }
        match answer["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return Ok(all),
        }
    }
}
